"""Pose dropout: simulates poses that an estimator misses for a few frames, wholly or partly."""

import torch
from torch import Tensor

from runtime.distributed import draw

MAX_LENGTH = 3  # consecutive frames
RADIUS = (0.1, 0.3)  # of a lost part, as a fraction of the height


def drop_poses(drawing: Tensor, fraction: float) -> Tensor:
    """Erase whole poses in half of the clips, and a disc around a point of the body in the others.

    Poses 0 and 1 are kept: frame 0 may be from another time, and the previous frame must show what
    is erased.

    Args:
        drawing: background minus pose, `(B, T, 3, H, W)` in [-1, 1].
        fraction: of the other poses that is lost.

    Returns:
        The same shape.
    """
    batch, length, _, height, width = drawing.shape

    def uniform(*shape: int) -> Tensor:
        return draw(torch.rand, batch, *shape, device=drawing.device)

    # A loss lasts 1, 2 or 3 frames, two on average.
    begins = uniform(length + MAX_LENGTH - 1) < fraction / (1 + MAX_LENGTH) * 2
    duration = 1 + (MAX_LENGTH * uniform(length + MAX_LENGTH - 1)).int()
    is_lost = torch.stack(
        [
            (begins & (duration > age))[:, MAX_LENGTH - 1 - age : MAX_LENGTH - 1 - age + length]
            for age in range(MAX_LENGTH)
        ]
    ).any(dim=0)
    is_lost = is_lost & (torch.arange(length, device=drawing.device) > 1)
    is_whole = uniform() < 0.5
    area = is_whole[:, None, None] | _disc(drawing, uniform(length * height * width), uniform())
    return drawing.masked_fill((is_lost[:, :, None, None] & area[:, None])[:, :, None], 0.0)


def _disc(drawing: Tensor, noise: Tensor, u: Tensor) -> Tensor:
    """A disc around a random point of the drawn poses of each clip, `(B, H, W)` bool."""
    height, width = drawing.shape[-2:]
    intensity = drawing.abs().amax(dim=2).flatten(1)
    # The largest of `intensity / exponential noise` is a draw with the probabilities `intensity`.
    point = (intensity / -noise.clamp(min=1e-7).log().clamp(max=-1e-7)).argmax(dim=1) % (height * width)
    low, high = RADIUS
    radius = height * (low + (high - low) * u)
    rows, columns = (torch.arange(side, device=drawing.device) for side in (height, width))
    down = rows[None, :, None] - (point // width)[:, None, None]
    across = columns[None, None, :] - (point % width)[:, None, None]
    return down.square() + across.square() < radius.square()[:, None, None]
