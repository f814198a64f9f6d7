"""Measure one side in its own process, and print the results as JSON, see `measure`.

python -m tools.benchmarking.measure {product,reference} STARTED [flags of Trainer.py]
"""

import json
import math
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import Trainer
from dataloader import ClipBatch, ClipDataset, ClipLoader, Video
from modules import VAE_Model
from runtime import cli
from runtime.cuda_graph import Graphed
from runtime.device import num_cores, select_device, set_threads, to_device, tune_malloc
from tools import plain_reference
from training import configuration, evaluate
from training.augment import needs_background
from training.meter import Meter
from training.optimizers import make_optimizer
from training.options import WHITE
from utils import to_float

try:
    import resource
except ImportError:  # Windows
    resource = None

WARM_UP_STEPS = 3  # on CUDA, the product captures a CUDA graph in the first step
CALLS = {"cpu": 2, "mps": 20, "cuda": 20}  # number of timed steps; more on GPUs, which run asynchronously
NUM_VIDEOS = 6  # to render, as in the course's test set
# Operators are counted in fp32, like the reference, and on small images: the counts do not depend on size.
COUNT_FLAGS = "--batch_size=2 --train_vi_len=16 --frame_H=8 --frame_W=16 --precision=fp32 --device=cpu"


def count_operators(function: Callable) -> int:
    """Number of operators that torch dispatches in `function()`, with backward; views are not counted."""
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
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


class StepOnly(Trainer.Run):
    """A training run without data, for `training_step`."""

    def __init__(self, args, device: torch.device):
        self.args, self.device = args, device
        self.model = self.parallel_model = to_device(VAE_Model(args), args.arch, device)
        self.optimizer, self.meter = make_optimizer(self.model, args), Meter(device)


def random_batch(args, device: torch.device) -> ClipBatch:
    """A batch of random pixels, with what the augmentation needs."""

    def pixels(*shape: int) -> torch.Tensor:
        return torch.randint(256, (args.batch_size, *shape), dtype=torch.uint8, device=device)

    size = args.frame_H, args.frame_W
    background = pixels(*size, 4) if needs_background(args.augment) else None
    return ClipBatch(pixels(args.train_vi_len, *size, 3), pixels(args.train_vi_len, *size, 3), background)


class Side:
    """A new model of one side.

    Args:
        name: "product" or "reference".
        args: the flags of Trainer.py.
    """

    def __init__(self, name: str, args):
        self.is_product, self.args = name == "product", args
        self.device = device = select_device(args.device, args.gpu)
        args.pose_background = WHITE
        set_threads(args.threads or num_cores())
        # On an Apple GPU, clips are on the CPU until they are augmented, as in `ClipLoader`.
        self.batch = random_batch(args, torch.device("cpu") if device.type == "mps" else device)
        if self.is_product:
            tune_malloc()
            run = StepOnly(args, device)
            self.model = run.model
            step = Graphed(run.training_step) if device.type == "cuda" else run.training_step
            beta = torch.ones((), device=device)
            self.update = lambda batch, forced: step(batch, beta, teacher_forcing=forced)
        else:
            self.batch = [to_float(clips, device) for clips in self.batch[:2]]
            self.model = VAE_Model(args).to(device)
            optimizer = torch.optim.Adam(self.model.parameters(), lr=args.lr)
            self.update = lambda batch, forced: plain_reference.training_step(
                self.model, optimizer, *batch, 1.0, forced
            )

    def steps(self, teacher_forcing: bool, count: int) -> float:
        """Train `count` steps; returns seconds per step, data excluded."""
        start = now(self.device)
        for _ in range(count):
            self.update(self.batch, teacher_forcing)
        return (now(self.device) - start) / count

    def memory(self) -> float:
        """Peak memory in MiB: of the GPU if it is used, else of this process; NaN on Windows."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        if resource is None:
            return math.nan
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB, on macOS in bytes
        return peak / (2**20 if sys.platform == "darwin" else 2**10)

    def epoch(self) -> float:
        """Clips per second in a free-running epoch, including the time to open the data."""
        start, num_clips = now(self.device), 0
        for batch in self._batches():
            self.update(batch, False)
            num_clips += len(batch[0])
        return num_clips / (now(self.device) - start)

    def _batches(self):
        args = self.args
        if not self.is_product:
            return ([clips.to(self.device) for clips in batch] for batch in plain_reference.clip_loader(args))
        dataset, background = ClipDataset(args), None
        if needs_background(args.augment):  # estimated once per run, so not here
            background = np.full((len(dataset.shots), args.frame_H, args.frame_W, 4), 255, np.uint8)
        loader = ClipLoader(dataset, self.device, background)
        return map(loader.load, dataset.batches(0, args.train_vi_len, args.batch_size))

    def render(self) -> float:
        """Frames per second of `NUM_VIDEOS` videos of `--val_vi_len` frames."""
        args, length = self.args, self.args.val_vi_len
        shape = 2, NUM_VIDEOS, length, args.frame_H, args.frame_W, 3
        frames, poses = torch.randint(256, shape, dtype=torch.uint8).numpy()
        self.model.eval()

        def generate(count: int) -> float:
            start = now(self.device)
            if self.is_product:
                videos = [Video(i, poses[i, :count], frames[i, 0]) for i in range(NUM_VIDEOS)]
                evaluate.generate(self.model, videos, args)
            else:
                for i in range(NUM_VIDEOS):
                    plain_reference.render(self.model, to_float(frames[i, 0]), to_float(poses[i, :count]))
            return now(self.device) - start

        generate(3)  # to warm up
        return NUM_VIDEOS * (length - 1) / generate(length)


def measure(name: str, started: float, flags: list[str]) -> dict[str, float]:
    """The samples of one side, by `tools.benchmark.Row.key`; `started` is when the process was launched."""
    side, results = Side(name, configuration.trainer_args(flags)), {}
    calls = CALLS[side.device.type]
    for teacher_forcing, kind in ((False, "free"), (True, "forced")):
        side.steps(teacher_forcing, WARM_UP_STEPS)
        results.setdefault("start", time.time() - started)
        results[f"step_{kind}"] = side.steps(teacher_forcing, calls)
        results.setdefault("memory", side.memory())
    results |= {"epoch": side.epoch(), "render": side.render()}
    small = Side(name, configuration.trainer_args([*flags, *COUNT_FLAGS.split()]))
    for teacher_forcing, kind in ((False, "free"), (True, "forced")):
        small.steps(teacher_forcing, 1)  # creates the optimizer's state
        results[f"operators_{kind}"] = count_operators(lambda forced=teacher_forcing: small.steps(forced, 1))
    return results


def main(argv: list[str] | None = None) -> None:
    """Measure, and print."""
    name, started, *flags = sys.argv[1:] if argv is None else argv
    print(json.dumps(measure(name, float(started), flags)))


if __name__ == "__main__":
    cli.run(main)
