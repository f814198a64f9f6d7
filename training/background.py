"""The background of each shot of a video, as far as the camera stood still.

The median of a shot, pixel by pixel, over the frames whose pose is not near the pixel: the person is not part
of it, even where they stand for most of the shot.
"""

import numpy as np
import torch
from torch.nn.functional import pad

FRAMES = 240  # of a shot, evenly spread; more do not change a median
ROWS_AT_ONCE = 16  # of a picture, so that large pictures need little memory
NEAR = 0.175  # how far a body reaches from its pose, shadow included, as a fraction of the height
INK = 0.1  # darkness from which a pixel belongs to a pose, in [0, 1]
# A shot is steady if its uncovered pixels differ from their median by less than this on average, in [0, 1].
STEADY = 0.03
SHARED = 0.3  # of a picture, that two backgrounds must both know before they are compared


def near_pose(poses: torch.Tensor, reach: float = NEAR) -> torch.Tensor:
    """Pixels near a drawn pose: `(..., 3, H, W)` in [0, 1], on white -> `(..., 1, H, W)` of 0 and 1."""
    ink = ((1 - poses).amax(dim=-3, keepdim=True) > INK).to(poses.dtype)
    side = 2 * int(reach * poses.shape[-2]) + 1
    return largest_near(largest_near(ink, -1, side), -2, side)


def largest_near(values: torch.Tensor, dim: int, side: int) -> torch.Tensor:
    """The largest of `side` values around each, found in windows whose length doubles.

    It is `max_pool2d` along one side of pictures, several times faster on CPUs.

    Args:
        values: `(..., H, W)`, not negative.
        dim: -1 or -2.
        side: an odd number.
    """
    length = values.shape[dim]
    padding = (side // 2, side // 2) if dim == -1 else (0, 0, side // 2, side // 2)
    values, width = pad(values, padding), 1
    while width < side:
        step = min(width, side - width)
        rest = values.shape[dim] - step
        values = torch.maximum(values.narrow(dim, 0, rest), values.narrow(dim, step, rest))
        width += step
    return values.narrow(dim, 0, length)


def shot_background(frames: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """The background of a shot.

    Args:
        frames, poses: uint8 `(N, H, W, 3)`.

    Returns:
        uint8 `(H, W, 4)`: the colour, and 255 where it is known; nothing is known if the camera moves.
    """
    chosen = np.unique(np.linspace(0, len(frames) - 1, FRAMES).round().astype(int))
    _, height, width, _ = frames.shape
    pictures = torch.from_numpy(poses[chosen]).permute(0, 3, 1, 2)
    covered = np.concatenate([near_pose(part / 255).bool().numpy()[:, 0] for part in pictures.split(16)])
    background = np.zeros((height, width, 4), np.uint8)
    difference = count = 0.0
    for top in range(0, height, ROWS_AT_ONCE):
        rows = slice(top, top + ROWS_AT_ONCE)
        values = np.ma.masked_array(
            frames[chosen, rows], np.broadcast_to(covered[:, rows, :, None], frames[chosen, rows].shape)
        )
        median = np.ma.median(values, axis=0)
        known = ~np.ma.getmaskarray(median).any(axis=-1)
        background[rows, :, :3] = median.filled(0).round()
        background[rows, :, 3] = 255 * known
        deviation = np.abs(values - median)
        difference, count = difference + deviation.sum(), count + deviation.count()
    if not count or difference / count > 255 * STEADY:
        background[..., 3] = 0
    return background


def backgrounds(frames: np.ndarray, poses: np.ndarray, shots: list[np.ndarray]) -> np.ndarray:
    """The background of each shot; what a shot never shows comes from another one of the same background.

    Args:
        frames, poses: uint8 `(N, H, W, 3)`.
        shots: indices of the frames of each shot.

    Returns:
        uint8 `(shots, H, W, 4)`, see `shot_background`.
    """
    own = np.stack([shot_background(frames[shot], poses[shot]) for shot in shots])
    completed = own.copy()
    for background in completed:
        for other in sorted(own, key=lambda other: -int(other[..., 3].sum(dtype=np.int64))):
            _complete(background, other)
    return completed


def _complete(background: np.ndarray, other: np.ndarray) -> None:
    """Copy what is not known from another background if they agree, up to a shift of each colour."""
    known, other_known = background[..., 3] > 0, other[..., 3] > 0
    both, missing = known & other_known, ~known & other_known
    if not missing.any() or both.mean() < SHARED:
        return
    difference = background[both][:, :3].astype(np.float32) - other[both][:, :3]
    shift = np.median(difference, axis=0)
    if np.abs(difference - shift).mean() < 255 * STEADY:
        background[missing, :3] = (other[missing][:, :3] + shift).round().clip(0, 255)
        background[missing, 3] = 255
