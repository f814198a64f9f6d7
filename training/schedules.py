"""Schedules of a run: beta, teacher forcing, clip length and learning rate, evaluated at each step.

They are pure functions of the flags and of the place in the run, so a resumed run needs no state for them
(docs/compatibility.md, "Schedules").
"""

import functools
import math
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

# With beta 0 at the start the log variance of the posterior is unbounded, and the course's loss became NaN.
FIRST_BETA = 0.01
# Defaults, as fractions of a run:
KL_CYCLES, KL_END = 4, 0.2  # number of cycles of KL annealing, and their end
TFR_END = 0.2  # end of teacher forcing
# Clips start to grow, and reach `train_vi_len` early enough for a tenth of a short run's frames.
GROWTH = (0.6, 0.86)
MIN_CYCLE_STEPS = 4  # fewer do not show a cycle of beta
MIN_PASS = 0.9  # part of an epoch's frames; if the clips have fewer, they come more than once
MIN_STEPS = 40  # of a run that has every phase
PLAN_STEPS = 1000  # more are not planned one by one
ROUNDING = 1e-9  # 0.15 / 0.05 is less than 3


class Budget:
    """How long a run trains: `num_epoch` epochs, or `max_minutes` of training time if that is given.

    A position in the run is in epochs, with a fraction.

    Args:
        make_batches: makes the first epoch's batches, see `epoch_steps`.
        seconds: training time so far.

    Attributes:
        steps_per_epoch, frames_per_epoch: of the first epoch, as long as its clips do not grow.
        num_steps: about the number of steps of the run; None with `max_minutes`.
    """

    def __init__(self, args, make_batches: Callable, seconds: float = 0.0):
        self.epochs, self.minutes, self.seconds = args.num_epoch, args.max_minutes, seconds
        length = min(args.start_vi_len, args.train_vi_len)
        batches = make_batches(length, batch_size(args, length), clip_fraction(args, 0))
        self.steps_per_epoch = len(batches)
        self.frames_per_epoch = len(batches) * length * batch_size(args, length)
        self.num_steps = self.epochs * self.steps_per_epoch if self.minutes is None else None

    def progress(self, position: float) -> float:
        """Progress of the run in [0, 1] at a position."""
        part = position / self.epochs if self.minutes is None else self.seconds / (60 * self.minutes)
        return min(1.0, part)

    def is_finished(self, position: float) -> bool:
        """Whether training ends at a position."""
        return self.progress(position) >= 1.0

    def finished_message(self) -> str:
        """Why there is nothing left to train."""
        if self.minutes is None:
            return f"already trained for {self.epochs} epochs; raise --num_epoch to continue"
        return f"already trained for {self.minutes:g} minutes; raise --max_minutes to continue"


def kl_beta(args, epoch: float, progress: float, num_steps: int | None = None) -> float:
    """Weight of the KL term, in [0, 1] (cyclical: Fu et al. 2019, section 3).

    `kl_anneal_cycle` is the length of a cycle in epochs (the paper gives the number of cycles), and
    `kl_anneal_ratio` the slope: beta reaches 1 after 1 / ratio of a cycle. Without a length, the progress up
    to `KL_END` has `KL_CYCLES` cycles, or fewer in a run of few steps, and beta is 1 afterwards.
    """
    if args.kl_anneal_type not in ("Cyclical", "Monotonic"):
        return 1.0
    is_cyclical = args.kl_anneal_type == "Cyclical"
    if args.kl_anneal_cycle is not None:
        cycles = epoch / args.kl_anneal_cycle
    else:
        count = KL_CYCLES if num_steps is None else int(KL_END * num_steps / MIN_CYCLE_STEPS + ROUNDING)
        count = max(1, min(KL_CYCLES, count)) if is_cyclical else 1
        cycles = progress / KL_END * count
        if cycles >= count - ROUNDING:
            return 1.0
    if is_cyclical:
        cycles = max(0.0, cycles - math.floor(cycles + ROUNDING))
    # Scripts of the course pass its own flags, without a minimum.
    minimum = max(getattr(args, "kl_anneal_start", 0.0), FIRST_BETA if epoch == 0 else 0.0)
    return min(1.0, max(minimum, cycles * args.kl_anneal_ratio))


class kl_annealing:
    """`kl_beta` as an object that is advanced once per epoch, for scripts of the course."""

    def __init__(self, args, current_epoch: int = 0):
        self.args = args
        self.current_epoch = current_epoch

    def update(self) -> None:
        """Advance to the next epoch."""
        self.current_epoch += 1

    def get_beta(self) -> float:
        """beta of the current epoch, in [0, 1]."""
        epochs = getattr(self.args, "num_epoch", None)
        return kl_beta(self.args, self.current_epoch, self.current_epoch / epochs if epochs else 0.0)


def teacher_forcing_ratio(args, epoch: float, progress: float) -> float:
    """Probability in [0, 1] of teacher forcing (Williams and Zipser 1989).

    From epoch `tfr_sde` on, `tfr` falls by `tfr_d_step` per epoch, or linearly to 0 in the last one. Without
    `tfr_sde` it falls from the start: by `tfr_d_step`, or linearly to 0 at the progress `TFR_END`.

    Args:
        epoch: the position in epochs.
    """
    if args.tfr_sde is None and args.tfr_d_step is None:
        left = 1 - progress / TFR_END
        return args.tfr * left if left > ROUNDING else 0.0
    start = args.tfr_sde or 0
    if epoch < start:
        return args.tfr
    decays = epoch - start + 1
    if args.tfr_d_step is None:
        # With max_minutes the last epoch is not known.
        part = decays / (args.num_epoch - start) if args.max_minutes is None else progress
        return max(0.0, args.tfr * (1 - part))
    return max(0.0, args.tfr - decays * args.tfr_d_step)


def teacher_forcing_draw(seed: int, *key: int) -> float:
    """A number in [0, 1); teacher forcing is on if it is below the ratio."""
    return random.Random(" ".join(map(str, (seed, *key)))).random()


def clip_length(args, progress: float) -> int:
    """Frames per training clip: predicted frames double in stages, from `start_vi_len` to `train_vi_len`."""
    if args.start_vi_len >= args.train_vi_len:
        return args.train_vi_len
    doublings = math.ceil(math.log2((args.train_vi_len - 1) / (args.start_vi_len - 1)))
    starts = np.linspace(*reversed(GROWTH), doublings)
    stage = int((progress >= starts - ROUNDING).sum())
    return min(args.train_vi_len, 1 + (args.start_vi_len - 1) * 2**stage)


def batch_size(args, length: int) -> int:
    """Clips of `length` frames per step, of each rank.

    A step has `batch_size` clips of `train_vi_len` frames, or more shorter clips: the frames per step, and
    with them memory and time, stay about the same.
    """
    return args.batch_size * max(1, round(args.train_vi_len / length))


def clip_fraction(args, epoch: float) -> float:
    """Fraction of the clips to use in an epoch. The course's `--fast_train` lasts two epochs longer."""
    extra = 2 if args.recipe == "lab" else 0
    return args.fast_partial if args.fast_train and epoch < args.fast_train_epoch + extra else 1.0


def learning_rate(args, epoch: float, progress: float, step: int) -> float:
    """Learning rate of the step after `step` updates."""
    warmup = min(1.0, (step + 1) / args.lr_warmup) if args.lr_warmup else 1.0
    if args.lr_schedule == "cosine":
        # Loshchilov and Hutter 2017, equation 5, without restarts; down to a hundredth.
        factor = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
    elif args.lr_schedule == "step":
        factor = 0.1 ** sum(epoch >= milestone for milestone in (2, 5))
    else:
        factor = 1.0
    return args.lr * factor * warmup


class Step(NamedTuple):
    """The values of the schedules in a step, and its clips."""

    beta: float  # weight of the KL term
    tfr: float  # probability of teacher forcing
    teacher_forcing: bool
    clip_length: int  # frames per clip
    lr: float
    clips: np.ndarray  # `(B, T)`, as in `ClipDataset.batches`
    num_left: int  # steps of the epoch that are left, with this one


def epoch_steps(args, budget: Budget, epoch: int, updates: int, make_batches: Callable) -> Iterator[Step]:
    """Yield an epoch's steps, about one pass over the frames; stops early when the time budget runs out.

    If clips grow within an epoch, it continues at the same position, with clips of the new length. Short
    shots have few long clips; these repeat until the epoch has its number of frames.

    Args:
        updates: number of updates before the epoch.
        make_batches: `(clip length, batch size, fraction of the clips)` -> batches of the epoch, `(B, T)`.
    """
    make_batches, position, index = functools.cache(make_batches), Fraction(epoch), 0
    while position < epoch + 1 and not (index and budget.is_finished(position)):
        step, num_steps = _step_at(args, budget, position, index, updates + index, make_batches)
        yield step
        position, index = position + Fraction(1, num_steps), index + 1


def _step_at(
    args, budget: Budget, position: Fraction, index: int, updates: int, make_batches: Callable
) -> tuple[Step, int]:
    """Step `index` of an epoch, and the number of such steps in an epoch.

    In the lab recipe, as in the course, an epoch has one beta and one draw of teacher forcing.
    """
    epoch, progress = int(position), budget.progress(float(position))
    is_by_epoch = args.recipe == "lab"
    schedule_epoch = epoch if is_by_epoch else float(position)
    draw_key = (epoch,) if is_by_epoch else (epoch, index)
    tfr = teacher_forcing_ratio(args, schedule_epoch, progress)
    length = clip_length(args, progress)
    size = batch_size(args, length)
    batches = make_batches(length, size, clip_fraction(args, epoch))
    num_steps = round(budget.frames_per_epoch / (size * length))  # the same on all ranks
    if len(batches) > MIN_PASS * num_steps:
        num_steps = len(batches)
    step = Step(
        beta=kl_beta(args, schedule_epoch, progress, budget.num_steps),
        tfr=tfr,
        teacher_forcing=teacher_forcing_draw(args.seed, *draw_key) < tfr,
        clip_length=length,
        lr=learning_rate(args, schedule_epoch, progress, updates),
        clips=batches[int((position - epoch) * num_steps) % len(batches)],
        num_left=math.ceil((epoch + 1 - position) * num_steps),
    )
    return step, num_steps


def planned_steps(args, make_batches: Callable) -> list[Step]:
    """Preview of a run: up to `PLAN_STEPS` evenly spaced steps, with clips of the first epoch."""
    make_batches = functools.cache(make_batches)
    budget = Budget(args, make_batches)
    count, steps = min(PLAN_STEPS, budget.num_steps or PLAN_STEPS), []
    for index in range(count):
        progress = Fraction(index, count)
        budget.seconds = 60 * (budget.minutes or 0) * float(progress)
        steps.append(_step_at(args, budget, progress * budget.epochs, index, index, make_batches)[0])
    return steps


def epoch_record(steps: list[Step]) -> dict:
    """The schedule fields of an epoch's record."""
    lengths, betas = [step.clip_length for step in steps], [step.beta for step in steps]
    return {
        "beta_min": min(betas),
        "beta_max": max(betas),
        "tfr": steps[-1].tfr,
        "teacher_forcing": sum(step.teacher_forcing for step in steps) / len(steps),
        "clip_length_min": min(lengths),
        "clip_length_max": max(lengths),
        "lr": steps[-1].lr,
    }
