"""Random changes of training clips, frames and poses alike, so that a body is seen in more positions."""

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from .distributed import draw
from .paste import paste

KINDS = ("turn", "scale", "move", "mirror", "paste")
# Fraction of the clips that is changed. The others stay sharp, because resampling blurs.
SHARE = 0.6
ROTATION = 0.3  # radians, either way
SHEAR = 0.4  # sideways shift of a row, as a fraction of its distance from the middle
LOG_SCALE = 0.5  # natural logarithm of the strongest enlargement or reduction
MOVE = (0.4, 0.1)  # farthest shift, to either side and up or down, as fractions of half a picture


def augment(
    frames: Tensor,
    poses: Tensor,
    kinds: Collection[str],
    backgrounds: Tensor | None = None,
    first_apart: bool = False,
) -> tuple[Tensor, Tensor]:
    """Change each clip at random, all its pictures in the same way.

    What enters the picture at an edge repeats the edge in frames, and is white in poses. `mirror` does not
    exchange the colours of left and right limbs, because they differ between pose estimators: a left arm
    becomes a right arm that is drawn as a left one.

    Args:
        frames, poses: `(B, T, 3, H, W)` in [0, 1].
        kinds: some of `KINDS`: turn (rotation and shear), scale, move, mirror.

    Returns:
        The same shapes.
    """
    if "paste" in kinds and backgrounds is not None:
        frames, poses = paste(frames, poses, backgrounds, first_apart)
    if "mirror" in kinds:
        mirrored = draw(torch.rand, len(frames), 1, 1, 1, 1, device=frames.device) < 0.5
        frames, poses = (torch.where(mirrored, clip.flip(-1), clip) for clip in (frames, poses))
    if set(kinds) - {"mirror", "paste"}:
        frames, poses = _warp(frames, poses, kinds)
    return frames, poses


def _warp(frames: Tensor, poses: Tensor, kinds: Collection[str]) -> tuple[Tensor, Tensor]:
    count, (height, width) = len(frames), frames.shape[-2:]
    changed = draw(torch.rand, count, device=frames.device) < SHARE

    def uniform(kind: str, limit: float) -> Tensor:
        return limit * (kind in kinds) * changed * (2 * draw(torch.rand, count, device=frames.device) - 1)

    angle, shear = uniform("turn", ROTATION), uniform("turn", SHEAR)
    scale = uniform("scale", LOG_SCALE).exp()
    across, down = (uniform("move", limit) for limit in MOVE)
    cos, sin = angle.cos(), angle.sin()
    # In the grid's units every picture is 2 x 2, so what turns from one axis into the other is rescaled.
    aspect = height / width
    matrix = torch.stack(
        [
            torch.stack([scale * cos, scale * (cos * shear - sin) * aspect, across], dim=1),
            torch.stack([scale * sin / aspect, scale * (sin * shear + cos), down], dim=1),
        ],
        dim=1,
    )
    # grid_sample pads with 0, so white is shifted to 0 while the poses are sampled.
    flat_frames, flat_poses = frames.flatten(1, 2), poses.flatten(1, 2) - 1
    grid = affine_grid(matrix, list(flat_frames.shape), align_corners=False)
    new_frames = grid_sample(flat_frames, grid, padding_mode="border", align_corners=False)
    new_poses = grid_sample(flat_poses, grid, padding_mode="zeros", align_corners=False) + 1
    return new_frames.view_as(frames), new_poses.view_as(poses)
