"""Data augmentation of training clips: frames and poses are changed alike."""

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from dataloader import ClipBatch
from runtime.distributed import draw
from utils import to_float, to_float_rgb

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
            `reference_frame`, "any" if frame 0 is from another time. `pose_background`.
    """
    frames, poses = to_float(batch.frames), to_float(batch.poses)
    if args.augment == "none" and not args.pose_dropout:
        return frames, poses
    pose_background = to_float_rgb(args.pose_background, poses.device)
    drawing = pose_background - poses  # signed, and 0 where nothing is drawn
    kinds = args.augment.split(",")
    if "copy_paste" in kinds and batch.background is not None:
        background = to_float(batch.background)
        frames, drawing = copy_paste(frames, drawing, background, args.reference_frame == "any")
    if "affine" in kinds:
        frames, drawing = _affine(frames, drawing)
    if args.pose_dropout:
        drawing = drop_poses(drawing, args.pose_dropout)
    return frames, pose_background - drawing


def _affine(frames: Tensor, drawing: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate and shear whole images of some clips."""
    count, (height, width) = len(frames), frames.shape[-2:]
    selected = draw(torch.rand, count, device=frames.device) < AFFINE_FRACTION
    angle, shear = (
        limit * selected * (2 * draw(torch.rand, count, device=frames.device) - 1)
        for limit in (ROTATION, SHEAR)
    )
    linear = affine_matrix(angle, shear, torch.ones_like(angle), height / width)
    matrix = torch.cat([linear, torch.zeros_like(linear[:, :, :1])], dim=2)
    flat_frames, flat_drawing = frames.flatten(1, 2), drawing.flatten(1, 2)
    grid = affine_grid(matrix, list(flat_frames.shape), align_corners=False)
    new_frames = grid_sample(flat_frames, grid, padding_mode="border", align_corners=False)
    new_drawing = grid_sample(flat_drawing, grid, padding_mode="zeros", align_corners=False)
    return new_frames.view_as(frames), new_drawing.view_as(drawing)
