import pytest
import torch

from tests.helpers import random_clips
from training.augment import KINDS, augment


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "paste"])
def test_frames_and_poses_of_a_clip_change_together_and_clips_apart(kind):
    torch.manual_seed(0)
    picture = torch.zeros(3, 32, 64)
    picture[:, 10:20, 18:40] = 1.0
    clips = picture.expand(12, 5, 3, 32, 64)
    frames, poses = augment(clips, 1 - clips, [kind])
    inside = (slice(None), slice(None), slice(None), slice(8, 24), slice(16, 48))
    torch.testing.assert_close(frames[inside], 1 - poses[inside])
    assert all(torch.equal(frames[:, 0], frames[:, t]) for t in range(5))
    changed = [not torch.allclose(frames[b], clips[b], atol=1e-4) for b in range(12)]
    assert any(changed) and not all(changed)
    if kind != "mirror":
        first, second = [b for b in range(12) if changed[b]][:2]
        assert not torch.equal(frames[first], frames[second])


def test_mirror_flips_about_half_of_the_clips():
    torch.manual_seed(0)
    frames, poses = random_clips(batch=40, length=2)
    new_frames, new_poses = augment(frames, poses, ["mirror"])
    flipped = [torch.equal(new, old.flip(-1)) for new, old in zip(new_frames, frames, strict=True)]
    assert flipped == [torch.equal(new, old.flip(-1)) for new, old in zip(new_poses, poses, strict=True)]
    assert flipped == [not torch.equal(new, old) for new, old in zip(new_frames, frames, strict=True)]
    assert 10 < sum(flipped) < 30


def test_turned_squares_stay_square_in_pictures_that_are_none():
    """The turn is one of pixels, not of the grid's units: areas and lengths are kept."""
    torch.manual_seed(0)
    picture = torch.zeros(1, 1, 3, 64, 128)
    picture[..., 24:40, 56:72] = 1.0
    clips = picture.expand(30, 1, 3, 64, 128)
    frames, _ = augment(clips, clips, ["turn"])
    areas = frames[:, 0, 0].sum(dim=(1, 2))
    torch.testing.assert_close(areas, torch.full((30,), 256.0), rtol=0.08, atol=0)


def test_what_enters_is_white_in_poses_and_the_edge_s_colour_in_frames():
    torch.manual_seed(0)
    frames, poses = augment(torch.full((8, 2, 3, 32, 64), 0.3), torch.ones(8, 2, 3, 32, 64), KINDS)
    torch.testing.assert_close(frames, torch.full_like(frames, 0.3))
    torch.testing.assert_close(poses, torch.ones_like(poses))


def test_values_stay_in_their_range_and_the_given_clips_are_not_changed():
    torch.manual_seed(0)
    frames, poses = random_clips(batch=4, length=3, height=32, width=64)
    before = frames.clone(), poses.clone()
    changed = augment(frames, poses, KINDS)
    assert torch.equal(frames, before[0]) and torch.equal(poses, before[1])
    for one, given in zip(changed, before, strict=True):
        assert one.shape == given.shape
        assert one.min() >= -1e-6 and one.max() <= 1 + 1e-6
        assert (one - given).abs().mean() > 0.05
