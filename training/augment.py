"""Random changes of training clips, frames and poses alike, so that a body is seen in more positions."""

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from runtime.distributed import draw
from training.affine import ROTATION, SHEAR, linear_map
from training.copy_paste import paste

KINDS = ("turn", "scale", "move", "mirror", "paste", "tilt")
OVER_BACKGROUND = {"paste", "tilt"}  # the person is changed, and the background stays
# Fraction of the clips that is changed. The others stay sharp, because resampling blurs.
SHARE = 0.6
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
        kinds: some of `KINDS`: turn (rotation and shear), scale, move, mirror, and those of
            `training.copy_paste`. Where the background is not known, paste does nothing, and tilt turns
            the whole picture.
        backgrounds: of the clips, `(B, 4, H, W)`, for the kinds of
            `training.copy_paste`; none is known without.
        first_apart: frame 0 of each clip is from another time.

    Returns:
        The same shapes.
    """
    fixed = torch.ones(len(frames), dtype=torch.bool, device=frames.device)
    if OVER_BACKGROUND & set(kinds) and backgrounds is not None:
        frames, poses, fixed = paste(frames, poses, backgrounds, kinds, first_apart)
    if "mirror" in kinds:
        mirrored = draw(torch.rand, len(frames), 1, 1, 1, 1, device=frames.device) < 0.5
        frames, poses = (torch.where(mirrored, clip.flip(-1), clip) for clip in (frames, poses))
    if set(kinds) - {"paste", "mirror"}:
        turned = torch.ones_like(fixed) if "turn" in kinds else fixed & ("tilt" in kinds)
        frames, poses = _warp(frames, poses, kinds, turned)
    return frames, poses


def _warp(frames: Tensor, poses: Tensor, kinds: Collection[str], turned: Tensor) -> tuple[Tensor, Tensor]:
    """Change whole pictures; clips are turned only where `turned`, `(B,)`, is true."""
    count, (height, width) = len(frames), frames.shape[-2:]
    changed = draw(torch.rand, count, device=frames.device) < SHARE

    def uniform(limit: float, chosen: Tensor | bool) -> Tensor:
        return limit * (chosen & changed) * (2 * draw(torch.rand, count, device=frames.device) - 1)

    angle, shear = uniform(ROTATION, turned), uniform(SHEAR, turned)
    scale = uniform(LOG_SCALE, "scale" in kinds).exp()
    across, down = (uniform(limit, "move" in kinds) for limit in MOVE)
    linear = linear_map(angle, shear, scale, height / width)
    matrix = torch.cat([linear, torch.stack([across, down], dim=1)[:, :, None]], dim=2)
    # grid_sample pads with 0, so white is shifted to 0 while the poses are sampled.
    flat_frames, flat_poses = frames.flatten(1, 2), poses.flatten(1, 2) - 1
    grid = affine_grid(matrix, list(flat_frames.shape), align_corners=False)
    new_frames = grid_sample(flat_frames, grid, padding_mode="border", align_corners=False)
    new_poses = grid_sample(flat_poses, grid, padding_mode="zeros", align_corners=False) + 1
    return new_frames.view_as(frames), new_poses.view_as(poses)
