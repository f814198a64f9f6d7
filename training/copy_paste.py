"""Copy-paste augmentation: the person is cut out of a clip and pasted over the same background.

After Dwibedi et al. 2017 and Ghiasi et al. 2021; masks are differences from the shot's background.
"""

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample

from runtime.distributed import draw

from .background import max_filter, near_pose

FRACTIONS = {"copy_paste": 0.2, "person_affine": 0.5}  # of the clips
# Ranges of the natural logarithm of the size. The middle of the image is the horizon: closer feet are lower.
COPY_PASTE_LOG_SCALE, PERSON_AFFINE_LOG_SCALE = (-0.3, 1.1), (-0.15, 0.15)
# Maximum shift, horizontal and vertical, as fractions of half an image.
COPY_PASTE_SHIFT, PERSON_AFFINE_SHIFT = (0.5, 0.1), (0.2, 0.1)
ROTATION = 0.3  # maximum, in radians
SHEAR = 0.4  # maximum horizontal shift of a row, as a fraction of its distance from the middle
THINNING_MIN_SCALE = 1.25  # from which the lines of a pose are thinned again
MIN_INTENSITY = 0.1  # from which a line counts as drawn
# Estimators often lose a limb that leaves the image: the probability for a body beyond the upper or lower
# edge, and how far from the edge at most, as fractions of the height.
CROP_PROBABILITY, CROP_TOP, CROP_BOTTOM = 0.5, 0.6, 0.4
# Differences from the background, in [0, 1], between which a pixel starts to be changed by the person or
# their shadow and surely is; and between which it starts to be opaque and surely is.
CHANGED, OPAQUE = (0.04, 0.12), (0.1, 0.25)


def copy_paste(
    frames: Tensor, poses: Tensor, background: Tensor, kinds: Collection[str], random_reference: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Move the person of some clips `(B, T, 3, H, W)` in [0, 1] over the background, poses alike.

    Args:
        background: `(B, 4, H, W)` in [0, 1]: the colour, and 1 where it is known. A clip whose person hides
            what is not known stays unchanged.
        kinds: both rotate and shear the person; "copy_paste" also moves and rescales them. A clip is changed
            by one of them at most.
        random_reference: frame 0 is from another time of the shot, and stays unchanged, as in generation.

    Returns:
        Frames and poses of the same shapes, and `(B,)`, true for clips that had to stay unchanged.
    """
    start = 1 if random_reference else 0
    *pasted, unchanged = _paste(frames[:, start:], poses[:, start:], background, kinds)
    frames, poses = (
        torch.cat([clip[:, :start], new], dim=1) for clip, new in zip((frames, poses), pasted, strict=True)
    )
    return frames, poses, unchanged


def _paste(
    frames: Tensor, poses: Tensor, background: Tensor, kinds: Collection[str]
) -> tuple[Tensor, Tensor, Tensor]:
    colour, known = background[:, None, :3], background[:, None, 3:]
    person, opaque = person_masks(frames, poses, colour)
    unchanged = (person * (1 - known)).amax(dim=(1, 2, 3, 4)) > 0.5
    u = draw(torch.rand, len(frames), device=frames.device)
    is_moved = u < FRACTIONS["copy_paste"] * ("copy_paste" in kinds)
    is_warped = u >= 1 - FRACTIONS["person_affine"] * ("person_affine" in kinds)
    scale, grid = _placement(_center(poses), is_moved, *frames.shape[-2:])
    # Where the person is not opaque (edges, shadows), the change of the old background is added to the new
    # one.
    residual = frames * opaque + (frames - colour) * (person * (1 - opaque))
    # Bicubic, because bilinear sampling blurs a small image.
    layer = _sample(torch.cat([residual, opaque], dim=2), grid, "bicubic")
    alpha = layer[:, :, 3:].clamp(0, 1)
    intensity = _sample(1 - poses, grid, "bilinear")
    is_enlarged = scale > THINNING_MIN_SCALE
    intensity = torch.where(_per_clip(is_enlarged), _thinned(intensity), intensity)
    new_poses = 1 - torch.where(_per_clip(is_moved), _cropped_at_edges(intensity), intensity)
    erased = torch.lerp(frames, colour.expand_as(frames), person)
    new_frames = (erased * (1 - alpha) + layer[:, :, :3]).clamp(0, 1)
    is_changed = _per_clip((is_moved | is_warped) & ~unchanged)
    frames, poses = torch.where(is_changed, new_frames, frames), torch.where(is_changed, new_poses, poses)
    return frames, poses, unchanged


def person_masks(frames: Tensor, poses: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
    """Where the person or their shadow changes the background, and where they hide it.

    Two masks `(B, T, 1, H, W)` in [0, 1], of clips `(B, T, 3, H, W)` and backgrounds `(B, 1, 3, H, W)`.
    """
    difference = (frames - colour).abs().amax(dim=2, keepdim=True)
    near = near_pose(poses)
    changed, opaque = (
        ((difference - low) / (high - low)).clamp(0, 1) * near for low, high in (CHANGED, OPAQUE)
    )
    flat = changed.flatten(0, 1)
    # One pixel more on each side, because the edge of a person is mixed with the background.
    grown = max_filter(max_filter(flat, -1, 3), -2, 3)
    soft = avg_pool2d(grown, 3, stride=1, padding=1, count_include_pad=False).view_as(changed)
    return soft, torch.minimum(opaque, soft)


def _center(poses: Tensor) -> Tensor:
    """The mean horizontal position of the body in each clip, `(B,)` in [-1, 1]."""
    weights = (1 - poses).sum(dim=(1, 2, 3))
    x = torch.linspace(-1, 1, poses.shape[-1], device=poses.device)
    return (weights * x).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-3)


def _placement(center: Tensor, is_moved: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Random scales `(B,)`, and sampling grids `(B, H, W, 2)` that warp each person around their centre."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * draw(torch.rand, len(center), device=center.device)

    scale = torch.where(is_moved, uniform(*COPY_PASTE_LOG_SCALE), uniform(*PERSON_AFFINE_LOG_SCALE)).exp()
    across, down = (
        torch.where(is_moved, uniform(-far, far), uniform(-near, near))
        for far, near in zip(COPY_PASTE_SHIFT, PERSON_AFFINE_SHIFT, strict=True)
    )
    angle, shear = uniform(-ROTATION, ROTATION), uniform(-SHEAR, SHEAR)
    linear = affine_matrix(angle, shear, 1 / scale, height / width)
    origin = torch.stack([center, torch.zeros_like(center)], dim=1)[:, :, None]
    offset = origin - linear @ (origin + torch.stack([across, down], dim=1)[:, :, None])
    matrix = torch.cat([linear, offset], dim=2)
    return scale, affine_grid(matrix, [len(center), 1, height, width], align_corners=False)


def affine_matrix(angle: Tensor, shear: Tensor, scale: Tensor, aspect: float) -> Tensor:
    """Matrices `(B, 2, 2)` of a shear, a rotation and a scaling, for affine_grid.

    Args:
        angle, shear, scale: `(B,)`; the angle in radians, the shear as horizontal shift per vertical
            distance.
        aspect: height / width of the image, because affine_grid's coordinates are square.
    """
    cos, sin = angle.cos(), angle.sin()
    rows = [[cos, (cos * shear - sin) * aspect], [sin / aspect, sin * shear + cos]]
    return scale[:, None, None] * torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _thinned(intensity: Tensor) -> Tensor:
    """Only the ridges of blurred lines: the lines of pose images have one width at any size of a body."""
    flat = intensity.amax(dim=2, keepdim=True).flatten(0, 1)
    is_ridge = (flat >= max_filter(flat, -1, 3)) | (flat >= max_filter(flat, -2, 3))
    is_strong = flat > 0.5 * max_filter(
        max_filter(flat, -1, 5), -2, 5
    )  # not the end of a ridge across a line
    return intensity * (is_ridge & is_strong).view(*intensity.shape[:2], 1, *intensity.shape[3:])


def _cropped_at_edges(intensity: Tensor) -> Tensor:
    """Erase the pose near the upper and lower edge, in some clips whose bodies reach beyond it."""
    count, height, device = len(intensity), intensity.shape[-2], intensity.device
    rows = torch.arange(height, device=device)

    def depth(edge_row: int, maximum: float) -> Tensor:
        u, distance = (draw(torch.rand, count, device=device) for _ in range(2))
        reaches = intensity[:, :, :, edge_row].amax(dim=(1, 2, 3)) > MIN_INTENSITY
        return (reaches & (u < CROP_PROBABILITY)) * distance * maximum * height

    above, below = depth(0, CROP_TOP)[:, None], depth(-1, CROP_BOTTOM)[:, None]
    is_kept = (rows >= above) & (rows <= height - 1 - below)
    return intensity * is_kept[:, None, None, :, None]


def _sample(images: Tensor, grid: Tensor, mode: str) -> Tensor:
    """Sample every image of a clip `(B, T, C, H, W)` at the same grid, with 0 outside."""
    flat = images.flatten(1, 2)
    return grid_sample(flat, grid, mode, padding_mode="zeros", align_corners=False).view_as(images)


def _per_clip(values: Tensor) -> Tensor:
    """`(B,)`, to broadcast with `(B, T, C, H, W)`."""
    return values[:, None, None, None, None]
