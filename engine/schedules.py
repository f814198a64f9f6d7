"""What changes from epoch to epoch: beta, the teacher-forcing ratio, the learning rate.

Each value is a function of the flags and of the epoch alone, so a resumed run needs no state of them.
"""

import math
import random


class kl_annealing:
    """Weight of the KL term, one value an epoch (cyclical: Fu et al. 2019, section 3).

    The paper counts cycles in a run; here `kl_anneal_cycle` is a cycle's length in epochs and
    `kl_anneal_ratio` the slope, so that beta reaches 1 after the fraction 1 / ratio of a cycle.

    Args:
        args: `kl_anneal_type, kl_anneal_cycle, kl_anneal_ratio, kl_anneal_start`.
        current_epoch: the epoch to begin with.
    """

    def __init__(self, args, current_epoch: int = 0):
        self.args = args
        self.current_epoch = current_epoch

    def update(self) -> None:
        """Go on to the next epoch."""
        self.current_epoch += 1

    def get_beta(self) -> float:
        """beta of the current epoch, in [0, 1]."""
        cycle = self.args.kl_anneal_cycle
        # Students' scripts pass the lab's flags, which have no start.
        start = getattr(self.args, "kl_anneal_start", 0.01)
        if self.args.kl_anneal_type == "NoKL_Annealing":
            return 1.0
        epoch = self.current_epoch
        if self.args.kl_anneal_type == "Cyclical":
            epoch %= cycle
        return min(1.0, max(start, epoch / cycle * self.args.kl_anneal_ratio))


def teacher_forcing_ratio(args, epoch: int) -> float:
    """Probability in [0, 1] that an epoch is teacher-forced (Williams and Zipser 1989).

    `tfr` before epoch `tfr_sde`; from that epoch on less by `tfr_d_step` in each, or, without a
    step, evenly down to 0 in the last epoch.
    """
    if epoch < args.tfr_sde:
        return args.tfr
    decays = epoch - args.tfr_sde + 1
    if args.tfr_d_step is None:
        return max(0.0, args.tfr * (1 - decays / (args.num_epoch - args.tfr_sde)))
    return max(0.0, args.tfr - decays * args.tfr_d_step)


def teacher_forcing_draw(args, epoch: int) -> bool:
    """Whether an epoch is teacher-forced: drawn from the ratio, once an epoch, by seed and epoch."""
    return random.Random(f"{args.seed} {epoch}").random() < teacher_forcing_ratio(args, epoch)


def learning_rate(args, progress: float, step: int) -> float:
    """Learning rate of one step.

    Args:
        progress: epochs done so far, with the fraction of the current one.
        step: updates tried so far in the whole run, for the warm-up.
    """
    warmup = min(1.0, (step + 1) / args.lr_warmup) if args.lr_warmup else 1.0
    if args.lr_schedule == "cosine":
        # Loshchilov and Hutter 2017, equation 5, without restarts; down to a hundredth.
        half_wave = 0.5 * (1 + math.cos(math.pi * min(1.0, progress / args.num_epoch)))
        factor = 0.01 + 0.99 * half_wave
    elif args.lr_schedule == "step":
        factor = 0.1 ** sum(progress >= milestone for milestone in (2, 5))
    else:
        factor = 1.0
    return args.lr * factor * warmup
