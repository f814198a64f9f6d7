from types import SimpleNamespace

import pytest
import torch

from dataloader import ClipBatch
from tests.helpers import random_uint8_clips
from training.augment import KINDS, augment
from utils import to_float


def augmented(frames, poses, kinds, background=None, pose_dropout=0.0, pose_background="#ffffff"):
    torch.manual_seed(0)
    flags = SimpleNamespace(augment=kinds, pose_dropout=pose_dropout, reference_frame="clip")
    flags.pose_background = pose_background
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


@pytest.mark.parametrize("grey", [255, 0, 102])
def test_what_enters_the_image_is_background_in_poses_and_the_edge_s_colour_in_frames(grey):
    clips = torch.full((8, 2, 32, 64, 3), 51, dtype=torch.uint8)
    colour = f"#{bytes([grey] * 3).hex()}"
    frames, poses = augmented(clips, torch.full_like(clips, grey), "affine", pose_background=colour)
    torch.testing.assert_close(frames, torch.full_like(frames, 0.2))
    torch.testing.assert_close(poses, torch.full_like(poses, grey / 255))


@pytest.mark.parametrize(("kinds", "pose_dropout"), [*((kind, 0.0) for kind in KINDS), ("none", 0.5)])
def test_poses_on_black_become_what_those_on_white_become_inverted(monkeypatch, kinds, pose_dropout):
    monkeypatch.setattr("training.copy_paste.COPY_PASTE_FRACTION", 1.0)
    frames, background = torch.full((2, 20, 3, 32, 64, 3), 90, dtype=torch.uint8).unbind(0)
    frames[:, :, 8:24, 28:34] = 200
    poses = torch.full_like(frames, 255)
    poses[:, :, 9:23, 30:32] = torch.tensor([10, 200, 90], dtype=torch.uint8)
    background = torch.cat([background, torch.full_like(background[..., :1], 255)], dim=-1)[:, 0]
    on_white = augmented(frames, poses, kinds, background, pose_dropout)
    on_black = augmented(frames, 255 - poses, kinds, background, pose_dropout, "#000000")
    torch.testing.assert_close(on_black[0], on_white[0])
    torch.testing.assert_close(on_black[1], 1 - on_white[1])
    assert not torch.allclose(on_white[1], to_float(poses), atol=0.01)


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
