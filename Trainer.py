"""Train a model on a dataset folder, or validate a checkpoint with --test.

    python Trainer.py --DR DATA --save_root RUN --kl_anneal_type Cyclical

Everything about the run is written to RUN: checkpoints, args.json, history.csv, plots, GIFs.
"""

from runtime import cli

if __name__ == "__main__":
    cli.prepare()  # before torch, which takes seconds to load

import contextlib
import itertools
import sys
import time
from collections import Counter

import torch

import utils
from dataloader import DeviceClips, TrainingClips, validation_sequence
from modules import VAE_Model
from runtime import distributed, run_dir
from runtime.cli import Stopped, UserError
from runtime.device import gpu_count, keep_pages, on_device, select_device
from runtime.progress import Progress
from runtime.threads import Threads
from training import checkpoint, evaluate, memory, summary
from training.history import History
from training.schedules import Budget, epoch_plan, kl_annealing, learning_rate
from training.step import TrainingStep, kl_criterion, make_optimizer
from training.stored import not_sane
from utils import Generate_PSNR

# Reading the losses makes a GPU wait, so it is not done after every step.
STEPS_PER_READ = {"cpu": 1, "cuda": 20}
MOST_SKIPS_IN_A_ROW = 10
DIVERGED = (
    "the run has diverged; its checkpoints are of the epochs before (lower --lr, and continue one with "
    "--ckpt_path)"
)

# What the scripts of the course's students import from here.
__all__ = ["Generate_PSNR", "VAE_Model", "kl_annealing", "kl_criterion"]


class Run:
    """A training run: the model, and all that changes while it learns. Nothing is written before `train`.

    Args:
        args: all flags.
        start: the checkpoint to continue; None for a new run.
    """

    def __init__(self, args, start: dict | None):
        self.args, self.device, self.threads = args, select_device(args), Threads(args.threads)
        memory.require_model(args, self.device, clips=1)  # before any picture is decoded
        with distributed.local_rank_0_first():  # it decodes the pictures that all read
            self.validation, self.clips = validation_sequence(args), TrainingClips(args)
        memory.require_model(args, self.device, min(args.batch_size, len(self.clips.order(0))))
        distributed.check_same(self.clips.numbers, "frames of training")
        torch.manual_seed(args.seed)
        self.model = new_model(args, self.device)
        parallel = distributed.data_parallel(self.model, self.device)
        self.step = TrainingStep(self.model, make_optimizer(self.model, args), args, parallel)
        self.history = History()
        self.threads.update()
        self.checkpoints = checkpoint.Checkpoints(args, self.step, self.history)
        self.first_epoch = self.checkpoints.restore(args.ckpt_path, start) if start else 0
        self.budget = Budget(args, self.history.seconds)

    def train(self) -> None:
        """All epochs that are left, each with its validation, records and checkpoints."""
        args, writes = self.args, distributed.rank() == 0
        if writes and args.resume and self.history.rows:
            self.complete()  # the run may have been killed while it wrote
        if self.budget.spent(self.first_epoch):
            print(f"{self.budget} (epochs so far: {self.first_epoch})")
            return
        if writes:
            if not args.resume:
                self.checkpoints.begin_folder()
            print(summary.run_summary(args, self.model, self.device, self.clips, self.threads))
        self.device_clips = DeviceClips(self.clips, self.device)
        for epoch in itertools.count(self.first_epoch):
            if self.device.type == "cpu" and self.threads.update():
                print(f"from epoch {epoch} on {self.threads}")
            record = self.train_epoch(epoch)
            last = self.budget.spent(epoch + 1)
            if wrong := not_sane(self.model.state_dict()):
                raise UserError(f"{wrong}: {DIVERGED}")
            if writes and (last or epoch % args.per_val == 0):
                pictures = last or args.store_visualization
                record |= evaluate.validate(self.model, self.validation, args, epoch, record["lr"], pictures)
            if writes:
                self.save(record, last)
            if last:
                return

    def train_epoch(self, epoch: int) -> dict:
        """One pass over the epoch's clips, or until the time is over; returns its record."""
        args, budget, step = self.args, self.budget, self.step
        plan = epoch_plan(args, budget, epoch)
        shared = distributed.rank(), distributed.world_size()
        batches = self.clips.batches(epoch, *shared, plan.clip_length, plan.clips)
        sums, clips, seconds_before = Counter(), 0, budget.seconds
        # Neither the search for algorithms nor the recording of graphs counts.
        began = time.perf_counter() - step.preparation_seconds
        self.model.train()
        with Progress(batches, disable=distributed.rank() > 0) as bar:
            for index, indices in enumerate(bar):
                position = epoch + index / len(batches)
                if index and budget.spent(position):
                    break
                lr = learning_rate(args, position, budget.done(position), step.updates)
                bar.descriptions = summary.training_titles(plan, lr)
                pictures = self.device_clips.load(indices)
                step(*pictures, lr=lr, beta=plan.beta, teacher_forcing=plan.teacher_forcing)
                clips += len(indices) * distributed.world_size()
                if (index + 1) % STEPS_PER_READ[self.device.type] and index + 1 < len(batches):
                    continue
                latest = step.read()
                if latest.pop("skipped_in_a_row") >= MOST_SKIPS_IN_A_ROW:
                    raise UserError(f"{MOST_SKIPS_IN_A_ROW} updates in a row were not finite: {DIVERGED}")
                sums.update(latest)
                bar.set_postfix(summary.training_postfix(args, plan, latest), refresh=False)
                elapsed = time.perf_counter() - began - step.preparation_seconds
                elapsed = distributed.broadcast_from_0(elapsed, self.device)
                budget.seconds = seconds_before + elapsed
        seconds = budget.seconds - seconds_before
        means = {name: sums[name] / sums["steps"] if sums["steps"] else float("nan")
                 for name in ("loss", "mse", "kl")}  # fmt: skip
        return means | {
            "epoch": epoch, "beta": plan.beta, "tfr": plan.tfr, "teacher_forcing": int(plan.teacher_forcing),
            "clip_length": plan.clip_length, "lr": lr,
            "seconds": seconds, "clips_per_second": clips / seconds, "skipped_steps": int(sums["skipped"]),
        }  # fmt: skip

    def save(self, record: dict, last: bool) -> None:
        """Write the epoch's files: checkpoints first, because they are the run."""
        epoch, keep = record["epoch"], last or record["epoch"] % self.args.per_save == 0
        self.history.add(record)
        self.checkpoints.save(keep)
        if keep:
            print(f"save ckpt to {self.args.save_root / f'epoch={epoch}.ckpt'}")
        self.write_records("val_psnr" in record)

    def write_records(self, validated: bool) -> None:
        """history.csv and TensorBoard; plots if there was a validation."""
        self.history.write(self.args.save_root)
        if validated:
            utils.plot_run(self.history.rows, self.history.psnr_by_frame, self.args.save_root)

    def complete(self) -> None:
        """Write all files of the folder that follow from last.ckpt."""
        self.checkpoints.write_args()
        self.checkpoints.complete()
        self.write_records(bool(self.history.best_row()))


def new_model(args, device: torch.device) -> VAE_Model:
    """A model on the device, its weights at random."""
    model = on_device(VAE_Model(args), args, device)
    return distributed.sync_batchnorm(model, device)


def test(args, start: dict) -> None:
    """Validate a checkpoint."""
    device, epoch = select_device(args), start.get("last_epoch", 0)
    memory.require_model(args, device)
    model = new_model(args, device)
    checkpoint.load_weights(model, args.ckpt_path, start)
    lr = start.get("lr", args.lr)
    evaluate.validate(model, validation_sequence(args), args, epoch, lr, pictures=True)


def train(run: Run) -> None:
    """Train, and say how it ended."""
    root = run.args.save_root
    try:
        run.train()
    except Stopped:
        if distributed.rank() == 0:
            cli.complain(run_dir.how_to_continue(run.args, run.history.rows))
        raise
    if best := run.history.best_row():
        print(summary.best_epoch(best, root))


def main(argv: list[str] | None = None) -> None:
    """Parse, build, train; with several GPUs to use, in one process for each."""
    with distributed.group(), contextlib.ExitStack() as stack:
        args, start = checkpoint.trainer_flags(argv)
        if not args.test and (count := gpu_count(args)) > 1 and not distributed.is_launched():
            distributed.launch(count, __file__, sys.argv[1:] if argv is None else argv)
            return
        keep_pages()
        if distributed.rank() == 0:
            run_dir.make_writable(args.save_root, args.DR)
        if args.test:
            test(args, start)
            return
        if distributed.rank() == 0:
            stack.enter_context(run_dir.locked(args.save_root))
            if not (args.resume or args.overwrite):
                run_dir.check_holds_no_run(args.save_root)
        train(Run(args, start))


if __name__ == "__main__":
    cli.run(main)
