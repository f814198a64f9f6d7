"""Whether what a run needs at least fits into the memory of the machine, said before it is tried."""

import os
from pathlib import Path

import torch

from modules import VAE_Model
from runtime.cli import UserError

CONTAINER_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
# Weights, their gradients, and two moments in the optimizer.
COPIES_IN_TRAINING = 4
# What is kept for the backward pass, of what it would be in fp32 without anything shared: a lower bound.
LEAST_SHARE = 0.25


def installed() -> int:
    """Memory in bytes that this process can have: of the machine, or of its container."""
    if not hasattr(os, "sysconf"):  # Windows
        return 2**63
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in map(Path, CONTAINER_LIMITS):
        text = path.read_text().strip() if path.is_file() else ""
        if text.isdecimal():
            limits.append(int(text))
    return min(limits)


def require(needed: float, what: str, device: torch.device | None = None) -> None:
    """Refuse what needs more memory than there is.

    Args:
        needed: bytes.
        what: needs them, for the message.
        device: whose memory is meant; the machine's if not given.

    Raises:
        UserError: there is less.
    """
    on_gpu = device is not None and device.type == "cuda"
    there = torch.cuda.get_device_properties(device).total_memory if on_gpu else installed()
    if needed > there:
        sizes = f"at least {needed / 2**30:,.0f} GiB of memory, and there are {there / 2**30:,.1f}"
        raise UserError(f"{what} need {sizes}; make them smaller")


def require_model(args, device: torch.device, clips: int = 0) -> None:
    """Refuse networks, or a training step of them, that cannot fit.

    Args:
        args: the sizes of networks and pictures; in training `train_vi_len`, too.
        clips: of a training step; 0 where nothing is trained.

    Raises:
        UserError: there is less memory than that needs at least.
    """
    try:
        weights, saved = _sizes(args, bool(clips))
    except RuntimeError as error:  # a number of bytes beyond 64 bits
        if "overflow" not in str(error):
            raise
        weights = saved = 2**63
    flags = f"--F_dim {args.F_dim} --L_dim {args.L_dim} --N_dim {args.N_dim} --D_out_dim {args.D_out_dim}"
    require(weights * (COPIES_IN_TRAINING if clips else 1), f"networks of {flags}", device)
    if clips:
        size = f"{args.frame_W}x{args.frame_H}"
        what = f"training steps with {clips} clips of {args.train_vi_len} frames of {size}"
        require(saved * clips * (args.train_vi_len - 1) * LEAST_SHARE, what, device)


def _sizes(args, training: bool) -> tuple[int, int]:
    """Bytes of the weights, and of what the backward pass needs of one frame, found without any memory."""
    saved = 0

    def count(tensor):
        nonlocal saved
        saved += tensor.numel() * tensor.element_size()
        return tensor

    with torch.device("meta"):
        model = VAE_Model(args)
        weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
        if training:
            clip = torch.zeros(1, 2, 3, args.frame_H, args.frame_W)
            with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                model(clip, clip, teacher_forcing=True)
    return weights, saved
