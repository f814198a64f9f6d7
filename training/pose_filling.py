"""Poses that an estimator has lost for a moment, filled from their neighbours."""

from itertools import pairwise

import numpy as np

INK = 25  # darkness, of 255, from which a pixel is drawn


def fill_lost_poses(poses: np.ndarray, longest: int) -> np.ndarray:
    """Replace blank poses between two drawn ones by the nearer of these, the earlier one in the middle.

    A person who leaves the picture is blank for longer than an estimator that fails, so only short gaps are
    filled.

    Args:
        poses: uint8 `(T, H, W, 3)`, on white.
        longest: number of blank poses in a row that are filled; 0 changes nothing.

    Returns:
        uint8 of the same shape; `poses` itself if nothing is filled.
    """
    drawn = np.flatnonzero(poses.min(axis=(1, 2, 3)) < 255 - INK)
    source = np.arange(len(poses))
    for before, after in pairwise(drawn):
        if 1 < after - before <= longest + 1:
            gap = np.arange(before + 1, after)
            source[gap] = np.where(gap - before <= after - gap, before, after)
    return poses[source] if (source != np.arange(len(poses))).any() else poses
