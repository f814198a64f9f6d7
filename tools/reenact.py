"""Reenactment: drive a trained person with a video, a poses.json, or a folder of pose images.

    python -m tools.reenact RUN/best.ckpt friend.mp4 OUT

Written to OUT: reenacted.mp4 (poses and prediction side by side), reenacted.gif (its first half minute) and
reenacted_sheet.png. The dataset of the trained person has the reference frame, its first test frame, and in
poses.json the person's bone lengths. Memory does not depend on the length of the video.
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

import numpy as np
from PIL import Image

import utils
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
from tools.poses import blazepose, joints, video
from tools.poses.crop import find_crop
from tools.poses.models import model_folder
from tools.poses.retarget import retarget
from tools.synthetic.frames import draw_keypoints
from tools.synthetic.skeleton import JOINTS
from training.checkpoint import load_for_inference
from training.configuration import require_dataset
from training.options import WHITE
from training.pose_background import MAX_POSES, resolve_pose_background
from utils import colour_name, to_float

MAX_GIF_FRAMES = 600


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = Parser(prog="reenact.py", description="Drive a trained person with the poses of another.")
    add = parser.add_argument
    add("ckpt", type=Path, metavar="CKPT", help="checkpoint of the trained person")
    add("source", type=Path, metavar="SOURCE", help="a video, a poses.json, or a folder of pose images")
    add("out", type=Path, metavar="OUT", help="output folder")
    add("--DR", type=Path, help="dataset of the trained person; by default that of the checkpoint's run")
    add("--no-fit", dest="fit", action="store_false", help="do not retarget the poses to the trained person")
    add("--fps", type=float_range(0, exclusive=True), default=20.0, help="frames per second of a video")
    add("--start", type=float_range(0), default=0.0, help="start in the video, in seconds")
    add("--end", type=float_range(0, exclusive=True), help="end in the video, in seconds")
    add("--person", type=int_range(1, 99), default=1, help="person to track: 1 is the largest at the start")
    add("--pose_models", type=Path, metavar="FOLDER", help="pose networks to use instead of a download")
    add("--device", help="cpu, cuda, cuda:N or mps (Apple); by default CUDA where available")
    return parser.parse_args(argv)


def source_keypoints(args, aspect: float) -> tuple[np.ndarray, tuple[int, int]]:
    """The keypoints of the driving person `(T, J, 2)`, and the size of the images that they are in."""
    if args.source.suffix == ".json":
        poses = pose_file.read(args.source)
        return poses.keypoints, poses.size
    estimator = blazepose.BlazePose(model_folder(args.pose_models), args.person)
    total = video.num_frames(args.source, args.fps, args.start, args.end)
    frames = video.frames(args.source, args.fps, args.start, args.end)
    rows, size = [], (0, 0)
    for image in Progress(frames, (f"poses of {args.source.name}",), total=total, unit="frame"):
        size = image.shape[1::-1]
        rows.append(joints.estimate(estimator, image))
    keypoints = joints.smooth(np.array(rows).reshape(-1, len(JOINTS), 3))
    if not pose_file.has_person(keypoints).any():
        raise UserError(f"{args.source}: no person found in its {len(rows)} frames")
    crop = find_crop(keypoints, size, aspect)
    return crop.transform(keypoints, (crop.width, crop.height)), (crop.width, crop.height)


def pose_images(args, config) -> tuple[int, Iterator[np.ndarray]]:
    """The number of poses, and their images in chunks, uint8 `(N, H, W, 3)` in the model's size."""
    size = config.frame_H, config.frame_W
    if args.source.is_dir():
        entries = list(numbered_images(args.source).values())
        first = np.stack([read_image(entry.path, size) for entry in entries[:MAX_POSES]])
        resolve_pose_background(first, config.pose_background, args.source)
        return len(entries), _chunks(entries, lambda entry: read_image(entry.path, size))
    if config.pose_background != WHITE:
        colour = colour_name(config.pose_background)
        reason = f"trained with poses on {colour}, and skeletons are drawn on white"
        raise UserError(f"{args.ckpt}: {reason}; give a folder of pose images on {colour}")
    keypoints, source_size = source_keypoints(args, config.frame_W / config.frame_H)
    if args.fit:
        target = pose_file.read(args.DR / pose_file.NAME)
        keypoints, source_size = retarget(keypoints, target.keypoints), target.size

    def draw(row: np.ndarray) -> np.ndarray:
        return resized(Image.fromarray(draw_keypoints(row, *source_size)), size)

    return len(keypoints), _chunks(keypoints, draw)


def _chunks(rows: Sequence, image_of: Callable) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), POSE_CHUNK):
        yield np.stack([image_of(row) for row in rows[start : start + POSE_CHUNK]])


def reference(args, config) -> list[np.ndarray]:
    """The first test frame of the trained person, and its pose, each uint8 `(H, W, 3)`."""
    folders = args.DR / "test" / "test_img" / "0", args.DR / "test" / "test_label" / "0"
    entries = (next(iter(numbered_images(folder).values())) for folder in folders)
    return [read_image(entry.path, (config.frame_H, config.frame_W)) for entry in entries]


def render(model: VAE_Model, args, config, beginning: list[utils.VideoGrid]) -> Iterator[utils.VideoGrid]:
    """Poses and prediction side by side, in chunks; those that the GIF shows are added to `beginning`."""
    device = next(model.parameters()).device
    first_frame, first_pose = reference(args, config)
    wrap_step = Graphed if device.type == "cuda" else None
    total, chunks = pose_images(args, config)
    images = to_float(first_frame, device)[None], to_float(first_pose, device)[None]
    # One context for all chunks: a recorded graph reads the bf16 weights that it caches.
    with (
        autocast(config.precision, device),
        Progress(total=total, descriptions=("rendering",), unit="frame") as bar,
    ):
        rollout = StreamingRollout(model, *images, config.tta, wrap_step)
        for poses in chunks:
            frames = utils.to_uint8(rollout(to_float(poses)[None])[0])
            grid = utils.comparison(poses, frames, None)
            if len(beginning) * POSE_CHUNK < MAX_GIF_FRAMES:
                beginning.append(grid)
            bar.update(len(frames))
            yield grid


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
    beginning: list[utils.VideoGrid] = []
    files.save(args.out / "reenacted.mp4", utils.save_mp4, render(model, args, config, beginning))
    grid = replace(beginning[0], frames=np.concatenate([grid.frames for grid in beginning]))
    files.save(args.out / "reenacted_sheet.png", utils.save_sheet, grid)
    files.save(args.out / "reenacted.gif", utils.save_gif, grid)
    cli.log(f"look at reenacted.mp4, reenacted.gif and reenacted_sheet.png in {args.out}")


if __name__ == "__main__":
    cli.run(main)
