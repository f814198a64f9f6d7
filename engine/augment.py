"""Clips moved and scaled, frames and poses alike, so that a pose is seen in more places than was filmed."""

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

SCALE = 0.1  # standard deviation of the enlargement, cut at two of them
MOVE = (0.15, 0.1)  # farthest shift, to either side and up or down, as fractions of half a picture


def move_and_scale(frames: Tensor, poses: Tensor) -> tuple[Tensor, Tensor]:
    """Move and scale each clip at random, all its pictures in the same way.

    What enters the picture at an edge continues the edge in frames, and is white in poses.

    Args:
        frames, poses: `(B, T, 3, H, W)` in [0, 1].

    Returns:
        The same shapes.
    """
    batch = len(frames)
    scale = 1 + SCALE * torch.randn(batch, device=frames.device).clamp(-2, 2)
    shift = (2 * torch.rand(batch, 2, device=frames.device) - 1) * frames.new_tensor(MOVE)
    matrix = torch.cat([torch.diag_embed(scale[:, None].expand(batch, 2)), shift[:, :, None]], dim=2)
    flat_frames, flat_poses = frames.flatten(1, 2), poses.flatten(1, 2)
    grid = affine_grid(matrix, list(flat_frames.shape), align_corners=False)
    moved = grid_sample(flat_frames, grid, padding_mode="border", align_corners=False)
    # Outside lies 0, so white has to be 0 while the poses are sampled.
    moved_poses = grid_sample(flat_poses - 1, grid, padding_mode="zeros", align_corners=False) + 1
    return moved.view_as(frames), moved_poses.view_as(poses)
