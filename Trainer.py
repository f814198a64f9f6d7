"""Train a model on a dataset folder, or validate a checkpoint with --test.

    python Trainer.py --DR DATA --save_root RUN --kl_anneal_type Cyclical

Written to RUN: checkpoints, args.json, history.csv, plots, GIFs.
"""

from runtime import cli

if __name__ == "__main__":
    cli.prepare()  # before torch, which loads for seconds

import contextlib
import functools
import itertools
import math
import sys
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from dataloader import ClipBatch, ClipDataset, ClipLoader, load_validation_video
from modules import VAE_Model
from runtime import distributed, run_dir
from runtime.cli import Stopped, UserError, log
from runtime.cuda_graph import Graphed
from runtime.device import autocast, num_gpus, select_device, set_threads, to_device, tune_malloc
from runtime.progress import Progress
from training import evaluate, losses, schedules, summary
from training.augment import augment, needs_background
from training.background import estimate_backgrounds
from training.checkpoint import Checkpoints, load_for_inference, resolve_trainer
from training.checkpoint_validation import find_divergence
from training.history import History
from training.losses import kl_criterion
from training.meter import Meter
from training.optimizers import make_optimizer, set_learning_rate, step_if_finite
from training.pose_background import resolve_pose_background
from training.schedules import Budget, kl_annealing
from utils import Generate_PSNR

# What scripts of the course's students import from here.
__all__ = ["Generate_PSNR", "VAE_Model", "kl_annealing", "kl_criterion"]

MAX_GRAD_NORM = 1.0
MAX_SKIPPED_IN_A_ROW = 10
READ_INTERVAL = {"cpu": 1, "mps": 1, "cuda": 20}  # steps between reads of the losses, which wait for a GPU
DIVERGED = "training diverged; continue from an earlier checkpoint with a lower --lr"


class Run:
    """A training run: model, optimizer, data and history. `train` writes the run's files.

    `args` are all flags, `checkpoint` is the one to continue.
    """

    def __init__(self, args, checkpoint: dict | None):
        self.args, self.device = args, select_device(args.device, args.gpu)
        self.is_writer = distributed.rank() == 0
        set_threads(args.threads)
        with distributed.local_rank_0_first():  # it decodes the images that all read
            self.validation_video, self.dataset = load_validation_video(args), ClipDataset(args)
        distributed.check_same(self.dataset.numbers, "training frames")
        args.pose_background = resolve_pose_background(self.dataset.poses, args.pose_background, args.DR)
        shots = self.dataset.frames, self.dataset.poses, self.dataset.shots, args.pose_background
        self.background = estimate_backgrounds(*shots) if needs_background(args.augment) else None
        torch.manual_seed(args.seed)
        self.model = to_device(VAE_Model(args), args.arch, self.device)
        self.parallel_model = distributed.data_parallel(self.model, self.device)
        self.optimizer = make_optimizer(self.model, args)
        self.history, self.meter = History(), Meter(self.device)
        self.checkpoints = Checkpoints(args, self.model, self.optimizer, self.history)
        self.first_epoch = self.updates = 0
        if checkpoint:
            self.first_epoch, self.updates = self.checkpoints.restore(args.ckpt_path, checkpoint)
        self.budget = Budget(args, self.batch_maker(0), self.history.seconds)
        self.loader = ClipLoader(self.dataset, self.device, self.background)
        # CUDA replays the step as a graph; a graph with communication between ranks is not tested.
        is_graphed = self.device.type == "cuda" and distributed.world_size() == 1
        self.update = Graphed(self.training_step, enabled=is_graphed)

    def train(self) -> None:
        """Train the remaining epochs, with validation, logging and checkpointing."""
        if not self.start():
            return
        args = self.args
        for epoch in itertools.count(self.first_epoch):
            record = self.train_epoch(epoch)
            is_last = self.budget.is_finished(epoch + 1)
            if problem := find_divergence(self.model.state_dict()):
                raise UserError(f"{problem}: {DIVERGED}")
            if self.is_writer:
                if is_last or epoch % args.per_val == 0:
                    images, video = is_last or args.store_visualization, self.validation_video
                    record |= evaluate.validate(self.model, video, args, epoch, record["lr"], images)
                self.save(record)
            if is_last:
                return

    def train_epoch(self, epoch: int) -> dict:
        """Train one epoch, or until the time budget runs out; returns the epoch's record."""
        args, device, budget = self.args, self.device, self.budget
        step_iterator = schedules.epoch_steps(args, budget, epoch, self.updates, self.batch_maker(epoch))
        sums, steps, seconds_before = Counter(), [], budget.seconds
        start = time.perf_counter() - self.update.seconds  # recording graphs does not count
        self.model.train()
        with Progress(step_iterator, total=budget.steps_per_epoch, disable=not self.is_writer) as bar:
            for step in bar:
                bar.total = len(steps) + step.num_left
                set_learning_rate(self.optimizer, step.lr)
                beta = torch.full((), step.beta, device=device)  # a tensor, as an input of the graph
                self.update(self.loader.load(step.clips), beta, teacher_forcing=step.teacher_forcing)
                self.updates += 1
                steps.append(step)
                bar.descriptions = summary.training_titles(epoch, step)
                if len(steps) % READ_INTERVAL[device.type] and step.num_left > 1:
                    continue
                latest = self.meter.read()
                if latest.pop("skipped_in_a_row") >= MAX_SKIPPED_IN_A_ROW:
                    raise UserError(f"{MAX_SKIPPED_IN_A_ROW} consecutive updates were not finite: {DIVERGED}")
                sums.update(latest)
                bar.set_postfix(summary.training_postfix(args, step, latest), refresh=False)
                # The time advances only here: all ranks end at the same step.
                elapsed = time.perf_counter() - start - self.update.seconds
                budget.seconds = seconds_before + distributed.broadcast(elapsed, device)
        seconds = budget.seconds - seconds_before
        num_clips = sum(len(step.clips) for step in steps) * distributed.world_size()
        means = {name: sums[name] / (sums["steps"] or math.nan) for name in ("loss", "mse", "kl")}
        return means | schedules.epoch_record(steps) | {
            "epoch": epoch, "seconds": seconds, "clips_per_second": num_clips / seconds,
            "skipped_steps": int(sums["skipped"]), "steps": steps,
        }  # fmt: skip

    def batch_maker(self, epoch: int) -> Callable[[int, int, float], list[np.ndarray]]:
        """A function `(clip length, batch size, fraction of the clips) -> batches` for this epoch."""
        ranks = {"rank": distributed.rank(), "ranks": distributed.world_size()}
        return functools.partial(self.dataset.batches, epoch, **ranks)

    def training_step(self, batch: ClipBatch, beta: Tensor, teacher_forcing: bool) -> None:
        """One optimizer step, skipped if the gradient is not finite; `beta` is a scalar tensor.

        It never synchronizes with the device, so it can be captured as a CUDA graph.
        """
        args = self.args
        frames, poses = (clips.to(self.device) for clips in augment(batch, args))
        noise, posterior_mask = self.draw_latents(frames)
        on_cuda = self.device.type == "cuda"
        with autocast(args.precision, self.device):
            predicted, mu, logvar = self.parallel_model(
                frames, poses, teacher_forcing, noise, posterior_mask, share_gradients=on_cuda
            )
        frame_mse = (predicted.float() - frames[:, 1:]).square().mean(dim=(2, 3, 4))  # (B, T-1)
        # The statistics of all ranks are gathered here; the losses are pure functions.
        all_frame_mse, all_masks = distributed.all_gather(frame_mse, posterior_mask)
        posterior_fraction = all_masks.mean().clamp(min=1e-6)
        reconstruction = losses.reconstruction(frame_mse, all_frame_mse, args.recon_loss)
        scale = losses.kl_scale(args.kl_reduction, all_frame_mse, values_per_frame=frames[0, 0].numel())
        kl = losses.kl(mu, logvar, posterior_mask, posterior_fraction, scale)
        # `kl` is a mean over the clips with z from the posterior; those with z = 0 have none.
        loss = reconstruction + beta * posterior_fraction * kl

        self.optimizer.zero_grad()
        loss.backward()
        # The same on all ranks, because DistributedDataParallel has averaged the gradients.
        is_finite = clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM).isfinite()
        step_if_finite(self.optimizer, is_finite)
        self.meter.update(is_finite, loss, frame_mse.mean() * frame_mse.shape[1], kl)

    def draw_latents(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """eps of the posterior, `(B, T-1, N_dim, h, w)`, and a mask `(B,)`, 0 for clips with z = 0."""
        batch_size, length, _, height, width = frames.shape
        shape = batch_size, length - 1, *self.model.latent_shape(height, width)
        noise = distributed.draw(torch.randn, *shape, device=self.device)
        if not self.args.z_dropout:
            return noise, torch.ones(batch_size, device=self.device)
        u = distributed.draw(torch.rand, batch_size, device=self.device)
        return noise, (u >= self.args.z_dropout).float()

    def start(self) -> bool:
        """Prepare or repair the folder and print the configuration; returns False if no epochs are left."""
        args = self.args
        if self.is_writer and args.resume and self.history.rows:
            # The run may have been killed while it wrote: write everything that follows from last.ckpt.
            self.checkpoints.write_args()
            self.checkpoints.write_copies(self.keeps(self.first_epoch - 1))
            self.write_records(is_validated=bool(self.history.best_row()))
        if self.budget.is_finished(self.first_epoch):
            log(f"{self.budget.finished_message()} (epochs so far: {self.first_epoch})")
            return False
        if self.is_writer:
            if not args.resume:
                self.checkpoints.start_folder(self.updates)
            log(summary.run_summary(args, self.model, self.device, self.batch_maker(0), self.background))
        return True

    def keeps(self, epoch: int) -> bool:
        """Whether the checkpoint of an epoch is kept as epoch=E.ckpt."""
        return epoch % self.args.per_save == 0 or self.budget.is_finished(epoch + 1)

    def save(self, record: dict) -> None:
        """Write the epoch's files: the checkpoint first, because a resume needs nothing else."""
        epoch = record["epoch"]
        self.history.add(record)
        self.checkpoints.save(self.updates, self.keeps(epoch))
        if self.keeps(epoch):
            log(f"save ckpt to {self.args.save_root / f'epoch={epoch}.ckpt'}")
        self.write_records("val_psnr" in record)

    def write_records(self, is_validated: bool) -> None:
        """history.csv and TensorBoard; plots if there was a validation."""
        self.history.write(self.args.save_root)
        if is_validated:
            self.history.plot(self.args.save_root, self.args.kl_anneal_type)


def test(args) -> None:
    """Validate a checkpoint."""
    device = select_device(args.device, args.gpu)
    set_threads(args.threads)
    model, config = load_for_inference(args.ckpt_path, device)
    epoch, lr = config.last_epoch or 0, config.last_lr or args.lr
    evaluate.validate(model, load_validation_video(args), args, epoch, lr, write_images=True)


def main(argv: list[str] | None = None) -> None:
    """Train or validate; with several GPUs, launch one process per GPU."""
    with distributed.group(), contextlib.ExitStack() as stack:
        args, checkpoint = resolve_trainer(argv)
        count = 1 if args.test else num_gpus(args.device, args.gpu)
        if count > 1 and not distributed.is_launched():
            distributed.launch(count, __file__, sys.argv[1:] if argv is None else argv)
            return
        tune_malloc()
        if distributed.rank() == 0:
            run_dir.make_writable(args.save_root, args.DR)
        if args.test:
            test(args)
            return
        if distributed.rank() == 0:
            stack.enter_context(run_dir.locked(args.save_root))
            if not (args.resume or args.overwrite):
                run_dir.check_empty(args.save_root)
        run = Run(args, checkpoint)
        try:
            run.train()
        except Stopped:
            if distributed.rank() == 0:
                cli.print_error(run_dir.how_to_resume(args, run.history.rows))
            raise
        if best := run.history.best_row():
            log(summary.best_epoch(best, args.save_root))


if __name__ == "__main__":
    cli.run(main)
