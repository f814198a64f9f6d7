"""The shots, folders and files of a synthetic dataset, in the layout that Trainer.py reads."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tools import pose_file

from .body import Figure, random_figure
from .frames import pose_keypoints, render_frame, render_pose, view_of
from .motion import FPS
from .skeleton import JOINTS

SPLITS = ("train", "val", "test")
NUM_SHOTS = 4  # of the training split; between two shots the frame numbers jump
MIN_SHOT_FRAMES = 40  # shorter training splits have fewer shots
SHOT_GAP = 100  # between the frame numbers of two shots


class Job(NamedTuple):
    """One frame to render."""

    figure: Figure
    frame: int  # of the figure
    size: tuple[int, int]  # width and height of the images
    image_paths: list[Path]  # to write: copies of one image
    pose_path: Path


def _shots(args):
    """Every shot: its split, its index in the split, the numbers of its frames, and its folders.

    The folders are for the images, for the poses and, in the test split, for a copy of the first image.
    """
    start = 0
    count = min(NUM_SHOTS, max(1, args.train_frames // MIN_SHOT_FRAMES))
    for index, part in enumerate(np.array_split(np.arange(args.train_frames), count)):
        numbers = range(start, start + len(part))
        yield "train", index, numbers, ("train/train_img", "train/train_label")
        start = numbers.stop + SHOT_GAP
    yield "val", 0, range(args.val_frames), ("val/val_img", "val/val_label")
    for i in range(args.test_sequences):
        folders = (f"test/test_gt/{i}", f"test/test_label/{i}", f"test/test_img/{i}")
        yield "test", i, range(args.test_frames), folders


def prepare(args, root: Path) -> list[Job]:
    """Create the folders of the dataset below `root` and write its poses.json; returns all frames to render.

    Each shot has its own random generator, seeded with the seed, the split and the shot's index in it.
    """
    jobs, entries = [], []
    for split, index, numbers, folders in _shots(args):
        rng = np.random.default_rng([args.seed, SPLITS.index(split), index])
        figure = random_figure(rng, len(numbers), view_of(*args.size).half_range)
        for folder in folders:
            (root / folder).mkdir(parents=True, exist_ok=True)
        images, poses, *first = (root / folder for folder in folders)
        keypoints, visible = pose_keypoints(figure, *args.size), np.ones(len(JOINTS))
        for frame, number in enumerate(numbers):
            entries.append(pose_file.frame(folders[1], number, keypoints[frame], args.size, visible))
            name = f"frame{number:06d}.png"
            copies = [folder / name for folder in (images, *(first if frame == 0 else ()))]
            jobs.append(Job(figure, frame, args.size, copies, poses / name))
    pose_file.write(root / pose_file.NAME, args.size, FPS, entries, estimator="none (synthetic person)")
    return jobs


def render(job: Job) -> None:
    """Render and write the image and the pose of one frame."""
    image = Image.fromarray(render_frame(job.figure, job.frame, *job.size))
    for path in job.image_paths:
        image.save(path, compress_level=4)
    Image.fromarray(render_pose(job.figure, job.frame, *job.size)).save(job.pose_path, compress_level=4)
