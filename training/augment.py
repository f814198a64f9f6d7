"""Data augmentation of training clips: frames and poses are changed alike."""

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from dataloader import ClipBatch
from runtime.distributed import draw
from utils import to_float

from .copy_paste import ROTATION, SHEAR, affine_matrix, copy_paste
from .pose_dropout import drop_poses

KINDS = ("affine", "copy_paste")
AFFINE_FRACTION = 0.6  # of the clips; the others stay sharp, because resampling blurs


def needs_background(augment: str) -> bool:
    """Whether a value of `--augment` needs the backgrounds of the shots."""
    return "copy_paste" in augment.split(",")


def augment(batch: ClipBatch, args) -> tuple[Tensor, Tensor]:
    """uint8 clips -> augmented frames and poses, `(B, T, 3, H, W)` in [0, 1].

    Args:
        args: `augment`, see `--help`; without a known background, copy_paste does nothing. `pose_dropout`.
            `reference_frame`, "any" if frame 0 is from another time.
    """
    frames, poses = to_float(batch.frames), to_float(batch.poses)
    kinds = args.augment.split(",")
    if "copy_paste" in kinds and batch.background is not None:
        background = to_float(batch.background)
        frames, poses = copy_paste(frames, poses, background, args.reference_frame == "any")
    if "affine" in kinds:
        frames, poses = _affine(frames, poses)
    if args.pose_dropout:
        poses = drop_poses(poses, args.pose_dropout)
    return frames, poses


def _affine(frames: Tensor, poses: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate and shear whole images of some clips."""
    count, (height, width) = len(frames), frames.shape[-2:]
    selected = draw(torch.rand, count, device=frames.device) < AFFINE_FRACTION
    angle, shear = (
        limit * selected * (2 * draw(torch.rand, count, device=frames.device) - 1)
        for limit in (ROTATION, SHEAR)
    )
    linear = affine_matrix(angle, shear, torch.ones_like(angle), height / width)
    matrix = torch.cat([linear, torch.zeros_like(linear[:, :, :1])], dim=2)
    # grid_sample pads with 0, so white is shifted to 0 while the poses are sampled.
    flat_frames, flat_poses = frames.flatten(1, 2), poses.flatten(1, 2) - 1
    grid = affine_grid(matrix, list(flat_frames.shape), align_corners=False)
    new_frames = grid_sample(flat_frames, grid, padding_mode="border", align_corners=False)
    new_poses = grid_sample(flat_poses, grid, padding_mode="zeros", align_corners=False) + 1
    return new_frames.view_as(frames), new_poses.view_as(poses)
