"""Device selection, precision, memory format and CPU threads."""

import contextlib
import ctypes
import os
from pathlib import Path

import torch
from torch import nn

from . import distributed
from .cli import UserError, log

HIDDEN = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES that hide all GPUs


def select_device(name: str | None, gpu: int) -> torch.device:
    """Select this process's device from `--device` and `--gpu`; raises `UserError` if it is unusable."""
    available, wanted = _num_available(), _parse(name)
    if gpu == 0 and wanted is None:
        log("--gpu 0: running on the CPU")
        return torch.device("cpu")
    if wanted is not None and wanted.type == "cpu":
        return wanted
    if wanted is not None and wanted.type == "mps":
        if not torch.backends.mps.is_available():
            raise UserError(f"--device {name}: torch reports no Apple GPU; use --device cpu")
        return wanted
    if not available:
        if reason := _why_unusable():
            raise UserError(f"torch cannot use this machine's GPU ({reason}); or use --device cpu")
        if wanted is not None:
            raise UserError(f"--device {name}: torch reports no CUDA devices; omit the flag for the CPU")
        log("no CUDA devices: running on the CPU")
        return torch.device("cpu")
    device = torch.device("cuda", _index(wanted, available))
    torch.cuda.set_device(device)
    try:
        torch.ones(1, device=device)
    except RuntimeError as error:  # torch has no code for this GPU
        gpu, reason = torch.cuda.get_device_name(device), str(error).strip().split("\n")[0]
        remedy = "install a torch for it, or give --device cpu"
        raise UserError(f"torch cannot use the {gpu} ({reason}); {remedy}") from None
    return device


def _index(wanted: torch.device | None, available: int) -> int:
    """The number of this process's GPU."""
    if wanted is not None and wanted.index is not None:
        if distributed.local_world_size() > 1:
            raise UserError(f"--device {wanted}: each process uses its own GPU; use --device cuda")
        if wanted.index >= available:
            raise UserError(f"--device {wanted}: torch reports {available} CUDA devices, numbered from 0")
        return wanted.index
    index = distributed.local_rank()
    if available == 1 and "CUDA_VISIBLE_DEVICES" in os.environ:  # a scheduler shows each process its GPU
        return 0
    if index >= available:
        raise UserError(f"no GPU for local rank {index}: torch reports {available} CUDA devices")
    return index


def _why_unusable() -> str | None:
    """Torch's reason for not using the NVIDIA GPU of this machine; None if there is no GPU to use."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in HIDDEN or not Path("/dev/nvidia0").exists():
        return None
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().split("\n")[0]
    return "torch reports no CUDA devices"


def num_gpus(name: str | None, gpu: int) -> int:
    """Number of GPUs of this machine to use, by `--device` and `--gpu`."""
    wanted, available = _parse(name), _num_available()
    if not available or gpu < 2 or (wanted and wanted.type != "cuda"):
        return 1
    if wanted and wanted.index is not None:
        raise UserError(f"--device {name} is one GPU; use --device cuda with --gpu {gpu}")
    if gpu > available:
        log(f"--gpu {gpu}: {available} found, using {available}")
    return min(gpu, available)


def _num_available() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _parse(name: str | None) -> torch.device | None:
    if name is None:
        return None
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"--device {name}: not a device; use cpu, cuda, cuda:N or mps")
    return device


def to_device(model: nn.Module, arch: str, device: torch.device) -> nn.Module:
    """Move a model to a device, with its weights in the memory format that is fastest there.

    That is channels last for `lab`, except on GPUs before compute capability 8.0, which lack depthwise
    convolutions for it. For `unet` it wins nothing, and on CPUs its GroupNorm is then several times slower.
    """
    is_old_gpu = device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0)
    is_contiguous = arch == "unet" or is_old_gpu
    return model.to(device, memory_format=torch.contiguous_format if is_contiguous else torch.channels_last)


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """The context of a computation in bf16 or fp32; `precision` as in `resolve_precision`."""
    is_bf16 = resolve_precision(precision, device) == "bf16"
    return torch.autocast(device.type, torch.bfloat16) if is_bf16 else contextlib.nullcontext()


def resolve_precision(precision: str, device: torch.device) -> str:
    """ "bf16" or "fp32"; "auto" is bf16 where the hardware has it, because it is slower elsewhere."""
    if precision != "auto":
        return precision
    return "bf16" if _has_bf16(device) else "fp32"


def _has_bf16(device: torch.device) -> bool:
    if device.type == "mps":  # not measured
        return False
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if hasattr(torch.cpu, "get_capabilities"):  # torch 2.7
        has = torch.cpu.get_capabilities()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def num_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(wanted: int | None) -> None:
    """Set torch's number of CPU threads: `wanted`, or one per idle core.

    Torch's threads busy-wait: two runs with more threads than cores are several times
    slower than with one thread each.
    """
    load = int(os.getloadavg()[0]) if hasattr(os, "getloadavg") else 0
    torch.set_num_threads(wanted or max(1, min(torch.get_num_threads(), num_cores() - load)))


def tune_malloc() -> None:
    """Have glibc keep freed memory, because page faults on new memory take up to half of a step's time."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return
    trim_threshold, mmap_max = -1, -4
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_max, 0)
