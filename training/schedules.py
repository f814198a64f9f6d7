"""Schedules of a run: beta, teacher forcing, clip length and learning rate.

Each is a pure function of the flags and of the progress of the run in [0, 1], so a resumed run needs no state
for them (docs/compatibility.md, "Schedules").
"""

import math
import random
from typing import NamedTuple

# With beta 0 the log variance of the posterior is unbounded, and the course's loss became NaN.
KL_ANNEAL_START = 0.01
# Defaults, as fractions of a run:
KL_CYCLES, KL_END = 4, 0.2  # number of cycles of KL annealing, and their end
TFR_END = 0.2  # end of teacher forcing
GROWTH = (0.6, 0.9)  # clips start to grow, and reach their full length


class Budget:
    """How long a run trains: `num_epoch` epochs, or `max_minutes` of training time if that is given.

    `seconds` is the training time so far.
    """

    def __init__(self, args, seconds: float = 0.0):
        self.epochs, self.minutes = args.num_epoch, args.max_minutes
        self.seconds = seconds

    def progress(self, epoch: float) -> float:
        """Progress of the run in [0, 1] after `epoch` epochs."""
        part = epoch / self.epochs if self.minutes is None else self.seconds / (60 * self.minutes)
        return min(1.0, part)

    def is_finished(self, epoch: float) -> bool:
        """Whether training ends after `epoch` epochs."""
        return self.progress(epoch) >= 1.0

    def schedule_epoch(self, epoch: int) -> int:
        """The epoch for schedules over `num_epoch` epochs, which span `max_minutes` if that is given."""
        return epoch if self.minutes is None else int(self.progress(epoch) * self.epochs)

    def finished_message(self) -> str:
        """Why there is nothing left to train."""
        if self.minutes is None:
            return f"{self.epochs} epochs are done already; raise --num_epoch to continue"
        return f"{self.minutes:g} minutes of training are done already; raise --max_minutes to continue"


def kl_beta(args, epoch: int, progress: float) -> float:
    """Weight of the KL term in an epoch, in [0, 1] (cyclical: Fu et al. 2019, section 3).

    `kl_anneal_cycle` is the length of a cycle in epochs (the paper gives the number of cycles), and
    `kl_anneal_ratio` the slope: beta reaches 1 after 1 / ratio of a cycle. Without a length, `KL_CYCLES`
    cycles span the progress up to `KL_END`, and beta is 1 afterwards.
    """
    if args.kl_anneal_type == "NoKL_Annealing":
        return 1.0
    length, position = args.kl_anneal_cycle, epoch
    if length is None:
        if progress >= KL_END:
            return 1.0
        length, position = KL_END / KL_CYCLES, progress
    if args.kl_anneal_type == "Cyclical":
        position %= length
    # Scripts of the course pass its own flags, without a start.
    start = getattr(args, "kl_anneal_start", KL_ANNEAL_START)
    return min(1.0, max(start, position / length * args.kl_anneal_ratio))


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


def teacher_forcing_ratio(args, epoch: int, progress: float) -> float:
    """Probability in [0, 1] that an epoch is teacher-forced (Williams and Zipser 1989).

    From epoch `tfr_sde` on, `tfr` falls by `tfr_d_step` per epoch, or linearly to 0 in the last one. Without
    `tfr_sde` it falls from the start: by `tfr_d_step`, or linearly to 0 at the progress `TFR_END`.
    """
    if args.tfr_sde is None and args.tfr_d_step is None:
        return max(0.0, args.tfr * (1 - progress / TFR_END))
    start = args.tfr_sde or 0
    if epoch < start:
        return args.tfr
    decays = epoch - start + 1
    if args.tfr_d_step is None:
        return max(0.0, args.tfr * (1 - decays / (args.num_epoch - start)))
    return max(0.0, args.tfr - decays * args.tfr_d_step)


def clip_length(args, progress: float) -> int:
    """Frames per training clip: predicted frames double in stages, from `start_vi_len` to `train_vi_len`."""
    if args.start_vi_len >= args.train_vi_len:
        return args.train_vi_len
    doublings = math.ceil(math.log2((args.train_vi_len - 1) / (args.start_vi_len - 1)))
    stage = (
        0
        if progress < GROWTH[0]
        else 1 + int((progress - GROWTH[0]) / (GROWTH[1] - GROWTH[0]) * (doublings - 1) + 1e-9)
    )
    return min(args.train_vi_len, 1 + (args.start_vi_len - 1) * 2 ** min(stage, doublings))


def teacher_forcing_draw(args, epoch: int, ratio: float) -> bool:
    """Whether an epoch is teacher-forced: drawn with probability `ratio`, from seed and epoch."""
    return random.Random(f"{args.seed} {epoch}").random() < ratio


def clip_fraction(args, epoch: int) -> float:
    """Fraction of the clips to use in an epoch. The course's `--fast_train` lasts two epochs longer."""
    extra = 2 if args.recipe == "lab" else 0
    return args.fast_partial if args.fast_train and epoch < args.fast_train_epoch + extra else 1.0


def learning_rate(args, epoch: float, progress: float, step: int) -> float:
    """Learning rate of one step.

    `epoch` includes the fraction of the current one; `step` is the number of updates so far.
    """
    warmup = min(1.0, (step + 1) / args.lr_warmup) if args.lr_warmup else 1.0
    if args.lr_schedule == "cosine":
        # Loshchilov and Hutter 2017, equation 5, without restarts; down to a hundredth.
        factor = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))
    elif args.lr_schedule == "step":
        factor = 0.1 ** sum(epoch >= milestone for milestone in (2, 5))
    else:
        factor = 1.0
    return args.lr * factor * warmup


class EpochPlan(NamedTuple):
    """The values of the schedules in an epoch."""

    epoch: int
    beta: float  # weight of the KL term
    tfr: float  # probability of teacher forcing
    teacher_forcing: bool
    clip_length: int  # frames per clip
    batch_size: int  # clips per step, of each rank
    clip_fraction: float  # fraction of the clips to use


def epoch_plan(args, budget: Budget, epoch: int) -> EpochPlan:
    """The plan of an epoch, from the flags and the progress of the run.

    A step has `batch_size` clips of `train_vi_len` frames, or more of shorter ones, so that its number of
    frames, and with it memory and time, stays about the same.
    """
    progress = budget.progress(epoch)
    tfr = teacher_forcing_ratio(args, budget.schedule_epoch(epoch), progress)
    length = clip_length(args, progress)
    return EpochPlan(
        epoch=epoch,
        beta=kl_beta(args, epoch, progress),
        tfr=tfr,
        teacher_forcing=teacher_forcing_draw(args, epoch, tfr),
        clip_length=length,
        batch_size=args.batch_size * max(1, round(args.train_vi_len / length)),
        clip_fraction=clip_fraction(args, epoch),
    )
