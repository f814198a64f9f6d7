#!/usr/bin/env python3
"""Render a dataset of a synthetic person who walks, turns, waves, crouches, jumps and dances.

    python tools/make_dataset.py OUT

Written to OUT, in the layout that Trainer.py reads:

    train/train_img/frame000000.png ...      train/train_label/ with the same names
    val/val_img/frame000000.png ...          val/val_label/ with the same names
    test/test_img/0/frame000000.png          the first frame of test sequence 0
    test/test_label/0/frame000000.png ...    its poses
    test/test_gt/0/frame000000.png ...       its true frames
    poses.json                               the keypoints of each pose image

The training split has several shots, with gaps in the frame numbers between them. No two shots share motion.
The output depends only on the flags, not on --workers.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime import cli

if __name__ == "__main__":
    cli.prepare()

import argparse
import multiprocessing
import os
import re
import shutil
import signal
from multiprocessing.connection import Connection, wait

from runtime.cli import UserError
from runtime.parser import Parser, int_range
from tools.synthetic.dataset import MIN_SHOT_FRAMES, NUM_SHOTS, Job, prepare, render

UNFINISHED = ".unfinished"  # folder in OUT for the new dataset, until it is complete
REPLACED = ".replaced"  # folder in OUT for the old dataset, until the new one is in place


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = Parser(prog="make_dataset.py", description="Render a dataset of a synthetic person.")
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="folder to write, new or empty")
    add("--size", type=image_size, default="64x32", metavar="WxH", help="image size in pixels")
    shots = f"in up to {NUM_SHOTS} shots of at least {MIN_SHOT_FRAMES} frames"
    add("--train_frames", type=int_range(1), default=1600, metavar="N", help=f"training frames, {shots}")
    add("--val_frames", type=int_range(1), default=630, metavar="N", help="validation frames")
    add("--test_frames", type=int_range(1), default=630, metavar="N", help="frames per test sequence")
    add("--test_sequences", type=int_range(1), default=2, metavar="N", help="number of test sequences")
    add("--seed", type=int_range(0), default=0, metavar="N", help="seed of the random motion")
    add("--workers", type=int_range(1), default=os.cpu_count() or 1, metavar="N", help="processes to use")
    overwrite = "replace the dataset in OUT; other files are kept"
    add("--overwrite", action="store_true", help=overwrite)
    return parser.parse_args(argv)


def image_size(text: str) -> tuple[int, int]:
    """An argparse type: WIDTHxHEIGHT, each from 16 to 4096."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    size = tuple(int(part) for part in match.groups()) if match else (0, 0)
    if not all(16 <= pixels <= 4096 for pixels in size):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size: expected WIDTHxHEIGHT, each from 16 to 4096, such as 64x32"
        )
    return size


def check_output(out: Path, overwrite: bool) -> None:
    """Raise a `UserError` if the dataset must not be written to `out`."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is not a folder: give a new or empty folder")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise UserError(f"{out} is not empty: give another folder, or --overwrite to replace its dataset")


def render_all(jobs: list[Job], workers: int) -> None:
    """Render all frames in up to `workers` processes, which end with this call.

    Ctrl-C and SIGTERM end the rendering. Afterwards they are ignored, because the rest takes moments.

    Raises:
        OSError: an image cannot be written.
        UserError: a process was killed.
    """
    processes, reports = [], []
    try:
        # Blocked until all have started, because a new process still has this one's handlers.
        _mask_signals("SIG_BLOCK")
        for first in range(min(workers, len(jobs))):
            report, sender = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.Process(target=_render_share, args=(jobs[first::workers], sender))
            process.start()
            sender.close()
            processes.append(process)
            reports.append(report)
        _mask_signals("SIG_UNBLOCK")
        while reports:
            for report in wait(reports):
                if error := report.recv():
                    raise error
                reports.remove(report)
    except EOFError:
        raise UserError("a worker process ended early; if memory ran out, give fewer --workers") from None
    finally:
        cli.ignore_signals()
        for process in processes:
            process.kill()
            process.join()


def _mask_signals(how: str) -> None:
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(getattr(signal, how), cli.STOP_SIGNALS)


def _render_share(jobs: list[Job], sender: Connection) -> None:
    """The work of one process; sends None at its end, or the `OSError` that stopped it."""
    cli.ignore_signals()  # the main process answers them, and kills this one
    error = None
    try:
        for job in jobs:
            if not multiprocessing.parent_process().is_alive():
                return
            render(job)
    except OSError as refusal:
        error = refusal
    sender.send(error)


def restore(out: Path) -> None:
    """Undo an interrupted `publish`: move back the old dataset, and remove the rest of the new one."""
    for old in (out / REPLACED).glob("*"):
        if not os.path.lexists(out / old.name):
            old.rename(out / old.name)
    for name in (REPLACED, UNFINISHED):
        shutil.rmtree(out / name, ignore_errors=True)


def publish(root: Path, out: Path) -> None:
    """Move everything in `root` to `out`, replacing what has the same name there."""
    replaced = out / REPLACED
    replaced.mkdir()
    new = sorted(root.iterdir())
    try:
        for path in new:
            if os.path.lexists(out / path.name):
                (out / path.name).rename(replaced / path.name)
        for path in new:
            path.rename(out / path.name)
    finally:
        restore(out)


def main(argv: list[str] | None = None) -> None:
    """Render into a temporary folder, then move the dataset to OUT."""
    args = parse(argv)
    check_output(args.out, args.overwrite)
    is_new = not args.out.exists()
    root = args.out / UNFINISHED
    try:
        restore(args.out)
        root.mkdir(parents=True)
        jobs = prepare(args, root)
        render_all(jobs, args.workers)
        publish(root, args.out)
    except OSError as error:
        raise UserError(f"cannot write {args.out}: {error}") from None
    finally:
        cli.ignore_signals()
        shutil.rmtree(root, ignore_errors=True)
        if is_new and args.out.is_dir() and not any(args.out.iterdir()):
            args.out.rmdir()
    cli.log(f"{args.out}: {len(jobs)} frames of {args.size[0]}x{args.size[1]} and their poses")


if __name__ == "__main__":
    cli.run(main)
