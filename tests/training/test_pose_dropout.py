import pytest
import torch

from tests.helpers import random_clips
from training.pose_dropout import drop_poses


def lost(poses, fraction):
    """Which poses of each clip have changed, `(B, T)`."""
    return (drop_poses(poses, fraction) != poses).flatten(2).any(dim=2)


@pytest.mark.parametrize("fraction", [0.04, 0.2])
def test_fraction_of_poses_is_lost_in_short_rows_but_never_the_first_two(fraction):
    torch.manual_seed(0)
    rows = lost(torch.zeros(4000, 16, 3, 4, 4), fraction)
    assert not rows[:, :2].any()
    assert rows[:, 2:].float().mean().item() == pytest.approx(fraction, rel=0.12)
    both = (rows[:, 3:] & rows[:, 2:-1]).float().mean().item()
    assert both > 2 * fraction**2, "a loss often lasts for more than one frame"


def test_lost_poses_are_white_whole_or_around_a_point_of_the_body():
    torch.manual_seed(0)
    poses = torch.ones(60, 6, 3, 32, 64)
    poses[..., 8:24, 30:34] = 0.2
    new = drop_poses(poses, 0.6)
    assert torch.equal(new[new != poses], torch.ones_like(new[new != poses]))
    left = (new < 1).flatten(2).any(dim=2)
    changed = (new != poses).flatten(2).any(dim=2)
    assert (changed & ~left).any(dim=1).float().mean() > 0.25
    assert (changed & left).any(dim=1).float().mean() > 0.25
    # A part is near the body, so it always takes some of it.
    assert changed.any(dim=1).float().mean() > 0.7


@pytest.mark.parametrize("length", [2, 3, 16])
def test_clips_of_any_length_and_poses_that_are_blank(length):
    torch.manual_seed(0)
    _, poses = random_clips(batch=3, length=length)
    assert drop_poses(poses, 0.5).shape == poses.shape
    assert torch.equal(drop_poses(poses, 0.0), poses)
    blank = torch.ones_like(poses)
    assert torch.equal(drop_poses(blank, 1.0), blank)
