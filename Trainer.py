"""Train a model on a dataset in the lab's layout, or validate a checkpoint with --test.

    python Trainer.py --DR DATA --save_root RUN --kl_anneal_type Cyclical

Everything about the run is written to RUN: checkpoints, args.json, history.csv, plots, GIFs.
"""

from engine import console

if __name__ == "__main__":
    console.quit_on_signals()  # before torch, which takes seconds to load

import itertools
import json
import shlex
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from tqdm import tqdm

import utils
from dataloader import DeviceClips, TrainingClips, to_float, validation_video
from engine import checkpoint, distributed, options
from engine.console import Stopped, UserError, complain
from engine.device import autocast, gpu_count, keep_pages, select_device
from engine.history import History, best_row, validated
from engine.schedules import (
    Budget,
    kl_annealing,
    learning_rate,
    teacher_forcing_draw,
    teacher_forcing_ratio,
)
from engine.step import TrainingStep, kl_criterion, load_optimizer, make_optimizer
from modules import VAE_Model
from utils import Generate_PSNR

# A GPU is asked for the losses once in so many steps, for it stands still meanwhile.
STEPS_PER_READ = {"cpu": 1, "cuda": 20}

# What the lab's students import from here.
__all__ = ["Generate_PSNR", "VAE_Model", "kl_annealing", "kl_criterion"]


def parse(argv=None):
    """The flags, and the checkpoint that they continue or test (None for a new run)."""
    parser = options.trainer_parser()
    given = parser.given(argv)
    args = options.resolve(parser, argv)
    if args.resume and args.ckpt_path:
        raise UserError("--resume and --ckpt_path name two checkpoints; give one of them")
    if args.test and not args.ckpt_path:
        raise UserError("--test needs --ckpt_path, the checkpoint to validate")
    if args.resume:
        args.ckpt_path = args.save_root / "last.ckpt"
        if not args.ckpt_path.is_file():
            raise UserError(f"{args.ckpt_path}: nothing to resume there; leave out --resume to start a run")
    if not args.ckpt_path:
        return args, None
    content = checkpoint.read(args.ckpt_path)
    checkpoint.check_model_flags(args.ckpt_path, content, given)
    path = args.ckpt_path
    args = options.resolve(parser, argv, checkpoint.stored_flags(content))
    args.ckpt_path = path
    return args, content


def prepare_folder(args) -> list[Path]:
    """Make --save_root, see that it can be written, and return the files of a run to overwrite."""
    if distributed.rank():
        return []
    folder = args.save_root
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    if args.test or args.resume:
        return []
    old = [path for name in ("*.ckpt", "history.csv", "tensorboard/events*") for path in folder.glob(name)]
    if old and not args.overwrite:
        raise UserError(
            f"{folder}: holds a run; --resume goes on with it, --overwrite deletes it, "
            "another --save_root leaves it alone"
        )
    return [path for path in old if path != args.ckpt_path]


class Run:
    """A training run: the model and all that changes while it learns."""

    def __init__(self, args, content: dict | None, overwritten: list[Path]):
        self.args = args
        self.device = select_device(args)
        # The validation video comes first: its files are the fewer, and a mistake there shows early.
        self.video = validation_video(args)
        self.clips = None if args.test else TrainingClips(args)
        torch.manual_seed(args.seed)
        model = VAE_Model(args).to(self.device, memory_format=torch.channels_last)
        self.model = distributed.with_shared_statistics(model, self.device)
        self.optimizer = make_optimizer(self.model, args)
        self.first_epoch, self.step, history = 0, 0, None
        if content is not None:
            history = self._restore(content)
        for path in overwritten:  # not before all that a user can get wrong has been looked at
            path.unlink()
        if history and not (args.resume or args.test):
            history = self._branch_off(content)
        self.history = History(args.save_root, history)
        self.budget = Budget(args, sum(row["seconds"] for row in self.history.rows))

    def _restore(self, content: dict) -> dict | None:
        checkpoint.load_weights(self.model, self.args.ckpt_path, content)
        self.first_epoch = content.get("last_epoch", -1) + 1
        if not checkpoint.is_ours(content):
            print(f"{self.args.ckpt_path}: a checkpoint of the lab; the optimizer starts afresh")
            return None
        load_optimizer(self.optimizer, content["optimizer"])
        self.step = content["step"]
        checkpoint.restore_rng(content["rng"], self.device)
        return content["history"]

    def _branch_off(self, content: dict) -> dict:
        """A run that continues another starts with what it continues as its best and its last."""
        branched = History.branch(content["history"])
        for name in ("best.ckpt", "last.ckpt") if distributed.rank() == 0 else ():
            checkpoint.write(self.args.save_root / name, content | {"history": branched})
        return branched

    def train(self) -> None:
        """All epochs that are left, each with its validation, records and checkpoints."""
        args = self.args
        if self.budget.spent(self.first_epoch):
            print(f"{self.budget} (epochs so far: {self.first_epoch})")
            return
        writes = distributed.rank() == 0
        if writes:
            (args.save_root / "args.json").write_text(json.dumps(options.storable(args), indent=2))
        self.clips_here = DeviceClips(self.clips, self.device)
        parallel = distributed.share(self.model, self.device)
        self.update = TrainingStep(self.model, self.optimizer, args, self.clips_here.decode, parallel)
        annealing = kl_annealing(args, self.first_epoch)
        for epoch in itertools.count(self.first_epoch):
            record = self.train_epoch(epoch, annealing.get_beta())
            last = self.budget.spent(epoch + 1)
            if writes and (last or epoch % args.per_val == 0):
                record |= self.validate(epoch, pictures=last or args.store_visualization)
            if writes:
                self.finish_epoch(record, last)
            if last:
                return
            annealing.update()

    def train_epoch(self, epoch: int, beta: float) -> dict:
        """One pass over the epoch's clips, or as much of it as there is time for.

        Returns its row of the history, validation left out.
        """
        args, budget = self.args, self.budget
        tfr = teacher_forcing_ratio(args, budget.schedule_epoch(epoch))
        forced = teacher_forcing_draw(args, epoch, tfr)
        self.model.train()
        batches = self.clips.rows(epoch, distributed.rank(), distributed.world_size())
        totals, clips, seconds_before = Counter(), 0, budget.seconds
        began = time.perf_counter()
        mode = f"train [TeacherForcing: {'ON' if forced else 'OFF'}, {tfr:.1f}], beta: {beta:.4g}"
        with tqdm(batches, ncols=140, disable=distributed.rank() > 0) as bar:
            for index, rows in enumerate(bar):
                position = epoch + index / len(batches)
                if index and budget.spent(position):
                    break
                lr = learning_rate(args, position, budget.done(position), self.step)
                bar.set_description(f"({mode}) Epoch {epoch}, lr:{lr:.3g}", refresh=False)
                self.update(self.clips_here.send(rows), lr, beta, forced)
                self.step += 1
                clips += len(rows) * distributed.world_size()
                if (index + 1) % STEPS_PER_READ[self.device.type] and index + 1 < len(batches):
                    continue
                stats = self.update.read()
                elapsed = distributed.of_rank_zero(time.perf_counter() - began, self.device)
                budget.seconds = seconds_before + elapsed
                bar.set_postfix(loss=stats["loss"], refresh=False)
                totals.update({name: stats[name] for name in ("steps", "skipped")})
                if stats["steps"]:
                    totals.update({name: stats[name] * stats["steps"] for name in ("loss", "mse", "kl")})
        seconds = budget.seconds - seconds_before
        return {
            "epoch": epoch, "beta": beta, "tfr": tfr, "teacher_forcing": int(forced), "lr": lr,
            **{name: totals[name] / totals["steps"] if totals["steps"] else float("nan")
               for name in ("loss", "mse", "kl")},
            "seconds": seconds, "clips_per_second": clips / seconds, "skipped_steps": int(totals["skipped"]),
        }  # fmt: skip

    def validate(self, epoch: int, pictures: bool) -> dict:
        """Generate the whole validation video; prints its PSNR. `pictures` writes GIF and plot, too."""
        args, device = self.args, self.device
        truth, poses = to_float(self.video.frames), to_float(self.video.poses)
        lr = self.optimizer.param_groups[0]["lr"]
        with tqdm(total=1, ncols=140, desc=f"(val) Epoch {epoch}, lr:{lr:.3g}") as bar:
            generator = torch.Generator(device).manual_seed(args.seed)
            first = truth[:1].to(device)
            with autocast(args.precision, device):
                video = self.model.generate(first, poses[None], args.z == "sample", generator)[0]
            loss = (video - truth)[1:].square().mean(dim=(1, 2, 3)).sum().item()
            psnr = utils.psnr_by_frame(video[1:], truth[1:]).tolist()
            average = sum(psnr) / len(psnr)
            tqdm.write(f"AVG PSNR: {average}")
            bar.set_postfix(loss=loss, refresh=False)
            bar.update()
        if pictures:
            shown = utils.comparison(self.video.poses, utils.to_uint8(video), self.video.frames)
            utils.save_gif(args.save_root / f"val_epoch={epoch}.gif", shown)
            plot = args.save_root / f"val_psnr_epoch={epoch}.png"
            utils.plot_psnr_by_frame({f"epoch {epoch}": psnr}, plot)
        return {"val_loss": loss, "val_psnr": average, "psnr_by_frame": psnr}

    def finish_epoch(self, record: dict, last: bool) -> None:
        """Checkpoints first, for they are the run; then history.csv, TensorBoard and plots."""
        epoch, folder = record["epoch"], self.args.save_root
        best = self.history.add(record)
        content = self.checkpoint_content(record)
        checkpoint.write(folder / "last.ckpt", content)
        if best:
            checkpoint.write(folder / "best.ckpt", content)
        if epoch % self.args.per_save == 0 or last:
            checkpoint.write(folder / f"epoch={epoch}.ckpt", content)
            print(f"save ckpt to {folder / f'epoch={epoch}.ckpt'}")
        self.history.write()
        rows = self.history.rows
        if "val_psnr" not in record:
            return
        utils.plot_losses(rows, folder / "losses.png")
        utils.plot_schedules(rows, folder / "schedules.png")
        utils.plot_psnr_by_epoch(validated(rows), folder / "val_psnr_by_epoch.png")
        utils.plot_psnr_by_frame(self.history.psnr_by_frame, folder / "val_psnr_by_frame.png")

    def checkpoint_content(self, record: dict) -> dict:
        """SPEC: "Checkpoints"; `last_epoch` is the last one that is finished."""
        return {
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr": record["lr"],
            "tfr": record["tfr"],
            "last_epoch": record["epoch"],
            "format_version": checkpoint.FORMAT_VERSION,
            "args": options.storable(self.args),
            "step": self.step,
            "history": self.history.state_dict(),
            "rng": checkpoint.rng_state(self.device),
        }


def main(argv=None) -> None:
    """Parse, build, train; where there are several GPUs to use, in a process for each."""
    with distributed.group():
        with distributed.first_here_first():
            args, content = parse(argv)
            old_files = prepare_folder(args)
            if (count := gpu_count(args)) > 1 and not distributed.is_launched() and not args.test:
                distributed.launch(count)
            keep_pages()
            run = Run(args, content, old_files)
        train_or_test(run)


def train_or_test(run: Run) -> None:
    """Do what the flags ask for, and say how it ended."""
    args = run.args
    if args.test:
        run.validate(max(0, run.first_epoch - 1), pictures=True)
        return
    try:
        run.train()
    except Stopped:
        say_how_to_go_on(run)
        raise
    if run.history.rows:
        best = best_row(run.history.rows)
        print(
            f"best: {best['val_psnr']:.3f} dB in epoch {best['epoch']}; all results are in {args.save_root}"
        )


def say_how_to_go_on(run: Run) -> None:
    """After a signal: what is saved, and the command that continues it."""
    args, done = run.args, run.history.rows
    if distributed.rank():
        return
    again = ["python", "Trainer.py", "--DR", str(args.DR), "--save_root", str(args.save_root), "--resume"]
    complain(
        f"epoch {done[-1]['epoch']} is the last finished one, and saved; go on with: {shlex.join(again)}"
        if done
        else "no epoch was finished, so nothing is lost: start again with the same command"
    )


if __name__ == "__main__":
    console.run(main)
