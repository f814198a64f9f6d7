"""Poses that are lost, as pose estimators lose them: for one or a few frames, the whole body or a part."""

import torch
from torch import Tensor

from runtime.distributed import draw

LONGEST = 3  # frames in a row
PART = (0.1, 0.3)  # radius of a part that is lost, as a fraction of the height


def drop_poses(poses: Tensor, fraction: float) -> Tensor:
    """Erase whole poses in half of the clips, and in the others a disc around a point of the body.

    The poses of the frames 0 and 1 are kept: frame 0 may be from another time, and what is lost must be seen
    in the frame before.

    Args:
        poses: `(B, T, 3, H, W)` in [0, 1], on white.
        fraction: of the other poses that are lost.

    Returns:
        The same shape.
    """
    batch, length, _, height, width = poses.shape

    def uniform(*shape: int) -> Tensor:
        return draw(torch.rand, batch, *shape, device=poses.device)

    # A loss begins in a frame and lasts 1, 2 or 3 frames, so it covers two frames in the mean.
    begins = uniform(length + LONGEST - 1) < fraction / (1 + LONGEST) * 2
    lasts = 1 + (LONGEST * uniform(length + LONGEST - 1)).int()
    lost = torch.stack(
        [
            (begins & (lasts > age))[:, LONGEST - 1 - age : LONGEST - 1 - age + length]
            for age in range(LONGEST)
        ]
    ).any(dim=0)
    lost = lost & (torch.arange(length, device=poses.device) > 1)
    whole = uniform() < 0.5
    area = whole[:, None, None] | _disc(poses, uniform(length * height * width), uniform())
    return poses.masked_fill((lost[:, :, None, None] & area[:, None])[:, :, None], 1.0)


def _disc(poses: Tensor, noise: Tensor, size: Tensor) -> Tensor:
    """A disc around a random point of the drawn poses of each clip, `(B, H, W)` bool."""
    height, width = poses.shape[-2:]
    ink = (1 - poses).amax(dim=2).flatten(1)
    # The largest of `ink / exponential noise` is a draw with the probabilities `ink`.
    point = (ink / -noise.clamp(min=1e-7).log().clamp(max=-1e-7)).argmax(dim=1) % (height * width)
    low, high = PART
    radius = height * (low + (high - low) * size)
    rows, columns = (torch.arange(side, device=poses.device) for side in (height, width))
    down = rows[None, :, None] - (point // width)[:, None, None]
    across = columns[None, None, :] - (point % width)[:, None, None]
    return down.square() + across.square() < radius.square()[:, None, None]
