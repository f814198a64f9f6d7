"""What a run prints about itself: its configuration, and the titles of its progress bars."""

import copy
import functools
import math
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from runtime.device import autocast, num_cores, resolve_precision
from utils import colour_name

from . import schedules
from .options import RECIPES
from .schedules import FIRST_BETA, MIN_STEPS, Budget, Step

KL_SCALES = {"sum": "on the sum over z", "elbo": "on the ELBO's scale"}


def run_summary(args, model: nn.Module, device: torch.device, make_batches: Callable, background) -> str:
    """The configuration of a run: recipe, model, data and schedules, and what will not work.

    Args:
        args: all flags of the run.
        make_batches: makes the first epoch's batches, see `schedules.epoch_steps`.
        background: of the shots, `(shots, H, W, 4)`, if the augmentation needs them, else None.
    """
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    make_batches = functools.cache(make_batches)
    budget, steps = Budget(args, make_batches), schedules.planned_steps(args, make_batches)
    per_epoch = budget.steps_per_epoch
    recipe = [
        f"--{name} {value}" for name, value in RECIPES[args.recipe].items() if getattr(args, name) == value
    ]
    threads = torch.get_num_threads()
    on_some = f" with {threads} of {num_cores()} threads" if threads != num_cores() else ""
    epochs = f"{args.num_epoch} epoch{'s' * (args.num_epoch != 1)}"
    length = epochs if args.max_minutes is None else f"{args.max_minutes:g} minutes"
    zeros = f"; z = 0 in {args.z_dropout:.0%} of clips" if args.z_dropout else ""
    course = "" if args.recipe == "lab" else "; course protocol: --recipe lab"
    lines = [
        f"recipe {args.recipe}{': ' if recipe else ''}{' '.join(recipe)}{course}",
        f"{args.arch}, {num_parameters:,} parameters, {args.optim}, "
        f"{resolve_precision(args.precision, device)} on {device}{on_some if device.type == 'cpu' else ''}; "
        f"{length}, {per_epoch} step{'s' * (per_epoch != 1)} per epoch; "
        f"validation every {'epoch' if args.per_val == 1 else f'{args.per_val} epochs'}; "
        f"results in {args.save_root}",
        f"clips of {_clips(args, steps)}",
        f"teacher forcing {_teacher_forcing(args, steps)}",
        f"KL {_annealing(args, steps)}{zeros}",
        f"poses on {colour_name(args.pose_background)} (--pose_background)",
        *_small_batches(args, steps),
        *idle_schedules(args),
        *_short_run(args, model, device, budget.num_steps),
    ]
    if background is not None and (missing := sum(not image[..., 3].any() for image in background)):
        lines.append(
            f"--augment {args.augment}: {missing} of {len(background)} shots have no static background"
        )
    return "\n".join(lines)


def _clips(args, steps: list[Step]) -> str:
    """The clip lengths, with their shares of the run."""
    counts = Counter(step.clip_length for step in steps)
    lengths = ", ".join(map(str, counts)) + " frames"
    per_step = " / ".join(str(schedules.batch_size(args, length)) for length in counts)
    if len(counts) > 1:
        percents = " / ".join(f"{100 * count / len(steps):.0f}" for count in counts.values())
        lengths += f" for {percents} % of the {'frames' if args.max_minutes is None else 'time'}"
    return f"{lengths}, {per_step} per step"


def _teacher_forcing(args, steps: list[Step]) -> str:
    """The first and the last ratio, and when it is reached."""
    ratios = [step.tfr for step in steps]
    if not any(ratios):
        return "off"
    drawn = "drawn for each " + ("epoch" if args.recipe == "lab" else "step")
    if ratios[0] == ratios[-1]:
        return f"{ratios[0]:g}, {drawn}"
    return f"{ratios[0]:g} to {ratios[-1]:.2g} until {ratios.index(ratios[-1]) / len(steps):.0%}, {drawn}"


def _annealing(args, steps: list[Step]) -> str:
    """The range of beta, its cycles, and from when on it is 1."""
    betas, scale = [step.beta for step in steps], KL_SCALES[args.kl_reduction]
    if args.kl_anneal_type == "NoKL_Annealing":
        return f"not annealed, beta 1 {scale}"
    if args.kl_anneal_cycle is None:
        num_cycles = 1 + sum(before > after + FIRST_BETA for before, after in pairwise(betas))
        cycles = f"{num_cycles} cycle{'s' * (num_cycles > 1)}"
    else:
        cycles = f"cycles of {args.kl_anneal_cycle} epochs"
    cycles = f", {cycles}" if args.kl_anneal_type == "Cyclical" else ""
    end = 1 + max((index for index, beta in enumerate(betas) if beta < 1), default=-1)
    then = f" until {end / len(steps):.0%}, then 1" if end < len(steps) else ""
    return f"{args.kl_anneal_type}{cycles}, beta {min(betas):.2g} to {max(betas):.2g}{then} {scale}"


def _small_batches(args, steps: list[Step]) -> list[str]:
    """A line for each clip length that has fewer clips than a step wants."""
    counts = {step.clip_length: len(step.clips) for step in steps}
    wanted = {length: schedules.batch_size(args, length) for length in counts}
    return [
        f"clips of {length} frames: only {count} per step available instead of {wanted[length]}"
        for length, count in counts.items()
        if count < wanted[length]
    ]


def _short_run(args, model: nn.Module, device: torch.device, num_steps: int | None) -> list[str]:
    """A line if the run has too few steps for the schedules that fit its length."""
    has_decay = args.tfr and args.tfr_sde is None and args.tfr_d_step is None
    if args.start_vi_len >= args.train_vi_len and not has_decay:
        return []
    flag, about = "--num_epoch", ""
    if args.max_minutes is not None:
        flag, about = "--max_minutes", "about "
        num_steps = int(60 * args.max_minutes / seconds_per_step(args, model, device))
    if num_steps >= MIN_STEPS:
        return []
    steps = f"{about}{num_steps} step{'s' * (num_steps != 1)}"
    return [f"too short: {steps}, and every phase of the schedules needs {MIN_STEPS}; raise {flag}"]


def seconds_per_step(args, model: nn.Module, device: torch.device) -> float:
    """Estimated time per step for the shortest clips, measured on a copy of the model."""
    # In eval mode, because BatchNorm of several GPUs waits for all of them.
    model, length = copy.deepcopy(model).eval(), min(args.start_vi_len, args.train_vi_len)
    shape = schedules.batch_size(args, length), length, 3, args.frame_H, args.frame_W
    frames = torch.zeros(shape, device=device)
    noise = torch.zeros(shape[0], length - 1, *model.latent_shape(args.frame_H, args.frame_W), device=device)
    for _ in range(2):  # the first prepares
        start = time.perf_counter()
        with autocast(args.precision, device):
            predicted, _, _ = model(frames, frames, teacher_forcing=False, noise=noise)
        predicted.float().mean().backward()
        predicted.sum().item()  # waits for the device
    return time.perf_counter() - start


def idle_schedules(args) -> list[str]:
    """A line for each schedule that a run in epochs is too short for."""
    if args.max_minutes is not None:
        return []
    lines, epochs = [], args.num_epoch
    cycle = args.kl_anneal_cycle
    if args.kl_anneal_type == "Cyclical" and cycle is not None and cycle >= epochs:
        lines.append(f"--kl_anneal_cycle {cycle}: at least as long as the run, so Cyclical equals Monotonic")
    if args.tfr and args.tfr_sde is not None and args.tfr_sde >= epochs:
        lines.append(f"--tfr_sde {args.tfr_sde}: after the end of the run, so teacher forcing does not decay")
    return lines


def training_titles(epoch: int, step: Step) -> tuple[str, str, str]:
    """The description of an epoch's progress bar, from its longest form to the shortest."""
    switch = "ON" if step.teacher_forcing else "OFF"
    title = f"Epoch {epoch}, lr:{step.lr:.3g}"
    return (
        f"(train [TeacherForcing: {switch}, {step.tfr:.1f}], beta: {step.beta:.4g}) {title}",
        f"(train [TF: {switch}], beta: {step.beta:.2g}) {title}",
        f"(train) Epoch {epoch}",
    )


def training_postfix(args, step: Step, sums: dict[str, float]) -> dict[str, object]:
    """The end of an epoch's progress bar: the frames per clip if clips grow, and the loss."""
    loss = {"loss": sums["loss"] / (sums["steps"] or math.nan)}
    return {"frames": step.clip_length, **loss} if args.start_vi_len < args.train_vi_len else loss


def best_epoch(row: dict, folder: Path) -> str:
    """The last line of a run: its best epoch."""
    return f"best: {row['val_psnr']:.3f} dB in epoch {row['epoch']}; all results are in {folder}"
