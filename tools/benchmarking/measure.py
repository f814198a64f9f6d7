"""How things are measured: seconds, memory, operators, FLOPs, and what a device can do at most."""

import math
import os
import re
import resource
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from engine.console import UserError

ROOT = Path(__file__).resolve().parents[2]
# Sides of square matrices, of which the best product counts: small ones do not fill a device.
MATRICES = {"cpu": (512, 1024, 2048), "cuda": (4096, 8192, 16384)}
# The progress bar of a training epoch, once a step is done.
FIRST_STEP = re.compile(rb"\(train[^\r\n]*\| *[1-9]\d*/")


class _Counter(TorchDispatchMode):
    """Counts the operators that are dispatched while it is entered; views compute nothing."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def count_operators(function: Callable[[], object]) -> int:
    """Operators that torch dispatches while `function` runs, those of a backward pass included, views not."""
    with _Counter() as counter:
        function()
    return counter.count


def mean_seconds(work: Callable[[], object], finish: Callable[[], object], least: float) -> float:
    """Mean time of a call of `work`, over at least `least` seconds; `finish` waits for what it began."""

    def seconds(count: int) -> float:
        began = time.perf_counter()
        for _ in range(count):
            work()
        finish()
        return time.perf_counter() - began

    once = seconds(1)
    if once >= least:
        return once
    count = math.ceil(least / once)
    return seconds(count) / count


def random_clips(args: Namespace, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Frames and poses `(B, T, 3, H, W)` in [0, 1] for `batch_size, train_vi_len, frame_H, frame_W`."""
    shape = args.batch_size, args.train_vi_len, 3, args.frame_H, args.frame_W
    return torch.rand(shape, device=device), torch.rand(shape, device=device)


def peak_rss() -> int:
    """The most memory that this process has held, in bytes; no less than its parent held at its start."""
    # macOS counts in bytes, Linux in units of 1024.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def installed_memory() -> int:
    """The memory of the machine, in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def seconds_to_first_step(script: str, argv: list[str]) -> float:
    """Seconds from the launch of a training script to its first step, upon which it is ended.

    Raises:
        UserError: it ended by itself before.
    """
    command = [sys.executable, str(ROOT / script), *argv]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _await_first_step(script, process.stderr.fileno())
        return time.perf_counter() - began
    finally:
        process.terminate()
        process.communicate()


def _await_first_step(script: str, stderr: int) -> None:
    seen = b""
    while not FIRST_STEP.search(seen):
        part = os.read(stderr, 4096)
        if not part:
            last = seen.decode(errors="replace").strip().splitlines()[-1:]
            raise UserError(f"{script} ended before its first step: {''.join(last)}")
        seen += part


def model_flops(model: nn.Module, *arguments) -> int:
    """Floating-point operations of `model(*arguments)` and of the backward pass from all its outputs."""
    formulas = {torch.ops.aten.convolution_backward: _convolution_backward_flops}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        sum(output.sum() for output in model(*arguments)).backward()
    return counter.get_total_flops()


def _convolution_backward_flops(gradient, _image, weight, *others, out_shape=None) -> int:
    """FLOPs of a convolution's gradients, from shapes; torch's own formula takes depthwise ones for dense."""
    forward = 2 * gradient[0] * math.prod(weight) * math.prod(gradient[2:])
    for_image, for_weight, _ = others[-1]
    return forward * (for_image + for_weight)


def matrix_ceiling(device: torch.device, dtype: torch.dtype, least: float) -> float:
    """FLOP/s of the best of some square matrix products."""
    return max(_matrix_flops(side, device, dtype, least) for side in MATRICES[device.type])


def _matrix_flops(side: int, device: torch.device, dtype: torch.dtype, least: float) -> float:
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    product = a @ b

    def multiply() -> None:
        torch.mm(a, b, out=product)

    def wait() -> None:
        product[0, 0].item()

    wait()
    return 2 * side**3 / mean_seconds(multiply, wait, least)
