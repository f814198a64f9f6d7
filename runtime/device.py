"""Which device a run uses, and how it computes there."""

import ctypes
import os
import re
import subprocess
from pathlib import Path

import torch
from torch import nn

from runtime import distributed
from runtime.cli import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
HIDDEN = ("", "-1", "NoDevFiles")  # values of it by which a user hides all GPUs
ALGORITHMS_TO_TRY = 4  # for each convolution, in the order in which cuDNN expects them to be fast
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}


def select_device(args) -> torch.device:
    """The device of this process, which becomes the current one; prints what was decided.

    `--device` names a kind of device or one device; each of several processes has a GPU of its own.

    Raises:
        UserError: no such device; or a GPU that torch cannot use, unless the CPU was asked for.
    """
    available, wanted = _available(), _parse(args.device)
    if args.gpu == 0 and wanted is None:
        print("--gpu 0: running on the CPU")
        return torch.device("cpu")
    if wanted is not None and wanted.type == "cpu":
        return wanted
    if not available:
        if reason := _why_unusable():
            raise UserError(
                f"torch cannot use the GPU of this machine ({reason}); --device cpu does without it"
            )
        if wanted is not None:
            raise UserError(f"--device {args.device}: no CUDA device found; leave the flag out for the CPU")
        print("no CUDA device found: running on the CPU")
        return torch.device("cpu")
    index = _index(args, wanted, available)
    _check_capability(index)
    torch.cuda.set_device(index)
    # Pictures and batches keep their sizes for long, so the search for a fast algorithm pays, if it is short.
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = ALGORITHMS_TO_TRY
    return torch.device("cuda", index)


def _index(args, wanted: torch.device | None, available: int) -> int:
    """The number of this process's GPU."""
    if wanted is not None and wanted.index is not None:
        if distributed.local_world_size() > 1:
            raise UserError(f"--device {args.device}: each process has a GPU of its own; give --device cuda")
        if wanted.index >= available:
            raise UserError(f"--device {args.device}: there are {available} CUDA devices, counted from 0")
        return wanted.index
    index = distributed.local_rank()
    if available == 1 and VISIBLE in os.environ:  # a scheduler has shown each process a GPU of its own
        return 0
    if index >= available:
        raise UserError(
            f"process {index} of this machine: there are {available} CUDA devices, counted from 0"
        )
    return index


def _why_unusable() -> str | None:
    """Torch's own reason for not using the NVIDIA GPU of this machine; None if there is no GPU to use."""
    if os.environ.get(VISIBLE) in HIDDEN or not _has_nvidia_gpu():
        return None
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().split("\n")[0]
    return "it counts no device"


def _has_nvidia_gpu() -> bool:
    if Path("/dev/nvidia0").exists():
        return True
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and b"GPU" in listed.stdout


def _check_capability(index: int) -> None:
    """Refuse a GPU that torch has no code for; code runs on later GPUs of a generation, PTX on all later."""
    capability, architectures = torch.cuda.get_device_capability(index), torch.cuda.get_arch_list()
    for name in architectures:
        kind, major, minor = re.match(r"(\w+?)_(\d+)(\d)", name).groups()
        code = int(major), int(minor)
        if code <= capability and (kind == "compute" or code[0] == capability[0]):
            return
    if architectures:
        has = f"compute capability {'.'.join(map(str, capability))}, and torch has code for "
        remedy = "install a torch for it, or give --device cpu"
        raise UserError(f"{torch.cuda.get_device_name(index)} has {has}{', '.join(architectures)}; {remedy}")


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

    That is channels last, with two exceptions. GroupNorm of few channels a group, of the `unet` architecture,
    is several times slower on CPUs if channels are last; and GPUs before compute capability 8.0 lack an
    algorithm for depthwise convolutions.

    Args:
        args: `arch`.
    """
    on_cuda = device.type == "cuda"
    contiguous = torch.cuda.get_device_capability(device) < (8, 0) if on_cuda else args.arch == "unet"
    return model.to(device, memory_format=torch.contiguous_format if contiguous else torch.channels_last)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context of a computation; `precision` as of `resolved_precision`.

    On CPUs with bf16 instructions a step of the `lab` architecture takes half the time of fp32; on CPUs
    without them, bf16 is slower.
    """
    dtype = DTYPES[resolved_precision(precision, device)]
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def resolved_precision(precision: str, device: torch.device) -> str:
    """ "bf16", "fp16" or "fp32"; for "auto" bf16 where the hardware has it, else fp16 on GPUs."""
    if precision != "auto":
        return precision
    if _has_bf16(device):
        return "bf16"
    return "fp16" if device.type == "cuda" else "fp32"


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
