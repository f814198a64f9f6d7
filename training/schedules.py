"""What changes from epoch to epoch: beta, the teacher-forcing ratio, the learning rate.

Each value is a function of the flags and of how far the run is, so a resumed run needs no state for them
(docs/contract.md, "Schedules").
"""

import math
import random
from typing import NamedTuple

# With beta 0 the log variance of the posterior is free, and the loss became NaN in the course lab.
KL_ANNEAL_START = 0.01
# Where no flag says otherwise, as fractions of a run:
KL_CYCLES, KL_END = 4, 0.2  # number of cycles of KL annealing, and their end
TFR_END = 0.2  # teacher forcing has fallen to 0
GROWTH = (0.6, 0.9)  # clips begin to grow, and have grown


class Budget:
    """How long a run trains: `num_epoch` epochs, or, if it is given, `max_minutes` of training time.

    Args:
        args: `num_epoch, max_minutes`.
        seconds: training time of the epochs that are done.
    """

    def __init__(self, args, seconds: float = 0.0):
        self.epochs, self.minutes = args.num_epoch, args.max_minutes
        self.seconds = seconds

    def done(self, epoch: float) -> float:
        """Fraction in [0, 1] of the run that is done after `epoch` epochs."""
        part = epoch / self.epochs if self.minutes is None else self.seconds / (60 * self.minutes)
        return min(1.0, part)

    def spent(self, epoch: int) -> bool:
        """Whether training is over after `epoch` epochs."""
        return self.done(epoch) >= 1.0

    def schedule_epoch(self, epoch: int) -> int:
        """The epoch, for schedules over `num_epoch` epochs: scaled so that these take `max_minutes`."""
        return epoch if self.minutes is None else int(self.done(epoch) * self.epochs)

    def __str__(self) -> str:
        if self.minutes is None:
            return f"{self.epochs} epochs are done already; raise --num_epoch to continue"
        return f"{self.minutes:g} minutes of training are done already; raise --max_minutes to continue"


def kl_beta(args, epoch: int, done: float) -> float:
    """Weight of the KL term in an epoch, in [0, 1] (cyclical: Fu et al. 2019, section 3).

    The paper gives the number of cycles in a run; here `kl_anneal_cycle` is the length of a cycle in epochs
    and `kl_anneal_ratio` the slope, so that beta reaches 1 after the fraction 1 / ratio of a cycle. Without a
    length, `KL_CYCLES` cycles take the first part of the run, `KL_END`, and beta is 1 afterwards.

    Args:
        args: `kl_anneal_type, kl_anneal_cycle, kl_anneal_ratio, kl_anneal_start`.
        done: fraction in [0, 1] of the run that is done.
    """
    if args.kl_anneal_type == "NoKL_Annealing":
        return 1.0
    length, position = args.kl_anneal_cycle, epoch
    if length is None:
        if done >= KL_END:
            return 1.0
        length, position = KL_END / KL_CYCLES, done
    if args.kl_anneal_type == "Cyclical":
        position %= length
    # Scripts of the course pass its own flags, which have no start.
    start = getattr(args, "kl_anneal_start", KL_ANNEAL_START)
    return min(1.0, max(start, position / length * args.kl_anneal_ratio))


class kl_annealing:
    """`kl_beta` as an object that is advanced once an epoch, for the scripts of the course.

    Args:
        args: as in `kl_beta`, and `num_epoch` if there is no `kl_anneal_cycle`.
        current_epoch: the first epoch.
    """

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


def teacher_forcing_ratio(args, epoch: int, done: float) -> float:
    """Probability in [0, 1] that an epoch is teacher-forced (Williams and Zipser 1989).

    It is `tfr` before epoch `tfr_sde`. From that epoch on it falls by `tfr_d_step` in each epoch or, without
    a step, evenly to 0 in the last epoch. Without `tfr_sde` it falls from the start of the run: by
    `tfr_d_step`, or evenly to 0 after the fraction `TFR_END` of the run.

    Args:
        done: fraction in [0, 1] of the run that is done.
    """
    if args.tfr_sde is None and args.tfr_d_step is None:
        return max(0.0, args.tfr * (1 - done / TFR_END))
    start = args.tfr_sde or 0
    if epoch < start:
        return args.tfr
    decays = epoch - start + 1
    if args.tfr_d_step is None:
        return max(0.0, args.tfr * (1 - decays / (args.num_epoch - start)))
    return max(0.0, args.tfr - decays * args.tfr_d_step)


def clip_length(args, done: float) -> int:
    """Frames of a training clip; the predicted ones double in stages, from `start_vi_len` to `train_vi_len`.

    Args:
        done: fraction in [0, 1] of the run that is done.
    """
    if args.start_vi_len >= args.train_vi_len:
        return args.train_vi_len
    doublings = math.ceil(math.log2((args.train_vi_len - 1) / (args.start_vi_len - 1)))
    stage = (
        0
        if done < GROWTH[0]
        else 1 + int((done - GROWTH[0]) / (GROWTH[1] - GROWTH[0]) * (doublings - 1) + 1e-9)
    )
    return min(args.train_vi_len, 1 + (args.start_vi_len - 1) * 2 ** min(stage, doublings))


def teacher_forcing_draw(args, epoch: int, ratio: float) -> bool:
    """Whether an epoch is teacher-forced: drawn with probability `ratio`, by seed and epoch."""
    return random.Random(f"{args.seed} {epoch}").random() < ratio


def fast_training(args, epoch: int) -> bool:
    """Whether an epoch uses only a part of the clips. The course lab's code does so for two epochs more."""
    extra = 2 if args.recipe == "lab" else 0
    return args.fast_train and epoch < args.fast_train_epoch + extra


def learning_rate(args, epoch: float, done: float, step: int) -> float:
    """Learning rate of one step.

    Args:
        epoch: epochs done so far, with the fraction of the current one.
        done: fraction in [0, 1] of the run that is done.
        step: number of updates so far in the whole run, for the warm-up.
    """
    warmup = min(1.0, (step + 1) / args.lr_warmup) if args.lr_warmup else 1.0
    if args.lr_schedule == "cosine":
        # Loshchilov and Hutter 2017, equation 5, without restarts; down to a hundredth.
        factor = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
    elif args.lr_schedule == "step":
        factor = 0.1 ** sum(epoch >= milestone for milestone in (2, 5))
    else:
        factor = 1.0
    return args.lr * factor * warmup


class EpochPlan(NamedTuple):
    """What is decided for an epoch before it begins.

    Attributes:
        epoch: its number.
        beta: weight of the KL term.
        tfr: probability of teacher forcing.
        teacher_forcing: whether the epoch is teacher-forced.
        clip_length: frames of a clip.
        clips: clips of a step, for each process.
    """

    epoch: int
    beta: float
    tfr: float
    teacher_forcing: bool
    clip_length: int
    clips: int


def epoch_plan(args, budget: Budget, epoch: int) -> EpochPlan:
    """The plan of an epoch, by the flags and by how far the run is.

    A step has `batch_size` clips of `train_vi_len` frames, or a multiple of that of shorter ones, so that the
    number of its frames, and with it memory and time, stay about the same.
    """
    done = budget.done(epoch)
    tfr = teacher_forcing_ratio(args, budget.schedule_epoch(epoch), done)
    length = clip_length(args, done)
    clips = args.batch_size * max(1, round(args.train_vi_len / length))
    forced = teacher_forcing_draw(args, epoch, tfr)
    return EpochPlan(epoch, kl_beta(args, epoch, done), tfr, forced, length, clips)
