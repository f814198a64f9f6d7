import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.pose_filling import fill_lost_poses


def video(drawn):
    """Poses of which some are drawn, each with a dark point at a place of its own."""
    poses = np.full((len(drawn), 4, 64, 3), 255, np.uint8)
    for index, is_drawn in enumerate(drawn):
        if is_drawn:
            poses[index, 2, index] = (0, 90, 200)
    return poses


def sources(poses):
    """The number of the pose that each one shows; None if it is blank."""
    return [int(np.flatnonzero(pose[2, :, 0] == 0)[0]) if (pose < 255).any() else None for pose in poses]


@pytest.mark.parametrize(
    ("longest", "expected"),
    [
        (0, [0, None, 2, None, None, None, 6, 7, None]),
        (1, [0, 0, 2, None, None, None, 6, 7, None]),
        (2, [0, 0, 2, None, None, None, 6, 7, None]),
        (3, [0, 0, 2, 2, 2, 6, 6, 7, None]),
    ],
)
def test_short_gaps_show_the_nearer_neighbour_and_others_stay_blank(longest, expected):
    poses = video([1, 0, 1, 0, 0, 0, 1, 1, 0])
    assert sources(fill_lost_poses(poses, longest)) == expected


@given(drawn=st.lists(st.booleans(), min_size=1, max_size=60), longest=st.integers(0, 8))
def test_drawn_poses_and_long_gaps_are_never_changed(drawn, longest):
    poses = video(drawn)
    before = poses.copy()
    filled = fill_lost_poses(poses, longest)
    assert np.array_equal(poses, before)
    for index, (is_drawn, source) in enumerate(zip(drawn, sources(filled), strict=True)):
        if is_drawn:
            assert source == index
        elif source is not None:
            assert abs(source - index) <= longest and drawn[source]
