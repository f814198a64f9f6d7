#!/usr/bin/env python3
"""Draw a dataset: a person who walks, turns, waves, crouches, jumps and dances in a studio.

    python tools/make_dataset.py OUT

writes pictures, pose pictures and, for the tests, the true frames, in the layout that Trainer.py reads:

    OUT/train/train_img/frame000000.png ...      OUT/train/train_label/ with the same names
    OUT/val/val_img/frame000000.png ...          OUT/val/val_label/ with the same names
    OUT/test/test_img/0/frame000000.png          the first frame of test sequence 0
    OUT/test/test_label/0/frame000000.png ...    its poses
    OUT/test/test_gt/0/frame000000.png ...       its true frames
    OUT/poses.json                               where the joints are in each pose picture

The training split consists of a few continuous takes; between two takes the frame numbers jump. No two takes
have the same motion. The same flags give the same bytes, with any number of workers.
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
from runtime.parser import Parser, whole
from tools.synthetic.dataset import SHORTEST_TAKE, TAKES, Job, draw, prepare

UNFINISHED = ".unfinished"  # folder in OUT for the new dataset, until all of it is complete
REPLACED = ".replaced"  # folder in OUT for the old dataset, until the new one is in place


def parse_arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = Parser(prog="make_dataset.py", description="Draw a dataset of a person who moves in a studio.")
    add = parser.add_argument
    add("out", type=Path, metavar="OUT", help="folder to write, new or empty")
    add("--size", type=picture_size, default="64x32", metavar="WxH", help="pixels")
    takes = f"in {TAKES} takes, or fewer where they would be shorter than {SHORTEST_TAKE} frames"
    add(
        "--train_frames", type=whole(1), default=1600, metavar="N", help=f"frames of the train split, {takes}"
    )
    add("--val_frames", type=whole(1), default=630, metavar="N", help="frames of the val split")
    add("--test_frames", type=whole(1), default=630, metavar="N", help="frames of each test sequence")
    add("--test_sequences", type=whole(1), default=2, metavar="N", help="test videos")
    add("--seed", type=whole(0), default=0, metavar="N", help="of the random motion")
    add("--workers", type=whole(1), default=os.cpu_count() or 1, metavar="N", help="processes that draw")
    overwrite = "replace the dataset in an OUT that is not empty; nothing else there changes"
    add("--overwrite", action="store_true", help=overwrite)
    return parser.parse_args()


def picture_size(text):
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    size = tuple(int(part) for part in match.groups()) if match else (0, 0)
    if not all(16 <= pixels <= 4096 for pixels in size):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size: expected WIDTHxHEIGHT, each from 16 to 4096, such as 64x32"
        )
    return size


def check_out(out: Path, overwrite: bool) -> None:
    """Raises `UserError` where the dataset must not be written to `out`."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is not a folder: give a new or empty folder")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise UserError(f"{out} is not empty: give another folder, or --overwrite to replace its dataset")


def draw_all(jobs: list[Job], workers: int) -> None:
    """Draw all frames in up to `workers` processes, none of which outlives this call.

    Ctrl-C and SIGTERM end the drawing. Afterwards they are ignored, because the rest takes moments.

    Raises:
        OSError: a picture cannot be written.
        UserError: a process was killed.
    """
    processes, reports = [], []
    try:
        # Blocked until all have started: a process that just started still has this one's handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, cli.STOP_SIGNALS)
        for first in range(min(workers, len(jobs))):
            report, sender = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.Process(target=_draw_share, args=(jobs[first::workers], sender))
            process.start()
            sender.close()
            processes.append(process)
            reports.append(report)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, cli.STOP_SIGNALS)
        while reports:
            for report in wait(reports):
                if error := report.recv():
                    raise error
                reports.remove(report)
    except EOFError:
        raise UserError("a drawing process ended early; if memory ran out, give fewer --workers") from None
    finally:
        cli.ignore_signals()
        for process in processes:
            process.kill()
            process.join()


def _draw_share(jobs, sender: Connection):
    """The work of one process; sends None at its end, or the `OSError` that stopped it."""
    cli.ignore_signals()  # the main process answers them, and kills this one
    error = None
    try:
        for job in jobs:
            if not multiprocessing.parent_process().is_alive():
                return
            draw(job)
    except OSError as refusal:
        error = refusal
    sender.send(error)


def restore(out: Path) -> None:
    """Move back the old dataset that a killed process has moved away, and remove what else it left."""
    for old in (out / REPLACED).glob("*"):
        if not os.path.lexists(out / old.name):
            old.rename(out / old.name)
    for name in (REPLACED, UNFINISHED):
        shutil.rmtree(out / name, ignore_errors=True)


def publish(root: Path, out: Path) -> None:
    """Move all that is in `root` to `out` and remove what was there by the same names; or change nothing.

    Raises:
        OSError: something cannot be moved.
        UserError: the new dataset is in place, but the old one cannot be removed.
    """
    replaced = out / REPLACED
    replaced.mkdir()
    names = sorted(path.name for path in root.iterdir())
    moves = [(out / name, replaced / name) for name in names if os.path.lexists(out / name)]
    moves += [(root / name, out / name) for name in names]
    done = []
    try:
        for source, target in moves:
            source.rename(target)
            done.append((source, target))
    except OSError:
        for source, target in reversed(done):
            target.rename(source)
        replaced.rmdir()
        raise
    try:
        shutil.rmtree(replaced)
    except OSError as error:
        raise UserError(f"the new dataset is complete, but the old one cannot be removed: {error}") from None


def main() -> None:
    """Run the program."""
    args = parse_arguments()
    check_out(args.out, args.overwrite)
    is_new = not args.out.exists()
    root = args.out / UNFINISHED
    try:
        restore(args.out)
        root.mkdir(parents=True)
        jobs = prepare(args, root)
        draw_all(jobs, args.workers)
        publish(root, args.out)
    except OSError as error:
        raise UserError(f"cannot write {args.out}: {error}") from None
    finally:
        cli.ignore_signals()
        shutil.rmtree(root, ignore_errors=True)
        if is_new and args.out.is_dir() and not any(args.out.iterdir()):
            args.out.rmdir()
    print(f"{args.out}: {len(jobs)} frames of {args.size[0]}x{args.size[1]} and their poses")


if __name__ == "__main__":
    cli.run(main)
