"""What a dataset consists of: its takes, its folders and its files, in the layout that Trainer.py reads."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tools import pose_file

from .body import Figure, make_take
from .frames import paint_frame, paint_pose, pose_places, view_of
from .skeleton import JOINTS

SPLITS = ("train", "val", "test")
TAKES = 4  # of the training split
SHORTEST_TAKE = 40  # frames; shorter training splits have fewer takes
GAP = 100  # between the frame numbers of two takes


class Job(NamedTuple):
    """One frame to draw."""

    figure: Figure
    frame: int  # of the figure
    size: tuple[int, int]  # width and height of the pictures
    picture_paths: list[Path]  # to write; copies of one picture
    pose_path: Path


def _takes(args):
    """Every take: its split, its index in the split, the numbers of its frames, and its folders.

    The folders are for the pictures, for the poses and, in the test split, for a copy of the first picture.
    """
    start = 0
    count = min(TAKES, max(1, args.train_frames // SHORTEST_TAKE))
    for index, part in enumerate(np.array_split(np.arange(args.train_frames), count)):
        numbers = range(start, start + len(part))
        yield "train", index, numbers, ("train/train_img", "train/train_label")
        start = numbers.stop + GAP
    yield "val", 0, range(args.val_frames), ("val/val_img", "val/val_label")
    for i in range(args.test_sequences):
        folders = (f"test/test_gt/{i}", f"test/test_label/{i}", f"test/test_img/{i}")
        yield "test", i, range(args.test_frames), folders


def prepare(args, root: Path) -> list[Job]:
    """Create the folders of the dataset below `root` and write its poses.json; returns all frames to draw.

    Each take has its own random generator, seeded with the seed, the split and the take's index in it.
    """
    jobs, entries = [], []
    for split, index, numbers, folders in _takes(args):
        rng = np.random.default_rng([args.seed, SPLITS.index(split), index])
        figure = make_take(rng, len(numbers), view_of(*args.size).half_range)
        for folder in folders:
            (root / folder).mkdir(parents=True, exist_ok=True)
        pictures, poses, *first = (root / folder for folder in folders)
        places, visible = pose_places(figure, *args.size), np.ones(len(JOINTS))
        for frame, number in enumerate(numbers):
            entries.append(pose_file.frame(folders[1], number, places[frame], args.size, visible))
            name = f"frame{number:06d}.png"
            copies = [folder / name for folder in (pictures, *(first if frame == 0 else ()))]
            jobs.append(Job(figure, frame, args.size, copies, poses / name))
    pose_file.write(root / pose_file.NAME, args.size, entries, estimator="none: the person is drawn")
    return jobs


def draw(job: Job) -> None:
    """Draw and write the picture and the pose of one frame."""
    picture = Image.fromarray(paint_frame(job.figure, job.frame, *job.size))
    for path in job.picture_paths:
        picture.save(path, compress_level=4)
    Image.fromarray(paint_pose(job.figure, job.frame, *job.size)).save(job.pose_path, compress_level=4)
