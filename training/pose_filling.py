"""Fills short gaps of missing poses from their neighbours."""

from itertools import pairwise

import numpy as np

MIN_INTENSITY = 25  # of 255, from which a pixel counts as drawn


def fill_missing_poses(poses: np.ndarray, max_gap: int) -> np.ndarray:
    """Replace blank poses between two drawn ones by the nearer of these, the earlier one in the middle.

    Longer gaps stay blank: the person has left the image.

    Args:
        poses: uint8 `(T, H, W, 3)`, drawn on white.
        max_gap: longest run of blank poses to fill; 0 changes nothing.

    Returns:
        uint8 of the same shape; `poses` itself if nothing is filled.
    """
    drawn = np.flatnonzero(poses.min(axis=(1, 2, 3)) < 255 - MIN_INTENSITY)
    source = np.arange(len(poses))
    for before, after in pairwise(drawn):
        if 1 < after - before <= max_gap + 1:
            gap = np.arange(before + 1, after)
            source[gap] = np.where(gap - before <= after - gap, before, after)
    return poses[source] if (source != np.arange(len(poses))).any() else poses
