"""The two sides of the comparison: the same measurements of ours and of the plain reference."""

import gc
import shutil
import time
from abc import ABC, abstractmethod
from argparse import Namespace
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from dataloader import DeviceClips, TrainingClips
from engine import options
from engine.device import autocast, keep_pages, select_device
from engine.step import TrainingStep, make_optimizer
from frame_cache import CACHE_FOLDER
from modules import VAE_Model
from tools import plain_reference
from tools.benchmarking.measure import (
    count_operators,
    installed_memory,
    matrix_ceiling,
    mean_seconds,
    model_flops,
    peak_rss,
    random_clips,
    seconds_to_first_step,
)

# Steps before one is measured: the first ones fault memory in and choose algorithms.
WARM_UP_STEPS = 3
# On CUDA ours makes some plain steps and then records a graph.
WARM_UP_STEPS_TO_GRAPH = 6
# Frames of a video before one is measured: enough that each network has been called.
WARM_UP_FRAMES = 3
# Operators are counted on clips as the lab's, of small pictures: their size changes no count. In fp32, as the
# reference computes: bf16 adds a cast of each weight.
COUNTED = {"batch_size": 2, "train_vi_len": 16, "frame_H": 8, "frame_W": 16, "precision": "fp32"}
# Of the machine's memory, for one side on the CPU: the other holds its own at the same time.
MEMORY_SHARE = 0.5

Batch = tuple[Tensor, ...]
# A step by a batch, teacher-forced or not, and what waits for all steps so far.
Trainer = tuple[Callable[[Batch, bool], None], Callable[[], object]]


class Worker(ABC):
    """One side: each public method is a measurement, and has the same name on the other side.

    Args:
        argv: flags of Trainer.py.
        least_seconds: the least time over which a step is measured.
    """

    script: str  # what a user starts

    def __init__(self, argv: list[str], least_seconds: float):
        self.argv, self.least_seconds = argv, least_seconds
        self.args = self.flags()
        self.device = select_device(self.args)
        self._key, self._kept = None, None

    @abstractmethod
    def trainer(self, args: Namespace, device: torch.device) -> Trainer:
        """What trains a new model."""

    @abstractmethod
    def epoch(self, cold: bool) -> float:
        """Clips a second over an epoch, data included: a first one from undecoded files, or a later one."""

    @abstractmethod
    def render(self, sequences: int, length: int) -> float:
        """Frames a second of so many sequences of so many frames, the first ones given."""

    def warm_up_steps(self) -> int:
        """Steps before one is measured."""
        return WARM_UP_STEPS

    def flags(self, **changes) -> Namespace:
        """The worker's flags, but for `changes`."""
        changed = [f"--{name}={value}" for name, value in changes.items()]
        return options.resolve(options.trainer_parser(), [*self.argv, *changed])

    def kept(self, key: Hashable, make: Callable[[], object]):
        """What `make` returned when it was last called, if that was with the same key."""
        if self._key != key:
            self.forget()
            self._kept, self._key = make(), key
        return self._kept

    def forget(self) -> None:
        """Free what the last row needed."""
        self._key, self._kept = None, None
        if self.device.type == "cuda":
            gc.collect()  # a training step refers to itself, and holds its graph's memory
            torch.cuda.empty_cache()

    def step(self, teacher_forcing: bool, **changes) -> float:
        """Seconds of a training step, data excluded."""
        key = ("step", teacher_forcing, *changes.items())
        work, finish = self.kept(key, lambda: self._warm_step(teacher_forcing, self.flags(**changes)))
        return mean_seconds(work, finish, self.least_seconds)

    def _warm_step(self, teacher_forcing: bool, args: Namespace) -> tuple[Callable, Callable]:
        step, finish = self.trainer(args, self.device)
        clips = random_clips(args, self.device)
        for _ in range(self.warm_up_steps()):
            step(clips, teacher_forcing)
        finish()
        return (lambda: step(clips, teacher_forcing)), finish

    def clips_per_second(self, **changes) -> float:
        """Clips a second in free-running steps, data excluded."""
        try:
            return self.flags(**changes).batch_size / self.step(False, **changes)
        finally:
            if self.device.type == "cuda":  # of whose memory the other side may want all
                self.forget()

    def sweep(self, sizes: tuple[int, ...], **changes) -> dict[int, float]:
        """Clips a second by batch size, up to where the memory ends, in a process that did nothing else.

        On the CPU each size is at most twice the one before.
        """
        rates = {}
        for size in sizes:
            # The system kills a process that takes too much, and twice the clips may take twice as much.
            if rates and self.device.type == "cpu" and 2 * peak_rss() > MEMORY_SHARE * installed_memory():
                break
            try:
                rates[size] = self.clips_per_second(batch_size=size, **changes)
            except torch.OutOfMemoryError:
                break
        return rates

    def peak_memory(self) -> float:
        """The most memory that training has held, in MiB; only a process that did nothing else can tell."""
        work, finish = self._warm_step(False, self.args)
        for _ in range(2):
            work()
        finish()
        on_cuda = self.device.type == "cuda"
        return (torch.cuda.max_memory_allocated() if on_cuda else peak_rss()) / 2**20

    def operators(self, teacher_forcing: bool) -> int:
        """Operators dispatched in a training step on the CPU."""
        args, cpu = self.flags(**COUNTED), torch.device("cpu")
        step, _ = self.trainer(args, cpu)
        clips = random_clips(args, cpu)
        step(clips, teacher_forcing)  # the optimizer makes its state
        return count_operators(lambda: step(clips, teacher_forcing))

    def launch(self) -> float:
        """Seconds from a script's launch to its first training step, caches warm."""
        return seconds_to_first_step(self.script, self.argv)


class Product(Worker):
    """Ours, as Trainer.py and Tester.py use it."""

    script = "Trainer.py"

    def __init__(self, argv: list[str], least_seconds: float):
        keep_pages()
        super().__init__(argv, least_seconds)

    def warm_up_steps(self) -> int:
        return WARM_UP_STEPS_TO_GRAPH if self.device.type == "cuda" else WARM_UP_STEPS

    def trainer(self, args: Namespace, device: torch.device, decode=None) -> Trainer:
        model = self._model(args, device).train()
        update = TrainingStep(model, make_optimizer(model, args), args, decode)

        def step(batch: Batch, teacher_forcing: bool) -> None:
            update(batch, lr=args.lr, beta=1.0, teacher_forcing=teacher_forcing)

        return step, update.read

    def _model(self, args: Namespace, device: torch.device) -> VAE_Model:
        return VAE_Model(args).to(device, memory_format=torch.channels_last)

    def epoch(self, cold: bool) -> float:
        if not cold:
            later_epoch, _ = self.kept("epoch", self._first_epoch)
            return later_epoch(time.perf_counter())
        self.forget()
        shutil.rmtree(self.args.DR / CACHE_FOLDER, ignore_errors=True)
        return self._first_epoch()[1]

    def _first_epoch(self) -> tuple[Callable[[float], float], float]:
        """What makes a later epoch, and the clips a second of the first, from opening the data on."""
        began = time.perf_counter()
        clips = TrainingClips(self.args)
        here = DeviceClips(clips, self.device)
        step, finish = self.trainer(self.args, self.device, here.decode)
        batches = clips.rows(0)

        def epoch(began: float) -> float:
            for rows in batches:
                step(here.send(rows), False)
            finish()
            return sum(map(len, batches)) / (time.perf_counter() - began)

        return epoch, epoch(began)

    def render(self, sequences: int, length: int) -> float:
        model = self.kept("render", lambda: self._model(self.args, self.device))
        first, poses = random_videos(self.args, sequences, length)
        with autocast(self.args.precision, self.device):
            model.generate(first.to(self.device), poses[:, :WARM_UP_FRAMES])
            began = time.perf_counter()
            model.generate(first.to(self.device), poses)
        return sequences * (length - 1) / (time.perf_counter() - began)

    def launch(self) -> float:
        self.kept("launch", super().launch)  # decodes the validation video
        return super().launch()

    def flops_per_clip(self) -> int:
        """Floating-point operations of the networks in a free-running step, forward and backward."""
        args = self.flags(batch_size=1)
        with torch.device("meta"):  # shapes alone tell
            return model_flops(VAE_Model(args), *random_clips(args, "meta"), False)

    def ceiling(self) -> tuple[float, str]:
        """FLOP/s of the device's best matrix products in the precision of the steps, and which that is."""
        with autocast(self.args.precision, self.device):
            low = torch.is_autocast_enabled(self.device.type)
        dtype = torch.bfloat16 if low else torch.float32
        return matrix_ceiling(self.device, dtype, self.least_seconds), "bf16" if low else "fp32"


class Reference(Worker):
    """The plain reference, tools/plain_reference.py."""

    script = "tools/plain_reference.py"

    def trainer(self, args: Namespace, device: torch.device) -> Trainer:
        model = VAE_Model(args).to(device).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)

        def step(batch: Batch, teacher_forcing: bool) -> None:
            plain_reference.training_step(model, optimizer, *batch, 1.0, teacher_forcing)

        return step, lambda: None  # each step has read its loss, and so has waited

    def epoch(self, cold: bool) -> float:
        del cold  # each epoch decodes anew
        step = self.kept("epoch", self._warm_epoch)
        clips, began = 0, time.perf_counter()
        for frames, poses in plain_reference.clip_loader(self.args):
            step((frames.to(self.device), poses.to(self.device)), False)
            clips += len(frames)
        return clips / (time.perf_counter() - began)

    def _warm_epoch(self) -> Callable[[Batch, bool], None]:
        step, _ = self.trainer(self.args, self.device)
        step(random_clips(self.args, self.device), False)
        return step

    def render(self, sequences: int, length: int) -> float:
        model = self.kept("render", lambda: VAE_Model(self.args).to(self.device).eval())
        first, poses = random_videos(self.args, sequences, length)
        plain_reference.render(model, first[0], poses[0, :WARM_UP_FRAMES])
        began = time.perf_counter()
        for i in range(sequences):
            plain_reference.render(model, first[i], poses[i])
        return sequences * (length - 1) / (time.perf_counter() - began)


def random_videos(args: Namespace, sequences: int, length: int) -> tuple[Tensor, Tensor]:
    """First frames `(B, 3, H, W)` and poses `(B, T, 3, H, W)`, on the CPU."""
    size = 3, args.frame_H, args.frame_W
    return torch.rand(sequences, *size), torch.rand(sequences, length, *size)
