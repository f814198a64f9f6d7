"""A person moved and scaled in front of a background that stays: closer to the camera, farther, elsewhere."""

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, max_pool2d

from .background import near_pose
from .distributed import draw

SHARE = 0.2  # of the clips
# Natural logarithm of the size. The middle of the picture is the horizon: closer feet are lower.
LOG_SCALE = (-0.3, 1.1)
THINNED_FROM = 1.25  # size from which the lines of a pose are made thin again
MOVE = (0.5, 0.1)  # farthest shift, to either side and up or down, as fractions of half a picture
FAINT = 0.1  # ink from which a line is drawn
# Estimators often lose a limb that leaves the picture: the fraction of bodies beyond the upper or lower edge
# whose pose is lost near it, and how far from it at most, as fractions of the height.
LOST_AT_EDGE, LOST_ABOVE, LOST_BELOW = 0.5, 0.6, 0.4
# Differences from the background, in [0, 1], at which a pixel begins to be changed by the person or their
# shadow and surely is, and at which it begins to show nothing but the person and surely does.
CHANGED, OPAQUE = (0.04, 0.12), (0.1, 0.25)


def paste(frames: Tensor, poses: Tensor, backgrounds: Tensor, first_apart: bool) -> tuple[Tensor, Tensor]:
    """Cut the person out of some clips and put them elsewhere, at another size; poses follow.

    Args:
        frames, poses: `(B, T, 3, H, W)` in [0, 1].
        backgrounds: `(B, 4, H, W)` in [0, 1]: the colour, and 1 where it is known. A clip whose person hides
            what is not known stays as it is.
        first_apart: frame 0 is from another time of the shot, and stays as it is, as in generation.

    Returns:
        The same shapes.
    """
    start = 1 if first_apart else 0
    pasted = _paste(frames[:, start:], poses[:, start:], backgrounds)
    return tuple(
        torch.cat([clip[:, :start], new], dim=1) for clip, new in zip((frames, poses), pasted, strict=True)
    )


def _paste(frames: Tensor, poses: Tensor, backgrounds: Tensor) -> tuple[Tensor, Tensor]:
    colour, known = backgrounds[:, None, :3], backgrounds[:, None, 3:]
    person, opaque = person_masks(frames, poses, colour)
    hidden = (person * (1 - known)).amax(dim=(1, 2, 3, 4)) > 0.5
    chosen = (draw(torch.rand, len(frames), device=frames.device) < SHARE) & ~hidden
    size, matrix = _placement(_middle(poses))
    # What is not opaque, edges and shadows, changes the new background as it changed the old one.
    light = frames * opaque + (frames - colour) * (person * (1 - opaque))
    layer = _warped(torch.cat([light, opaque], dim=2), matrix)
    ink = _warped(1 - poses, matrix)
    enlarged = (size > THINNED_FROM)[:, None, None, None, None]
    new_poses = 1 - _lost_at_edges(torch.where(enlarged, _thinned(ink), ink))
    erased = torch.lerp(frames, colour.expand_as(frames), person)
    new_frames = (erased * (1 - layer[:, :, 3:]) + layer[:, :, :3]).clamp(0, 1)
    chosen = chosen[:, None, None, None, None]
    return torch.where(chosen, new_frames, frames), torch.where(chosen, new_poses, poses)


def person_masks(frames: Tensor, poses: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
    """Where the person or their shadow changes the background, and where they hide it.

    Args:
        frames, poses: `(B, T, 3, H, W)` in [0, 1].
        colour: of the background, `(B, 1, 3, H, W)`.

    Returns:
        Two masks `(B, T, 1, H, W)` in [0, 1].
    """
    difference = (frames - colour).abs().amax(dim=2, keepdim=True)
    near = near_pose(poses)
    changed, opaque = (
        ((difference - low) / (high - low)).clamp(0, 1) * near for low, high in (CHANGED, OPAQUE)
    )
    flat = changed.flatten(0, 1)
    # A pixel more on each side, because the edge of a person is mixed with the background.
    grown = max_pool2d(flat, 3, stride=1, padding=1)
    soft = avg_pool2d(grown, 3, stride=1, padding=1, count_include_pad=False).view_as(changed)
    return soft, torch.minimum(opaque, soft)


def _middle(poses: Tensor) -> Tensor:
    """Where the bodies of each clip are on average, from left to right: `(B,)` in [-1, 1]."""
    columns = (1 - poses).sum(dim=(1, 2, 3))
    places = torch.linspace(-1, 1, poses.shape[-1], device=poses.device)
    return (columns * places).sum(dim=1) / columns.sum(dim=1).clamp(min=1e-3)


def _placement(middle: Tensor) -> tuple[Tensor, Tensor]:
    """Random sizes `(B,)`, and matrices `(B, 2, 3)` that map places of the new picture to the old one.

    Args:
        middle: of the body, from left to right, in [-1, 1]: `(B,)`. It grows to both sides of it.
    """
    count, device = len(middle), middle.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * draw(torch.rand, count, device=device)

    size = uniform(*LOG_SCALE).exp()
    across, down = (uniform(-limit, limit) for limit in MOVE)
    zero = torch.zeros_like(size)
    rows = [[1 / size, zero, middle - (middle + across) / size], [zero, 1 / size, -down / size]]
    return size, torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _thinned(ink: Tensor) -> Tensor:
    """Only the ridges of blurred lines: pose pictures have lines of the same width at any size of a body."""
    flat = ink.amax(dim=2, keepdim=True).flatten(0, 1)
    beside = (
        max_pool2d(flat, (1, 3), stride=1, padding=(0, 1)),
        max_pool2d(flat, (3, 1), stride=1, padding=(1, 0)),
    )
    ridge = (flat >= beside[0]) | (flat >= beside[1])
    strong = flat > 0.5 * max_pool2d(flat, 5, stride=1, padding=2)  # not the end of a ridge across a line
    return ink * (ridge & strong).view(*ink.shape[:2], 1, *ink.shape[3:])


def _lost_at_edges(ink: Tensor) -> Tensor:
    """Erase what is near the upper and the lower edge of some clips whose bodies reach beyond it."""
    count, height, device = len(ink), ink.shape[-2], ink.device
    rows = torch.arange(height, device=device)

    def depth(edge_row: int, most: float) -> Tensor:
        lost, far = (draw(torch.rand, count, device=device) for _ in range(2))
        reaches = ink[:, :, :, edge_row].amax(dim=(1, 2, 3)) > FAINT
        return (reaches & (lost < LOST_AT_EDGE)) * far * most * height

    above, below = depth(0, LOST_ABOVE)[:, None], depth(-1, LOST_BELOW)[:, None]
    kept = (rows >= above) & (rows <= height - 1 - below)
    return ink * kept[:, None, None, :, None]


def _warped(pictures: Tensor, matrix: Tensor) -> Tensor:
    """`(B, T, C, H, W)`, every picture of a clip in the same way; 0 where the old picture ends."""
    flat = pictures.flatten(1, 2)
    grid = affine_grid(matrix, list(flat.shape), align_corners=False)
    return grid_sample(flat, grid, padding_mode="zeros", align_corners=False).view_as(pictures)
