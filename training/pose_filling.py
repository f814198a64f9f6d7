"""Fills short gaps of missing poses from their neighbours."""

from itertools import pairwise

import numpy as np

from utils import to_rgb

MIN_INTENSITY = 25  # of 255, from which a pixel counts as drawn


def is_drawn(poses: np.ndarray, background: str) -> np.ndarray:
    """Whether poses `(T, H, W, 3)` uint8 show anything before their background, `#rrggbb`: `(T,)`."""
    colour = to_rgb(background).astype(int)
    darker, lighter = colour - poses.min(axis=(1, 2)), poses.max(axis=(1, 2)) - colour  # (T, 3)
    return np.maximum(darker, lighter).max(axis=1) > MIN_INTENSITY


def fill_missing_poses(poses: np.ndarray, max_gap: int, background: str) -> np.ndarray:
    """Replace blank poses between two drawn ones by the nearer of these, the earlier one in the middle.

    Longer gaps stay blank: the person has left the image.

    Args:
        poses: uint8 `(T, H, W, 3)`.
        max_gap: longest run of blank poses to fill; 0 changes nothing.
        background: colour of a blank pose, `#rrggbb`.

    Returns:
        uint8 of the same shape; `poses` itself if nothing is filled.
    """
    drawn = np.flatnonzero(is_drawn(poses, background))
    source = np.arange(len(poses))
    for before, after in pairwise(drawn):
        if 1 < after - before <= max_gap + 1:
            gap = np.arange(before + 1, after)
            source[gap] = np.where(gap - before <= after - gap, before, after)
    return poses[source] if (source != np.arange(len(poses))).any() else poses
