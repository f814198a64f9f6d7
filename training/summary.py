"""What a run prints about itself: its configuration, and the titles of its progress bars."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from runtime.device import num_cores, resolve_precision
from runtime.distributed import world_size

from .options import RECIPES
from .schedules import KL_CYCLES, KL_END, TFR_END, Budget, EpochPlan, clip_length, epoch_plan

KL_SCALES = {"sum": "on the sum over z", "elbo": "on the ELBO's scale"}


def run_summary(args, model: nn.Module, device: torch.device, dataset, background: np.ndarray | None) -> str:
    """The configuration of a run: recipe, model, data and schedules, and what will not work.

    Args:
        args: all flags of the run.
        dataset: the `ClipDataset`.
        background: of its shots, if the augmentation needs them.
    """
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    plan, last_length = epoch_plan(args, Budget(args), 0), clip_length(args, 1.0)
    batches = dataset.batches(0, plan.clip_length, plan.batch_size, plan.clip_fraction, ranks=world_size())
    longest = dataset.batches(0, last_length, args.batch_size, plan.clip_fraction, ranks=world_size())
    recipe = [
        f"--{name} {value}" for name, value in RECIPES[args.recipe].items() if getattr(args, name) == value
    ]
    threads = torch.get_num_threads()
    on_some = f" with {threads} of {num_cores()} threads" if threads != num_cores() else ""
    fast = " during --fast_train" if plan.clip_fraction < 1 else ""
    zeros = f"; z = 0 in {args.z_dropout:.0%} of clips" if args.z_dropout else ""
    course = "" if args.recipe == "lab" else "; course protocol: --recipe lab"
    lines = [
        f"recipe {args.recipe}{': ' if recipe else ''}{' '.join(recipe)}{course}",
        f"{args.arch}, {num_parameters:,} parameters, {args.optim}, "
        f"{resolve_precision(args.precision, device)} on {device}{on_some if device.type == 'cpu' else ''}; "
        f"clips of {_span(plan.clip_length, last_length)} frames, "
        f"{_span(plan.batch_size, args.batch_size)} per step, {len(batches)} steps per epoch{fast}; "
        f"validation every {'epoch' if args.per_val == 1 else f'{args.per_val} epochs'}; "
        f"results in {args.save_root}",
        f"teacher forcing {_teacher_forcing(args)}; KL {_annealing(args)}{zeros}",
        *_small_batches((batches[0], plan.batch_size), (longest[0], args.batch_size)),
        *idle_schedules(args),
    ]
    if background is not None and (missing := sum(not image[..., 3].any() for image in background)):
        lines.append(
            f"--augment {args.augment}: {missing} of {len(background)} shots have no static background"
        )
    return "\n".join(lines)


def _small_batches(*batches: tuple[np.ndarray, int]) -> list[str]:
    """A line for each kind of batch `(B, T)` that has fewer clips than wanted."""
    lines = (
        f"clips of {batch.shape[1]} frames: only {len(batch)} per step available instead of {wanted}"
        for batch, wanted in batches
        if len(batch) < wanted
    )
    return list(dict.fromkeys(lines))


def _span(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first} to {last}"


def idle_schedules(args) -> list[str]:
    """A line for each schedule that a run in epochs is too short for."""
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
    """The end of an epoch's progress bar: the frames per clip if clips grow, and the loss."""
    loss = {"loss": sums["loss"] / max(1, sums["steps"])}
    return {"frames": plan.clip_length, **loss} if args.start_vi_len < args.train_vi_len else loss


def best_epoch(row: dict, folder: Path) -> str:
    """The last line of a run: its best epoch, and how much the posterior uses z (validation video)."""
    use = ""
    if row["val_kl"] is not None:  # rows of old checkpoints lack it
        use = f"; z: {row['val_kl']:.2g} nats per frame, {row['active_units']} active units"
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
