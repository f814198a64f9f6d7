import numpy as np
import pytest

from training.pose_filling import fill_missing_poses


def make_poses(is_drawn):
    """Poses, some of them drawn: pose i has a dark point in column i."""
    poses = np.full((len(is_drawn), 4, 64, 3), 255, np.uint8)
    for index in np.flatnonzero(is_drawn):
        poses[index, 2, index] = (0, 90, 200)
    return poses


def sources(poses):
    """The number of the pose that each one shows; None if it is blank."""
    return [int(np.flatnonzero(pose[2, :, 0] == 0)[0]) if (pose < 255).any() else None for pose in poses]


@pytest.mark.parametrize(
    ("max_gap", "expected"),
    [
        (0, [None, 1, None, 3, None, None, None, 7, 8, None]),
        (2, [None, 1, 1, 3, None, None, None, 7, 8, None]),
        (3, [None, 1, 1, 3, 3, 3, 7, 7, 8, None]),
    ],
)
def test_short_gaps_show_the_nearer_neighbour_and_others_stay_blank(max_gap, expected):
    poses = make_poses([0, 1, 0, 1, 0, 0, 0, 1, 1, 0])
    before = poses.copy()
    assert sources(fill_missing_poses(poses, max_gap, "#ffffff")) == expected
    assert np.array_equal(poses, before)
    assert sources(255 - fill_missing_poses(255 - poses, max_gap, "#000000")) == expected


@pytest.mark.parametrize("colour", [(0, 0, 0), (90, 90, 90), (210, 90, 0)])
def test_any_colour_but_the_background_is_a_drawn_pose(colour):
    poses = np.full((3, 4, 6, 3), (60, 60, 60), np.uint8)
    poses[[0, 2], 2, 2] = colour
    filled = fill_missing_poses(poses, 1, "#3c3c3c")
    assert np.array_equal(filled[1], poses[0])
