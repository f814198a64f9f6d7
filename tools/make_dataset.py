#!/usr/bin/env python3
"""Draw a dataset: a person who walks, turns, waves, crouches, jumps and dances in a studio.

The pictures, the pose pictures beside them and, for the tests, the truth, in the lab's layout:

    OUT/train/train_img/frame000000.png ...      OUT/train/train_label/ with the same names
    OUT/val/val_img/frame000000.png ...          OUT/val/val_label/ with the same names
    OUT/test/test_img/0/frame000000.png          the first frame of test sequence 0
    OUT/test/test_label/0/frame000000.png ...    its poses
    OUT/test/test_gt/0/frame000000.png ...       its true frames

The training split is a few continuous takes; between two takes the frame numbers jump. No two takes
share their motion. The same flags give the same bytes, whatever the number of workers.
"""

import argparse
import multiprocessing
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from studio.body import make_take
from studio.frames import paint_frame, paint_pose, view_of

SPLITS = ("train", "val", "test")
UNFINISHED = ".unfinished"  # where the pictures lie inside OUT until all of them are there
TAKES = 4  # of the training split
SHORTEST_TAKE = 40  # frames; shorter training splits have fewer takes
GAP = 100  # numbers left out between two takes
CHUNK = 24  # frames a worker draws at a time


def parse_arguments(argv=None):
    """The checked command line; mistakes end the program with one line and exit code 2."""
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write, new or empty")
    parser.add_argument("--size", type=_size, default=(64, 32), metavar="WxH", help="pixels (default: 64x32)")
    for split, default in (("train", 1600), ("val", 630), ("test", 630)):
        of = " of each test sequence" if split == "test" else f" of the {split} split"
        if split == "train":
            of += f", in {TAKES} takes, or fewer where they would be under {SHORTEST_TAKE} frames"
        parser.add_argument(
            f"--{split}_frames",
            type=_count,
            default=default,
            metavar="N",
            help=f"frames{of} (default: {default})",
        )
    parser.add_argument(
        "--test_sequences", type=_count, default=2, metavar="N", help="test videos (default: 2)"
    )
    parser.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="another seed, another motion (default: 0)",
    )
    parser.add_argument(
        "--workers",
        type=_count,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes that draw (default: one a processor)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace train, val and test in an OUT that is not empty; touch nothing else there",
    )
    return parser.parse_args(argv)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose complaints take one line."""

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")


def _size(text):
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    size = tuple(int(part) for part in match.groups()) if match else (0, 0)
    if not all(16 <= pixels <= 4096 for pixels in size):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size: expected WIDTHxHEIGHT, each from 16 to 4096, such as 64x32"
        )
    return size


def _count(text):
    return _whole_number(text, 1)


def _seed(text):
    return _whole_number(text, 0)


def _whole_number(text, least):
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, at least {least}")
    return number


def plan(args):
    """Every take of the dataset: (split, place in the split, frame numbers, folders).

    folders: (for the pictures, for the pose pictures, for a copy of the first picture or None), under OUT.
    """
    takes, start = [], 0
    count = min(TAKES, max(1, args.train_frames // SHORTEST_TAKE))
    for index, part in enumerate(np.array_split(np.arange(args.train_frames), count)):
        numbers = range(start, start + len(part))
        takes.append(("train", index, numbers, ("train/train_img", "train/train_label", None)))
        start = numbers.stop + GAP
    takes.append(("val", 0, range(args.val_frames), ("val/val_img", "val/val_label", None)))
    for i in range(args.test_sequences):
        folders = f"test/test_gt/{i}", f"test/test_label/{i}", f"test/test_img/{i}"
        takes.append(("test", i, range(args.test_frames), folders))
    return takes


def jobs(args, root):
    """Pieces of work for `draw`, in order; the motion of each take depends on seed, split and place."""
    width, height = args.size
    half_range = view_of(width, height).half_range
    for split, index, numbers, folders in plan(args):
        rng = np.random.default_rng([args.seed, SPLITS.index(split), index])
        figure = make_take(rng, len(numbers), half_range)
        paths = [folder and root / folder for folder in folders]
        for folder in filter(None, paths):
            folder.mkdir(parents=True, exist_ok=True)
        for at in range(0, len(numbers), CHUNK):
            part = numbers[at : at + CHUNK]
            yield figure.part(at, at + len(part)), part, paths, args.size


def draw(job):
    """Draw and write some frames of one take; returns how many. job: see `jobs`."""
    figure, numbers, (pictures, poses, first), (width, height) = job
    for frame, number in enumerate(numbers):
        name = f"frame{number:06d}.png"
        picture = Image.fromarray(paint_frame(figure, frame, width, height))
        picture.save(pictures / name, compress_level=4)
        if first and number == 0:
            picture.save(first / name, compress_level=4)
        pose = Image.fromarray(paint_pose(figure, frame, width, height))
        pose.save(poses / name, compress_level=4)
    return len(numbers)


def draw_all(args, root):
    """Draw the whole dataset into `root`; returns the number of frames."""
    if args.workers == 1:
        return sum(map(draw, jobs(args, root)))
    # Ctrl-C is for the main process, which ends the others.
    with multiprocessing.Pool(args.workers, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        return sum(pool.imap_unordered(draw, jobs(args, root)))


def publish(root, out):
    """Move the finished splits from `root` to `out`, in the place of older ones."""
    for split in SPLITS:
        if (out / split).exists():
            (out / split).rename(root / f"old_{split}")
    for split in SPLITS:
        (root / split).rename(out / split)


def check_out(args):
    """A complaint about OUT, or None."""
    if args.out.exists() and not args.out.is_dir():
        return f"{args.out} is not a folder: give a new or empty folder"
    if args.out.is_dir() and any(args.out.iterdir()) and not args.overwrite:
        return f"{args.out} is not empty: give another folder, or --overwrite to replace its dataset"
    return None


def _interrupt(*_):
    """The first Ctrl-C stops the drawing; a second one must not stop the cleaning up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(argv=None):
    """Run the program; returns its exit code."""
    args = parse_arguments(argv)
    complaint = check_out(args)
    if complaint:
        print(f"make_dataset.py: error: {complaint}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGINT, _interrupt)
    made_out = not args.out.exists()
    root = args.out / UNFINISHED
    try:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        frames = draw_all(args, root)
        publish(root, args.out)
    except OSError as error:
        print(f"make_dataset.py: error: cannot write {args.out}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("make_dataset.py: stopped, nothing written", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(root, ignore_errors=True)
        if made_out and args.out.is_dir() and not any(args.out.iterdir()):
            args.out.rmdir()
    print(f"{args.out}: {frames} frames of {args.size[0]}x{args.size[1]} and their poses")
    return 0


if __name__ == "__main__":
    sys.exit(main())
