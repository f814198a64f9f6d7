"""Reenactment: drive a trained person with a video, keypoint files, or a folder of pose images.

    python -m tools.reenact RUN/best.ckpt friend.mp4 OUT

Written to OUT: reenacted.mp4 (poses and prediction side by side, with the sound of the video), reenacted.gif
(its beginning) and reenacted_sheet.png. Speed and length match the driving video. The reference frame is the
first test frame of the trained person's dataset; its poses.json provides the bone lengths.
Memory does not depend on the length of the video.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime import cli

if __name__ == "__main__":
    cli.prepare()

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from PIL import Image

import utils
from dataloader import frames_per_second
from images import numbered_images, read_image, resized
from modules import VAE_Model
from modules.generation import POSE_CHUNK, StreamingRollout
from runtime import files, run_dir
from runtime.cli import UserError
from runtime.cuda_graph import Graphed
from runtime.device import autocast, select_device, set_threads, tune_malloc
from runtime.parser import Parser, float_range, int_range
from runtime.progress import Progress
from tools import pose_file
from tools.optional import require
from tools.poses import keypoint_files, sound, video
from tools.poses.blazepose import BlazePose
from tools.poses.crop import find_crop
from tools.poses.estimate import JointEstimator, estimate_joints
from tools.poses.joints import smooth
from tools.poses.models import model_folder
from tools.poses.retarget import missing_joints, retarget
from tools.synthetic.frames import draw_keypoints
from training.checkpoint import load_for_inference
from training.configuration import require_dataset
from training.options import WHITE
from training.pose_background import MAX_POSES, resolve_pose_background
from training.pose_filling import is_drawn
from utils import VideoGrid, colour_name, to_float

MAX_GIF_FRAMES = 600


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = Parser(prog="reenact.py", description="Drive a trained person with the poses of another.")
    add = parser.add_argument
    add("ckpt", type=Path, metavar="CKPT", help="checkpoint of the trained person")
    source = "a video, a poses.json, JSON of OpenPose, COCO or DWPose, or a folder of pose images"
    add("source", type=Path, metavar="SOURCE", help=source)
    add("out", type=Path, metavar="OUT", help="output folder")
    add("--DR", type=Path, help="dataset of the trained person; by default the one in the checkpoint")
    add("--no-fit", dest="fit", action="store_false", help="do not retarget the poses to the trained person")
    fps = "output frame rate, at most the video's; by default the dataset's"
    add("--fps", type=float_range(0, exclusive=True), help=fps)
    add("--start", type=float_range(0), default=0.0, help="start in the video, in seconds")
    add("--end", type=float_range(0, exclusive=True), help="end in the video, in seconds")
    add("--person", type=int_range(1, 99), default=1, help="person to track: 1 is the largest at the start")
    add("--pose_models", type=Path, metavar="FOLDER", help="pose networks to use instead of a download")
    add("--device", help="cpu, cuda, cuda:N or mps (Apple); by default CUDA where available")
    return parser.parse_args(argv)


class Driver(NamedTuple):
    """The poses of the driving person.

    Attributes:
        keypoints: `(T, J, 2)` in pixels of `size`, NaN where unknown.
        size: width and height of the images.
        fps: frames per second.
    """

    keypoints: np.ndarray
    size: tuple[int, int]
    fps: float


def read_driver(args, fps: float, aspect: float) -> Driver:
    """The driver in a video or in keypoint files.

    Args:
        fps: frames per second at most.
        aspect: width / height of the rendered images, to which those of a video are cropped.
    """
    if is_pose_file := args.source.suffix == ".json" and pose_file.is_poses(args.source):
        poses = pose_file.read(args.source)
        keypoints, timeline = poses.keypoints, video.uniform(len(poses.keypoints), poses.size, poses.fps)
    elif args.source.suffix == ".json" or args.source.is_dir():
        joints, size = keypoint_files.read_all(args.source, fps, args.person)
        keypoints, timeline = smooth(joints), video.uniform(len(joints), size, fps)
    else:
        keypoints, timeline = None, video.scan(args.source)
    fps = video.sampled_fps(timeline, fps)
    shown = video.resample(timeline, fps, args.start, args.end)
    if not len(shown):
        raise UserError(f"{args.source}: no frames between --start and --end")
    keypoints = _estimated(args, timeline, shown) if keypoints is None else keypoints[shown]
    if not pose_file.has_person(keypoints).any():
        raise UserError(f"{args.source}: no person found in its {len(shown)} frames")
    if is_pose_file:
        return Driver(keypoints, timeline.size, fps)
    crop = find_crop(keypoints, timeline.size, aspect)
    size = crop.width, crop.height
    return Driver(crop.transform(keypoints, size), size, fps)


def _estimated(args, timeline: video.Timeline, shown: np.ndarray) -> np.ndarray:
    """The keypoints `(T, J, 2)` in some frames of a video, in any order and several times."""
    indices = np.unique(shown)
    estimator = JointEstimator(BlazePose(model_folder(args.pose_models)), args.person)
    joints = np.array([row for row, _ in estimate_joints(estimator, timeline, indices, iter(()))])
    shots = timeline.shots[indices]
    keypoints = [smooth(joints[shots == shot], timeline.size) for shot in np.unique(shots)]
    return np.concatenate(keypoints)[np.searchsorted(indices, shown)]


class Poses(NamedTuple):
    """The pose images that drive the model.

    Attributes:
        count: number of images.
        chunks: of images, uint8 `(N, H, W, 3)` in the model's size.
        fps: frames per second.
    """

    count: int
    chunks: Iterator[np.ndarray]
    fps: float


def pose_images(args, config) -> Poses:
    """The pose images in a folder, or drawn from keypoints."""
    size, dataset_fps = (config.frame_H, config.frame_W), frames_per_second(args.DR)
    if args.source.is_dir() and not keypoint_files.is_keypoint_folder(args.source):
        entries = list(numbered_images(args.source).values())
        first = np.stack([read_image(entry.path, size) for entry in entries[:MAX_POSES]])
        resolve_pose_background(first, config.pose_background, args.source)
        chunks = _chunks(entries, lambda entry: read_image(entry.path, size))
        return Poses(len(entries), chunks, args.fps or dataset_fps)
    if config.pose_background != WHITE:
        colour = colour_name(config.pose_background)
        reason = f"trained with poses on {colour}, but skeletons are drawn on white"
        raise UserError(f"{args.ckpt}: {reason}; give a folder of pose images on {colour}")
    target = pose_file.read(args.DR / pose_file.NAME) if args.fit else None
    driver = read_driver(args, args.fps or dataset_fps, config.frame_W / config.frame_H)
    keypoints, source_size = driver.keypoints, driver.size
    if target:
        if missing := missing_joints(keypoints, target.keypoints):
            cli.log(f"{args.source}: never shows {', '.join(missing)}; they stay at their usual position")
        keypoints, source_size = retarget(keypoints, target.keypoints), target.size

    def draw(row: np.ndarray) -> np.ndarray:
        return resized(Image.fromarray(draw_keypoints(row, *source_size)), size)

    return Poses(len(keypoints), _chunks(keypoints, draw), driver.fps)


def _chunks(rows: Sequence, image_of: Callable) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), POSE_CHUNK):
        yield np.stack([image_of(row) for row in rows[start : start + POSE_CHUNK]])


def reference(args, config) -> list[np.ndarray]:
    """The first test frame of the trained person, and its pose, each uint8 `(H, W, 3)`."""
    folders = args.DR / "test" / "test_img" / "0", args.DR / "test" / "test_label" / "0"
    entries = (next(iter(numbered_images(folder).values())) for folder in folders)
    return [read_image(entry.path, (config.frame_H, config.frame_W)) for entry in entries]


def render(model: VAE_Model, args, config, poses: Poses, beginning: list[VideoGrid]) -> Iterator[VideoGrid]:
    """Poses and prediction side by side, in chunks; those that the GIF shows are added to `beginning`."""
    device = next(model.parameters()).device
    first_frame, first_pose = reference(args, config)
    wrap_step = Graphed if device.type == "cuda" else None
    images = to_float(first_frame, device)[None], to_float(first_pose, device)[None]
    num_blank = 0
    # One context for all chunks: the captured CUDA graph reads the bf16 weights that autocast caches.
    with (
        autocast(config.precision, device),
        Progress(total=poses.count, descriptions=("rendering",), unit="frame") as bar,
    ):
        rollout = StreamingRollout(model, *images, config.tta, wrap_step)
        for chunk in poses.chunks:
            frames = utils.to_uint8(rollout(to_float(chunk)[None])[0])
            grid = utils.comparison(chunk, frames, None, poses.fps)
            num_blank += int((~is_drawn(chunk, config.pose_background)).sum())
            if len(beginning) * POSE_CHUNK < MAX_GIF_FRAMES:
                beginning.append(grid)
            bar.update(len(frames))
            yield grid
    cli.log(f"{args.source}: {num_blank} of {poses.count} poses are blank, {poses.fps:.4g} per second")


def main(argv: list[str] | None = None) -> None:
    """Load the model, find and retarget the poses, render, write."""
    args = parse(argv)
    require("av", "requirements-video.txt")
    flags = {"DR": args.DR} if args.DR else {}
    model, config = load_for_inference(args.ckpt, select_device(args.device, gpu=1), **flags)
    require_dataset(config, "DR" in flags)
    args.DR = config.DR
    run_dir.make_writable(args.out, args.DR)
    run_dir.tidy(args.out)
    tune_malloc()
    set_threads(None)
    poses = pose_images(args, config)
    beginning: list[VideoGrid] = []
    movie = args.out / "reenacted.mp4"
    files.save(movie, utils.save_mp4, render(model, args, config, poses, beginning))
    if args.source.is_file() and args.source.suffix != ".json" and sound.has_sound(args.source):
        files.save(movie, sound.add_sound, movie, args.source, args.start)
    frames = np.concatenate([grid.frames for grid in beginning])
    grid = replace(beginning[0], frames=frames[:MAX_GIF_FRAMES])
    files.save(args.out / "reenacted_sheet.png", utils.save_sheet, grid)
    files.save(args.out / "reenacted.gif", utils.save_gif, grid)
    cli.log(f"wrote reenacted.mp4, reenacted.gif and reenacted_sheet.png to {args.out}")


if __name__ == "__main__":
    cli.run(main)
