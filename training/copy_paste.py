"""A person cut out of a training clip and put before the same background elsewhere, or in another pose."""

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from runtime.distributed import draw
from training.affine import placement
from training.background import largest_near, near_pose

SHARES = {"paste": 0.2, "tilt": 0.5}  # of the clips
THINNED_FROM = 1.25  # size from which the lines of a pose are made thin again
FAINT = 0.1  # ink from which a line is drawn
# Estimators often lose a limb that leaves the picture: the fraction of bodies beyond the upper or lower edge
# whose pose is lost near it, and how far from it at most, as fractions of the height.
LOST_AT_EDGE, LOST_ABOVE, LOST_BELOW = 0.5, 0.6, 0.4
# Differences from the background, in [0, 1], at which a pixel begins to be changed by the person or their
# shadow and surely is, and at which it begins to show nothing but the person and surely does.
CHANGED, OPAQUE = (0.04, 0.12), (0.1, 0.25)


def paste(
    frames: Tensor, poses: Tensor, backgrounds: Tensor, kinds: Collection[str], first_apart: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the person out of some clips and put them before the background again; poses follow.

    Args:
        frames, poses: `(B, T, 3, H, W)` in [0, 1].
        backgrounds: `(B, 4, H, W)` in [0, 1]: the colour, and 1 where it is known. A clip whose person hides
            what is not known stays as it is.
        kinds: "paste" puts persons closer or farther, and elsewhere; "tilt" turns and shears them about
            where they are. A clip is changed in one of these ways, or not at all.
        first_apart: frame 0 is from another time of the shot, and stays as it is, as in generation.

    Returns:
        Frames and poses of the same shapes, and `(B,)`, true for clips that had to stay as they are.
    """
    start = 1 if first_apart else 0
    *pasted, fixed = _paste(frames[:, start:], poses[:, start:], backgrounds, kinds)
    frames, poses = (
        torch.cat([clip[:, :start], new], dim=1) for clip, new in zip((frames, poses), pasted, strict=True)
    )
    return frames, poses, fixed


def _paste(
    frames: Tensor, poses: Tensor, backgrounds: Tensor, kinds: Collection[str]
) -> tuple[Tensor, Tensor, Tensor]:
    colour, known = backgrounds[:, None, :3], backgrounds[:, None, 3:]
    person, opaque = person_masks(frames, poses, colour)
    fixed = (person * (1 - known)).amax(dim=(1, 2, 3, 4)) > 0.5
    lot = draw(torch.rand, len(frames), device=frames.device)
    pasted = lot < SHARES["paste"] * ("paste" in kinds)
    tilted = lot >= 1 - SHARES["tilt"] * ("tilt" in kinds)
    size, grid = placement(_middle(poses), pasted, *frames.shape[-2:])
    # What is not opaque, edges and shadows, changes the new background as it changed the old one.
    light = frames * opaque + (frames - colour) * (person * (1 - opaque))
    # Bicubic, because a bilinear map blurs a small picture.
    layer = _mapped(torch.cat([light, opaque], dim=2), grid, "bicubic")
    alpha = layer[:, :, 3:].clamp(0, 1)
    ink = _mapped(1 - poses, grid, "bilinear")
    enlarged = size > THINNED_FROM
    ink = torch.where(_by_clip(enlarged), _thinned(ink), ink)
    new_poses = 1 - torch.where(_by_clip(pasted), _lost_at_edges(ink), ink)
    erased = torch.lerp(frames, colour.expand_as(frames), person)
    new_frames = (erased * (1 - alpha) + layer[:, :, :3]).clamp(0, 1)
    chosen = _by_clip((pasted | tilted) & ~fixed)
    return torch.where(chosen, new_frames, frames), torch.where(chosen, new_poses, poses), fixed


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
    grown = largest_near(largest_near(flat, -1, 3), -2, 3)
    soft = avg_pool2d(grown, 3, stride=1, padding=1, count_include_pad=False).view_as(changed)
    return soft, torch.minimum(opaque, soft)


def _middle(poses: Tensor) -> Tensor:
    """Where the bodies of each clip are on average, from left to right: `(B,)` in [-1, 1]."""
    columns = (1 - poses).sum(dim=(1, 2, 3))
    places = torch.linspace(-1, 1, poses.shape[-1], device=poses.device)
    return (columns * places).sum(dim=1) / columns.sum(dim=1).clamp(min=1e-3)


def _thinned(ink: Tensor) -> Tensor:
    """Only the ridges of blurred lines: pose pictures have lines of the same width at any size of a body."""
    flat = ink.amax(dim=2, keepdim=True).flatten(0, 1)
    beside = (
        largest_near(flat, -1, 3),
        largest_near(flat, -2, 3),
    )
    ridge = (flat >= beside[0]) | (flat >= beside[1])
    strong = flat > 0.5 * largest_near(
        largest_near(flat, -1, 5), -2, 5
    )  # not the end of a ridge across a line
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


def _mapped(pictures: Tensor, grid: Tensor, mode: str) -> Tensor:
    """`(B, T, C, H, W)`, every picture of a clip in the same way; 0 where the old picture ends."""
    flat = pictures.flatten(1, 2)
    return grid_sample(flat, grid, mode, padding_mode="zeros", align_corners=False).view_as(pictures)


def _by_clip(values: Tensor) -> Tensor:
    """`(B,)`, to be used with `(B, T, C, H, W)`."""
    return values[:, None, None, None, None]
