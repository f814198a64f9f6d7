"""The background of each shot of a video with a static camera.

Each pixel is the temporal median over the frames in which no pose is near it, to exclude the person.
"""

import numpy as np
import torch
from torch.nn.functional import pad

from utils import to_float, to_float_rgb

MAX_FRAMES = 240  # of a shot, evenly spaced; more do not change a median
ROW_CHUNK = 16  # rows per median, which bounds the memory
BODY_REACH = 0.175  # how far a body and its shadow reach from the pose, as a fraction of the height
MIN_INTENSITY = 0.1  # from which a pixel belongs to a pose, in [0, 1]
# Mean deviation of the uncovered pixels from their median, in [0, 1], up to which the camera is static.
MAX_DEVIATION = 0.03
MIN_OVERLAP = 0.3  # of the image, that two backgrounds must both know to be compared


def near_pose(drawing: torch.Tensor, reach: float = BODY_REACH) -> torch.Tensor:
    """Mask of the pixels near a pose.

    Args:
        drawing: background minus pose, `(..., 3, H, W)` in [-1, 1].
        reach: distance that is near, as a fraction of the height.

    Returns:
        `(..., 1, H, W)`, 1 near the pose.
    """
    is_drawn = (drawing.abs().amax(dim=-3, keepdim=True) > MIN_INTENSITY).to(drawing.dtype)
    size = 2 * int(reach * drawing.shape[-2]) + 1
    return max_filter(max_filter(is_drawn, -1, size), -2, size)


def max_filter(values: torch.Tensor, dim: int, size: int) -> torch.Tensor:
    """Maximum of an odd number of values around each, along dimension -1 or -2; `values` are not negative.

    Windows of doubling length make it several times faster than `max_pool2d` on CPUs.
    """
    length = values.shape[dim]
    padding = (size // 2, size // 2) if dim == -1 else (0, 0, size // 2, size // 2)
    values, width = pad(values, padding), 1
    while width < size:
        step = min(width, size - width)
        rest = values.shape[dim] - step
        values = torch.maximum(values.narrow(dim, 0, rest), values.narrow(dim, step, rest))
        width += step
    return values.narrow(dim, 0, length)


def shot_background(frames: np.ndarray, poses: np.ndarray, pose_background: str) -> np.ndarray:
    """The background of a shot `(N, H, W, 3)`, uint8 `(H, W, 4)`: the colour, and 255 where it is known.

    Nothing is known if the camera moves.
    """
    indices = np.unique(np.linspace(0, len(frames) - 1, MAX_FRAMES).round().astype(int))
    _, height, width, _ = frames.shape
    colour, parts = to_float_rgb(pose_background), np.split(indices, range(16, len(indices), 16))
    is_covered = np.concatenate([near_pose(colour - to_float(poses[part]))[:, 0].bool() for part in parts])
    background = np.zeros((height, width, 4), np.uint8)
    difference = count = 0.0
    for top in range(0, height, ROW_CHUNK):
        rows = slice(top, top + ROW_CHUNK)
        values = np.ma.masked_array(
            frames[indices, rows], np.broadcast_to(is_covered[:, rows, :, None], frames[indices, rows].shape)
        )
        median = np.ma.median(values, axis=0)
        known = ~np.ma.getmaskarray(median).any(axis=-1)
        background[rows, :, :3] = median.filled(0).round()
        background[rows, :, 3] = 255 * known
        deviation = np.abs(values - median)
        difference, count = difference + deviation.sum(), count + deviation.count()
    if not count or difference / count > 255 * MAX_DEVIATION:
        background[..., 3] = 0
    return background


def estimate_backgrounds(
    frames: np.ndarray, poses: np.ndarray, shots: list[np.ndarray], pose_background: str
) -> np.ndarray:
    """The background of each shot, with holes filled from other shots of the same background.

    Args:
        frames, poses: uint8 `(N, H, W, 3)`.
        shots: indices of the frames of each shot.
        pose_background: background of the poses, `#rrggbb`.

    Returns:
        uint8 `(shots, H, W, 4)`, see `shot_background`.
    """
    own = np.stack([shot_background(frames[shot], poses[shot], pose_background) for shot in shots])
    completed = own.copy()
    for background in completed:
        for other in sorted(own, key=lambda other: -int(other[..., 3].sum(dtype=np.int64))):
            _complete(background, other)
    return completed


def _complete(background: np.ndarray, other: np.ndarray) -> None:
    """Copy unknown pixels from another background if they agree, up to an offset of each colour."""
    known, other_known = background[..., 3] > 0, other[..., 3] > 0
    both, missing = known & other_known, ~known & other_known
    if not missing.any() or both.mean() < MIN_OVERLAP:
        return
    difference = background[both][:, :3].astype(np.float32) - other[both][:, :3]
    offset = np.median(difference, axis=0)
    if np.abs(difference - offset).mean() < 255 * MAX_DEVIATION:
        background[missing, :3] = (other[missing][:, :3] + offset).round().clip(0, 255)
        background[missing, 3] = 255
