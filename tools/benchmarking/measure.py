"""Print one measurement of one side, a method of `Side`. Its process shares no settings and no memory.

python -m tools.benchmarking.measure {product,reference} METHOD [flags of Trainer.py]
"""

import os
import pty
import re
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dataloader import DeviceClips, TrainingClips
from modules import VAE_Model
from runtime import cli
from runtime.cuda_graph import WARM_UP_CALLS
from runtime.device import autocast, keep_pages, on_device, select_device
from tools import children, plain_reference
from training import evaluate, options
from training.step import TrainingStep, make_optimizer
from utils import to_float

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = {"product": "Trainer.py", "reference": "tools/plain_reference.py"}
# Algorithms are chosen; on CUDA the product then records a graph, and replays it once.
WARM_UP_STEPS = {"cpu": 3, "cuda": WARM_UP_CALLS + 2}
CALLS = {"cpu": 2, "cuda": 50}  # to be timed; a GPU needs many, because it has a queue
VIDEOS = 6  # to render, as many as in the course lab's test set
MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}  # enough to fill the device
FIRST_STEP = re.compile(rb"\(train[^\r\n]*\| *[1-9]\d*/")  # in the progress bar of a training epoch


def count_operators(function) -> int:
    """Operators that torch dispatches in `function()`, backward passes included; views compute nothing."""
    operators = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            operators.append(func)
            return func(*args, **(kwargs or {}))

    with Recorder():
        function()
    return sum(not operator.is_view for operator in operators)


def now(device: torch.device) -> float:
    """The time in seconds when the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def mean_seconds(function, device: torch.device) -> float:
    """Mean time of `function()`."""
    count, began = CALLS[device.type], now(device)
    for _ in range(count):
        function()
    return (now(device) - began) / count


class Side:
    """A new model of one side after the steps that warm up; steps are teacher-forced if `args.tfr` is 1."""

    def __init__(self, name: str, args):
        self.is_product, self.args, self.device = name == "product", args, select_device(args)
        shape = 2, args.batch_size, args.train_vi_len, args.frame_H, args.frame_W, 3
        clips = torch.randint(256, shape, dtype=torch.uint8, device=self.device)  # frames and poses
        settings = {"beta": 1.0, "teacher_forcing": args.tfr == 1}
        self.model = VAE_Model(args).to(self.device)
        if self.is_product:
            keep_pages()
            on_device(self.model, args, self.device)
            step = TrainingStep(self.model, make_optimizer(self.model, args), args)
            update = partial(step, lr=args.lr, **settings)
        else:
            optimizer = torch.optim.Adam(self.model.parameters(), lr=args.lr)
            update = partial(plain_reference.training_step, self.model, optimizer, **settings)
            clips = to_float(clips)
        self.update, self.update_again = update, partial(update, *clips)
        for _ in range(WARM_UP_STEPS[self.device.type]):
            self.update_again()

    def step(self) -> float:
        """Seconds of a training step, data excluded."""
        return mean_seconds(self.update_again, self.device)

    def rate(self) -> float:
        """Clips per second of such steps; 0 on the CPU if a batch takes 40 % of the machine's memory."""
        installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**20
        fits = self.device.type == "cuda" or self.args.batch_size == 1 or self.memory() < 0.4 * installed
        return self.args.batch_size / self.step() if fits else 0.0

    def memory(self) -> float:
        """Peak memory in MiB: of the GPU if it is used, else of this process, at least that of its parent."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB, on macOS in bytes
        return peak / (2**20 if sys.platform == "darwin" else 2**10)

    def operators(self) -> int:
        """Operators of a step."""
        return count_operators(self.update_again)

    def epoch(self) -> float:
        """Clips per second of an epoch, from opening the data on."""
        began, count = now(self.device), 0
        if self.is_product:
            data = TrainingClips(self.args)
            batches = map(DeviceClips(data, self.device).load, data.batches(0))
        else:
            batches = plain_reference.clip_loader(self.args)
        for clips in batches:
            self.update(*(pictures.to(self.device) for pictures in clips))
            count += len(clips[0])
        return count / (now(self.device) - began)

    def cold_epoch(self) -> float:
        """The same before any picture has been decoded: in a view of the dataset without its frame cache."""
        with tempfile.TemporaryDirectory() as view:
            (Path(view) / "train").symlink_to(self.args.DR / "train")
            self.args.DR = Path(view)
            return self.epoch()

    def render(self) -> float:
        """Frames per second of `VIDEOS` videos of `--val_vi_len` frames."""
        args, length = self.args, self.args.val_vi_len
        shape = 2, VIDEOS, length, args.frame_H, args.frame_W, 3
        frames, poses = torch.randint(256, shape, dtype=torch.uint8).numpy()
        self.model.eval()

        def generate(count: int) -> float:
            began = now(self.device)
            if self.is_product:
                videos = [evaluate.Sequence("", poses[i, :count], frames[i, 0]) for i in range(VIDEOS)]
                evaluate.generate(self.model, videos, args)
            else:
                for i in range(VIDEOS):
                    plain_reference.render(self.model, to_float(frames[i, 0]), to_float(poses[i, :count]))
            return now(self.device) - began

        generate(3)  # to warm up
        return VIDEOS * (length - 1) / generate(length)


def limits(args, device: torch.device) -> tuple[int, float, str]:
    """FLOPs of the networks in a step for one clip; FLOP/s of a matrix product in the type of the step."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        clip = torch.rand(1, args.train_vi_len, 3, args.frame_H, args.frame_W)
        VAE_Model(args)(clip, clip, teacher_forcing=False)
    # Convolutions in fp32 use TF32 by default, so the ceiling is that of products that do so.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    flops = 3 * counter.get_total_flops()  # the backward pass takes twice the forward pass
    size = MATRIX_SIZE[device.type]
    with autocast(args.precision, device):  # decides on the type of a product
        matrix = torch.eye(size, device=device) @ torch.randn(size, size, device=device)
    seconds = mean_seconds(lambda: torch.mm(matrix, matrix), device)
    return flops, 2 * size**3 / seconds, "bf16" if matrix.dtype == torch.bfloat16 else "fp32"


def launch(side: str, flags: list[str]) -> float:
    """Seconds from the launch of a side's script to its first training step, after which it is ended."""
    began, output = time.perf_counter(), b""
    command = [sys.executable, str(ROOT / SCRIPTS[side]), *flags]
    terminal, end = pty.openpty()  # because a bar shows its first step at once only in a terminal
    ending = partial(children.end_with, os.getpid())
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=end, preexec_fn=ending) as process:
        os.close(end)
        try:
            while part := _read(terminal):
                output += part
                if FIRST_STEP.search(output):
                    return time.perf_counter() - began
        finally:
            process.terminate()
            os.close(terminal)
    last_line = (output.decode(errors="replace").splitlines() or [""])[-1]
    raise cli.UserError(f"{SCRIPTS[side]} ended before its first step: {last_line}")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


def measure(side: str, measurement: str, *flags: str) -> float:
    """What a method of `Side` returns; a rate of 0 if the memory of the GPU does not suffice."""
    try:
        return getattr(Side(side, options.trainer_args(flags)), measurement)()
    except RuntimeError as error:
        # cuDNN has an error of its own where no algorithm has enough memory.
        out_of_memory = isinstance(error, torch.OutOfMemoryError) or "FIND was unable" in str(error)
        if measurement != "rate" or not out_of_memory:
            raise
        return 0.0


if __name__ == "__main__":
    cli.run(lambda: print(measure(*sys.argv[1:])))
