"""What a run prints of itself: what it is, before it begins, and the titles of its progress bars."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from runtime.device import resolved_precision
from runtime.distributed import world_size
from runtime.threads import Threads, cores
from training.presets import LONG_RUN, by_minutes, by_size
from training.schedules import (
    KL_CYCLES,
    KL_END,
    TFR_END,
    Budget,
    EpochPlan,
    clip_length,
    epoch_plan,
    fast_training,
)

KL_SCALES = {
    "sum": "on the sum over z",
    "mean": "on the mean over z",
    "elbo": "on the ELBO's scale",
}


def run_summary(args, model: nn.Module, device: torch.device, clips, threads: Threads | None = None) -> str:
    """What the budget decided, the model and how it is trained, the schedules, and what cannot be done.

    Args:
        args: all flags of the run.
        clips: the `TrainingClips`.
        threads: of the run; not told if there is one for each core.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    first, last = clip_length(args, 0.0), clip_length(args, 1.0)
    plan = epoch_plan(args, Budget(args), 0)
    batches = clips.batches(0, 0, world_size(), first, plan.clips)
    precision = resolved_precision(args.precision, device)
    fast = " while --fast_train lasts" if fast_training(args, 0) else ""
    zeros = f"; z = 0 in {args.z_dropout:.0%} of clips" if args.z_dropout else ""
    course = "" if args.recipe == "lab" else "; course protocol: --recipe lab"
    every = "epoch" if args.per_val == 1 else f"{args.per_val} epochs"
    step = f"{_span(plan.clips, args.batch_size)} a step, {len(batches)} steps an epoch{fast}"
    on_cores = device.type == "cpu" and threads is not None and torch.get_num_threads() != cores()
    place = f"{device} with {threads}" if on_cores else device
    lines = [
        f"{args.arch}, {parameters:,} parameters, {args.optim}, {precision} on {place}; clips of "
        f"{_span(first, last)} frames, {step}; "
        f"validation every {every}; results in {args.save_root}",
        f"teacher forcing {_teacher_forcing(args)}; KL {_annealing(args)}{zeros}{course}",
    ]
    longest = clips.batches(0, 0, world_size(), last)
    small = dict.fromkeys((_small_batch(batches[0], plan.clips), _small_batch(longest[0], args.batch_size)))
    notes = *filter(None, small), *idle_schedules(args), *_missing_backgrounds(args, clips.backgrounds)
    return "\n".join([*_decided_by_presets(args), *lines, *notes])


def _decided_by_presets(args) -> list[str]:
    reasons = {
        "as for all frames of this size": by_size(args.arch, args.frame_H * args.frame_W),
        f"as in all runs of {LONG_RUN} minutes or more": by_minutes(args.arch, args.max_minutes),
    }
    lines = []
    for reason, preset in reasons.items():
        flags = [f"--{name} {value}" for name, value in preset.items() if getattr(args, name) == value]
        lines += [f"{reason}: {' '.join(flags)}"] if flags else []
    return lines


def _small_batch(batch: np.ndarray, wanted: int) -> str | None:
    if len(batch) == wanted:
        return None
    return f"clips of {batch.shape[1]} frames: {len(batch)} a step instead of {wanted}, the data have no more"


def _missing_backgrounds(args, backgrounds: np.ndarray | None) -> list[str]:
    if backgrounds is None or not (missing := sum(not picture[..., 3].any() for picture in backgrounds)):
        return []
    return [f"--augment {args.augment}: {missing} of {len(backgrounds)} shots have no steady background"]


def _span(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first} to {last}"


def idle_schedules(args) -> list[str]:
    """A line for each schedule of which a run in epochs shows nothing, because it would act after its end."""
    if args.max_minutes is not None:
        return []
    lines, epochs = [], args.num_epoch
    cycle = args.kl_anneal_cycle
    if args.kl_anneal_type != "NoKL_Annealing" and cycle is not None and cycle >= epochs:
        lines.append(f"--kl_anneal_cycle {cycle}: as long as the run, so Cyclical equals Monotonic")
    if args.tfr and args.tfr_sde is not None and args.tfr_sde >= epochs:
        lines.append(f"--tfr_sde {args.tfr_sde}: after the end of the run, so teacher forcing does not decay")
    return lines


def training_titles(plan: EpochPlan, lr: float) -> tuple[str, str, str]:
    """The description of an epoch's progress bar, from its longest form to the shortest."""
    switch = "ON" if plan.teacher_forcing else "OFF"
    epoch = f"Epoch {plan.epoch}, lr:{lr:.2e}"
    return (
        f"(train [TeacherForcing: {switch}, {plan.tfr:.1f}], beta: {plan.beta:.4g}) {epoch}",
        f"(train [TF: {switch}], beta: {plan.beta:.2g}) {epoch}",
        f"(train) Epoch {plan.epoch}",
    )


def training_postfix(args, plan: EpochPlan, sums: dict[str, float]) -> dict[str, object]:
    """What stands at the end of an epoch's progress bar: the frames of a clip if clips grow, and the loss."""
    loss = {"loss": sums["loss"] / max(1, sums["steps"])}
    return {"frames": plan.clip_length, **loss} if args.start_vi_len < args.train_vi_len else loss


def best_epoch(row: dict, folder: Path) -> str:
    """The last line of a run: its best epoch, and how much its posterior tells by z (validation video)."""
    use = ""
    if row["val_kl"] is not None:  # rows of a former version lack it
        use = f"; z: {row['val_kl']:.2g} nats a frame, {row['active_units']} active units"
    return f"best: {row['val_psnr']:.3f} dB in epoch {row['epoch']}{use}; all results are in {folder}"


def _teacher_forcing(args) -> str:
    if not args.tfr:
        return "off"
    if args.tfr_sde is None and args.tfr_d_step is None:
        return f"{args.tfr:g} to 0 until {TFR_END:.0%}"
    end = "to 0 until the last" if args.tfr_d_step is None else f"falling by {args.tfr_d_step:g}"
    return f"{args.tfr:g}, from epoch {args.tfr_sde or 0} on {end}"


def _annealing(args) -> str:
    kind, scale = args.kl_anneal_type, KL_SCALES[args.kl_reduction]
    if kind == "NoKL_Annealing":
        return f"not annealed, beta 1 {scale}"
    if args.kl_anneal_cycle is None:
        cycles = f"{KL_CYCLES} cycles" if kind == "Cyclical" else "rising"
        return f"{kind}, {cycles} until {KL_END:.0%}, then beta 1 {scale}"
    return f"{kind}, cycle of {args.kl_anneal_cycle} epochs, slope {args.kl_anneal_ratio:g}, {scale}"
