from types import SimpleNamespace

import pytest
import torch

from dataloader import ClipBatch
from tests.helpers import random_uint8_clips
from training.augment import KINDS, augment
from utils import to_float


def augmented(frames, poses, kinds, background=None, pose_dropout=0.0):
    torch.manual_seed(0)
    flags = SimpleNamespace(augment=kinds, pose_dropout=pose_dropout, reference_frame="clip")
    return augment(ClipBatch(frames, poses, background), flags)


def square(height, width, count, length=1):
    """uint8 clips of a white square of 16 x 16 pixels on black."""
    clips = torch.zeros(count, length, height, width, 3, dtype=torch.uint8)
    clips[:, :, height // 2 - 8 : height // 2 + 8, width // 2 - 8 : width // 2 + 8] = 255
    return clips


def test_frames_and_poses_of_a_clip_change_alike_and_clips_differ():
    clips = square(32, 64, count=12, length=5)
    frames, poses = augmented(clips, 255 - clips, "affine")
    inside = (slice(None), slice(None), slice(None), slice(8, 24), slice(16, 48))
    torch.testing.assert_close(frames[inside], 1 - poses[inside])
    assert all(torch.equal(frames[:, 0], frames[:, t]) for t in range(5))
    first_frames = frames[:, 0].flatten(1)
    differs = ~torch.isclose(first_frames, to_float(clips)[:, 0].flatten(1), atol=1e-4).all(dim=1)
    assert 2 <= differs.sum() < 12
    assert not torch.equal(*first_frames[differs][:2])


def test_areas_stay_the_same_in_images_that_are_not_square():
    clips = square(64, 128, count=30)
    areas = augmented(clips, clips, "affine")[0][:, 0, 0].sum(dim=(1, 2))
    torch.testing.assert_close(areas, torch.full((30,), 256.0), rtol=0.08, atol=0)


def test_what_enters_the_image_is_white_in_poses_and_the_edge_s_colour_in_frames():
    clips = torch.full((8, 2, 32, 64, 3), 51, dtype=torch.uint8)
    frames, poses = augmented(clips, torch.full_like(clips, 255), "affine")
    torch.testing.assert_close(frames, torch.full_like(frames, 0.2))
    torch.testing.assert_close(poses, torch.ones_like(poses))


@pytest.mark.parametrize("pose_dropout", [0.0, 0.5])
def test_all_kinds_together_keep_shapes_and_ranges_and_none_changes_nothing(pose_dropout):
    clips = random_uint8_clips(batch=4, length=3, height=32, width=64)
    background = torch.full((4, 32, 64, 4), 255, dtype=torch.uint8)
    given = [to_float(images) for images in clips]
    for new, old in zip(augmented(*clips, ",".join(KINDS), background, pose_dropout), given, strict=True):
        assert new.shape == old.shape and not torch.equal(new, old)
        assert new.min() >= -1e-6 and new.max() <= 1 + 1e-6
    frames, poses = augmented(*clips, "none", background, pose_dropout)
    assert torch.equal(frames, given[0]) and torch.equal(poses, given[1]) == (pose_dropout == 0)
