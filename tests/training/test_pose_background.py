from pathlib import Path

import numpy as np
import pytest

from training.pose_background import find_pose_background, resolve_pose_background


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (68, 1, 84), (128, 128, 128), (127, 16, 240)])
@pytest.mark.parametrize("noise", [0, 3])
def test_background_is_the_most_frequent_colour(colour, noise):
    rng = np.random.default_rng(0)
    poses = np.full((50, 32, 64, 3), colour, np.int16)
    poses[:, 4:30, 10:44] = (200, 90, 90)  # 43 %
    poses += rng.integers(-noise, noise + 1, poses.shape)
    found = bytes.fromhex(find_pose_background(poses.clip(0, 255).astype(np.uint8))[1:])
    assert np.abs(np.array([*found]) - colour).max() <= noise


def test_nearly_black_or_white_is_black_or_white():
    for value, expected in ((3, "#000000"), (252, "#ffffff"), (230, "#e6e6e6")):
        assert find_pose_background(np.full((2, 8, 8, 3), value, np.uint8)) == expected


def test_given_background_is_used_and_a_difference_is_printed(capsys):
    poses = np.full((3, 8, 8, 3), 100, np.uint8)
    poses[:, 2:4] = 200
    for given in (None, "#646464"):
        assert resolve_pose_background(poses, given, Path("data")) == "#646464"
    assert capsys.readouterr().out == ""
    assert resolve_pose_background(poses, "#000000", Path("data")) == "#000000"
    message = "data: the poses' most frequent colour is #646464, but --pose_background is black\n"
    assert capsys.readouterr().out == message


def test_poses_that_show_nothing_are_one_line(capsys):
    """Such as masks of 0 and 1."""
    poses = np.zeros((3, 8, 8, 3), np.uint8)
    poses[:, 2:4] = 1
    assert resolve_pose_background(poses, None, Path("data")) == "#000000"
    assert capsys.readouterr().out == "data: all poses are blank: within 25 of 255 of black\n"
