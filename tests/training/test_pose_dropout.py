import pytest
import torch

from tests.helpers import random_clips
from training.pose_dropout import drop_poses


@pytest.mark.parametrize("fraction", [0.04, 0.2])
def test_fraction_of_poses_is_lost_in_short_rows_but_never_the_first_two(fraction):
    torch.manual_seed(0)
    drawing = torch.ones(4000, 16, 3, 4, 4)
    is_lost = (drop_poses(drawing, fraction) != drawing).flatten(2).any(dim=2)
    assert not is_lost[:, :2].any()
    assert is_lost[:, 2:].float().mean().item() == pytest.approx(fraction, rel=0.12)
    both = (is_lost[:, 3:] & is_lost[:, 2:-1]).float().mean().item()
    assert both > 2 * fraction**2, "a loss often lasts for more than one frame"


@pytest.mark.parametrize("intensity", [0.8, -0.8])
def test_lost_poses_are_blank_whole_or_around_a_point_of_the_body(intensity):
    torch.manual_seed(0)
    drawing = torch.zeros(60, 6, 3, 32, 64)
    drawing[..., 8:24, 30:34] = intensity
    new = drop_poses(drawing, 0.6)
    assert not new[new != drawing].any()
    is_left = (new != 0).flatten(2).any(dim=2)
    is_changed = (new != drawing).flatten(2).any(dim=2)
    assert (is_changed & ~is_left).any(dim=1).float().mean() > 0.25
    assert (is_changed & is_left).any(dim=1).float().mean() > 0.25
    # A disc has its center on the body, so it always erases some of it.
    assert is_changed.any(dim=1).float().mean() > 0.7


def test_no_fraction_and_blank_poses_change_nothing():
    drawing = random_clips(batch=3, length=2)[1]
    assert torch.equal(drop_poses(drawing, 0.0), drawing)
    assert torch.equal(drop_poses(drawing, 1.0), drawing)  # the first two poses are kept
