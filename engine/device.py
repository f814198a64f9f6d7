"""Which device a run uses, and how it computes there."""

import ctypes

import torch
from torch import nn

from . import distributed
from .console import UserError


def select_device(args) -> torch.device:
    """The device of this process, which becomes the current one; prints what was decided.

    `--device` names a kind of device or one device; each of several processes has a GPU of its own.

    Raises:
        UserError: no such device, or CUDA is required and there is none.
    """
    available = _available()
    wanted = _parse(args.device)
    if wanted is None and (args.gpu == 0 or not available):
        print(f"{'--gpu 0' if args.gpu == 0 else 'no CUDA device found'}: running on the CPU")
        return torch.device("cpu")
    if wanted is not None and wanted.type == "cpu":
        return wanted
    if not available:
        raise UserError(f"--device {args.device}: no CUDA device found; leave the flag out for the CPU")
    index = distributed.local_rank()
    if wanted is not None and wanted.index is not None:
        index = wanted.index
    if index >= available:
        raise UserError(f"{_requested(args, index)}: there are {available} CUDA devices, counted from 0")
    torch.cuda.set_device(index)
    # Pictures and batches keep their sizes for a whole run, so the search for the fastest algorithms pays.
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda", index)


def gpu_count(args) -> int:
    """The number of GPUs of this machine to use, by `--gpu` and `--device`; prints if there are fewer."""
    wanted, available = _parse(args.device), _available()
    if not available or args.gpu < 2 or (wanted and (wanted.type == "cpu" or wanted.index is not None)):
        return 1
    if args.gpu > available:
        print(f"--gpu {args.gpu}: {available} found, using {available}")
    return min(args.gpu, available)


def _available() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _requested(args, index: int) -> str:
    if args.device and ":" in args.device:
        return f"--device {args.device}"
    return f"process {index} of this machine"


def _parse(name: str | None) -> torch.device | None:
    if name is None:
        return None
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: not a device; give cpu, cuda or cuda:N")
    return device


def on_device(model: nn.Module, args, device: torch.device) -> nn.Module:
    """Move a model to a device, its weights in the memory order that is fastest there.

    That is channels last, but not for the `unet` architecture on CPUs: GroupNorm of few channels a group is
    several times slower there if channels are last.

    Args:
        args: `arch`.
    """
    contiguous = args.arch == "unet" and device.type == "cpu"
    return model.to(device, memory_format=torch.contiguous_format if contiguous else torch.channels_last)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context of a computation; "auto" is bf16 where the hardware has it.

    On CPUs with bf16 instructions a step of the `lab` architecture takes half the time of fp32; on CPUs
    without them, bf16 is slower.
    """
    return torch.autocast(
        device.type, torch.bfloat16, enabled=resolved_precision(precision, device) == "bf16"
    )


def resolved_precision(precision: str, device: torch.device) -> str:
    """ "bf16" or "fp32", also for "auto"."""
    if precision == "auto":
        return "bf16" if _has_bf16(device) else "fp32"
    return precision


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # torch.cpu.get_capabilities is newer than the oldest torch that this runs on.
    if hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def keep_pages() -> None:
    """Have glibc keep freed memory, instead of returning it to the system after each training step.

    A step allocates and frees hundreds of megabytes, and page faults on new memory cost up to half of the
    time. Without `mallopt` in the C library, nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, mmap_max = -1, -4
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_max, 0)
