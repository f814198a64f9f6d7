"""What changes from epoch to epoch: beta, the teacher-forcing ratio, the learning rate.

Each value is a function of the flags and of how far the run is, so a resumed run needs no state for them
(docs/contract.md, "Schedules").
"""

import math
import random

# With beta 0 the log variance of the posterior is free, and the loss became NaN in the course lab.
KL_ANNEAL_START = 0.01


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


class kl_annealing:
    """Weight of the KL term, one value for each epoch (cyclical: Fu et al. 2019, section 3).

    The paper gives the number of cycles in a run; here `kl_anneal_cycle` is the length of a cycle in epochs
    and `kl_anneal_ratio` the slope, so that beta reaches 1 after the fraction 1 / ratio of a cycle.

    Args:
        args: `kl_anneal_type, kl_anneal_cycle, kl_anneal_ratio, kl_anneal_start`.
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
        cycle = self.args.kl_anneal_cycle
        # Scripts of the course pass its own flags, which have no start.
        start = getattr(self.args, "kl_anneal_start", KL_ANNEAL_START)
        if self.args.kl_anneal_type == "NoKL_Annealing":
            return 1.0
        epoch = self.current_epoch
        if self.args.kl_anneal_type == "Cyclical":
            epoch %= cycle
        return min(1.0, max(start, epoch / cycle * self.args.kl_anneal_ratio))


def teacher_forcing_ratio(args, epoch: int) -> float:
    """Probability in [0, 1] that an epoch is teacher-forced (Williams and Zipser 1989).

    It is `tfr` before epoch `tfr_sde`. From that epoch on it falls by `tfr_d_step` in each epoch or, without
    a step, evenly to 0 in the last epoch.
    """
    if epoch < args.tfr_sde:
        return args.tfr
    decays = epoch - args.tfr_sde + 1
    if args.tfr_d_step is None:
        return max(0.0, args.tfr * (1 - decays / (args.num_epoch - args.tfr_sde)))
    return max(0.0, args.tfr - decays * args.tfr_d_step)


def teacher_forcing_draw(args, epoch: int, ratio: float) -> bool:
    """Whether an epoch is teacher-forced: drawn with probability `ratio`, by seed and epoch."""
    return random.Random(f"{args.seed} {epoch}").random() < ratio


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
