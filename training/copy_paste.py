"""Copy-paste augmentation: moves and rescales the person over the shot's background.

After Dwibedi et al. 2017 and Ghiasi et al. 2021; masks come from background subtraction.
"""

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample

from runtime.distributed import draw

from .background import MIN_INTENSITY, max_filter, near_pose

COPY_PASTE_FRACTION = 0.2  # of the clips
# Range of the natural logarithm of the size. The middle of the image is the horizon: closer feet are lower.
LOG_SCALE = (-0.3, 1.1)
SHIFT_X, SHIFT_Y = 0.5, 0.1  # maximum, as fractions of half an image
ROTATION = 0.3  # maximum, in radians
SHEAR = 0.4  # maximum horizontal shift of a row, as a fraction of its distance from the middle
THINNING_MIN_SCALE = 1.25  # from which the lines of a pose are thinned again
# Estimators often lose a limb that leaves the image: the probability for a body beyond the upper or lower
# edge, and how far from the edge at most, as fractions of the height.
CROP_PROBABILITY, CROP_TOP, CROP_BOTTOM = 0.5, 0.6, 0.4
# Differences from the background, in [0, 1], between which a pixel starts to be changed by the person or
# their shadow and surely is; and between which it starts to be opaque and surely is.
CHANGED, OPAQUE = (0.04, 0.12), (0.1, 0.25)


def copy_paste(
    frames: Tensor, drawing: Tensor, background: Tensor, random_reference: bool
) -> tuple[Tensor, Tensor]:
    """Move, rescale and warp the person of some clips over the background, and the drawn pose alike.

    Args:
        frames: `(B, T, 3, H, W)` in [0, 1].
        drawing: background minus pose, `(B, T, 3, H, W)` in [-1, 1].
        background: `(B, 4, H, W)` in [0, 1]: the colour, and 1 where it is known. A clip whose person hides
            unknown regions stay unchanged.
        random_reference: frame 0 is from another time of the shot, and stays unchanged, as in generation.

    Returns:
        Frames and drawings of the same shapes.
    """
    start = 1 if random_reference else 0
    pasted = _paste(frames[:, start:], drawing[:, start:], background)
    frames, drawing = (
        torch.cat([clip[:, :start], new], dim=1) for clip, new in zip((frames, drawing), pasted, strict=True)
    )
    return frames, drawing


def _paste(frames: Tensor, drawing: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
    colour, known = background[:, None, :3], background[:, None, 3:]
    person, opaque = person_masks(frames, drawing, colour)
    is_covered = (person * (1 - known)).amax(dim=(1, 2, 3, 4)) > 0.5
    is_selected = draw(torch.rand, len(frames), device=frames.device) < COPY_PASTE_FRACTION
    scale, grid = _placement(_center(drawing), *frames.shape[-2:])
    # Where the person is not opaque (edges, shadows), the change of the old background is added to the new
    # one.
    residual = frames * opaque + (frames - colour) * (person * (1 - opaque))
    # Bicubic, because bilinear sampling blurs a small image.
    layer = _sample(torch.cat([residual, opaque], dim=2), grid, "bicubic")
    alpha = layer[:, :, 3:].clamp(0, 1)
    new_drawing = _sample(drawing, grid, "bilinear")
    new_drawing = torch.where(_per_clip(scale > THINNING_MIN_SCALE), _thinned(new_drawing), new_drawing)
    erased = torch.lerp(frames, colour.expand_as(frames), person)
    new_frames = (erased * (1 - alpha) + layer[:, :, :3]).clamp(0, 1)
    new_drawing = _cropped_at_edges(new_drawing)
    is_changed = _per_clip(is_selected & ~is_covered)
    return torch.where(is_changed, new_frames, frames), torch.where(is_changed, new_drawing, drawing)


def person_masks(frames: Tensor, drawing: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
    """Soft masks of the person with their shadow, and of the opaque person.

    Two masks `(B, T, 1, H, W)` in [0, 1], of clips `(B, T, 3, H, W)` and backgrounds `(B, 1, 3, H, W)`.
    """
    difference = (frames - colour).abs().amax(dim=2, keepdim=True)
    near = near_pose(drawing)
    changed, opaque = (
        ((difference - low) / (high - low)).clamp(0, 1) * near for low, high in (CHANGED, OPAQUE)
    )
    flat = changed.flatten(0, 1)
    # One pixel more on each side, because the edge of a person is mixed with the background.
    grown = max_filter(max_filter(flat, -1, 3), -2, 3)
    soft = avg_pool2d(grown, 3, stride=1, padding=1, count_include_pad=False).view_as(changed)
    return soft, torch.minimum(opaque, soft)


def _center(drawing: Tensor) -> Tensor:
    """The mean horizontal position of the body in each clip, `(B,)` in [-1, 1]."""
    weights = drawing.abs().sum(dim=(1, 2, 3))
    x = torch.linspace(-1, 1, drawing.shape[-1], device=drawing.device)
    return (weights * x).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-3)


def _placement(center: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Random scales `(B,)`, and sampling grids `(B, H, W, 2)` that warp each person around their centre."""

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * draw(torch.rand, len(center), device=center.device)

    scale = uniform(*LOG_SCALE).exp()
    shift = torch.stack([uniform(-SHIFT_X, SHIFT_X), uniform(-SHIFT_Y, SHIFT_Y)], dim=1)
    angle, shear = uniform(-ROTATION, ROTATION), uniform(-SHEAR, SHEAR)
    linear = affine_matrix(angle, shear, 1 / scale, height / width)
    origin = torch.stack([center, torch.zeros_like(center)], dim=1)
    offset = origin[:, :, None] - linear @ (origin + shift)[:, :, None]
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


def _thinned(drawing: Tensor) -> Tensor:
    """Only the ridges of blurred lines: the lines of pose images have one width at any size of a body."""
    flat = drawing.abs().amax(dim=2, keepdim=True).flatten(0, 1)
    is_ridge = (flat >= max_filter(flat, -1, 3)) | (flat >= max_filter(flat, -2, 3))
    is_strong = flat > 0.5 * max_filter(
        max_filter(flat, -1, 5), -2, 5
    )  # not the end of a ridge across a line
    return drawing * (is_ridge & is_strong).view(*drawing.shape[:2], 1, *drawing.shape[3:])


def _cropped_at_edges(drawing: Tensor) -> Tensor:
    """Erase the pose near the upper and lower edge, in some clips whose bodies reach beyond it."""
    count, height, device = len(drawing), drawing.shape[-2], drawing.device
    rows = torch.arange(height, device=device)

    def depth(edge_row: int, maximum: float) -> Tensor:
        u, distance = (draw(torch.rand, count, device=device) for _ in range(2))
        reaches = drawing[:, :, :, edge_row].abs().amax(dim=(1, 2, 3)) > MIN_INTENSITY
        return (reaches & (u < CROP_PROBABILITY)) * distance * maximum * height

    above, below = depth(0, CROP_TOP)[:, None], depth(-1, CROP_BOTTOM)[:, None]
    is_kept = (rows >= above) & (rows <= height - 1 - below)
    return drawing * is_kept[:, None, None, :, None]


def _sample(images: Tensor, grid: Tensor, mode: str) -> Tensor:
    """Sample every image of a clip `(B, T, C, H, W)` at the same grid, with 0 outside."""
    flat = images.flatten(1, 2)
    return grid_sample(flat, grid, mode, padding_mode="zeros", align_corners=False).view_as(images)


def _per_clip(values: Tensor) -> Tensor:
    """`(B,)`, to broadcast with `(B, T, C, H, W)`."""
    return values[:, None, None, None, None]
