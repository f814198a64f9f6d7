"""Have a trained person move as another one does in a video, in poses.json, or in a folder of pose pictures.

    python -m tools.reenact RUN/best.ckpt friend.mp4 OUT --DR data/me

Written to OUT: driven.mp4 (poses and prediction side by side), driven.gif (the first half minute of it) and
driven_sheet.png to look at. DR is the dataset of the trained person: its first test frame is where the motion
begins, and its poses.json tells the lengths of their bones. A video of any length needs the same memory.
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
from image_cache import numbered_frames, read_picture, resized
from modules import VAE_Model
from modules.cvae import POSES_AT_ONCE
from modules.rollout import Rollout
from runtime import run_dir
from runtime.cli import UserError
from runtime.cuda_graph import Graphed
from runtime.device import autocast, keep_pages, on_device, select_device
from runtime.parser import Parser, real, whole
from runtime.progress import Progress
from runtime.threads import Threads
from tools import pose_file
from tools.poses import blazepose, joints, video
from tools.poses.crop import find_crop
from tools.poses.fit import fitted
from tools.poses.models import model_folder
from tools.synthetic.frames import paint_places
from tools.synthetic.skeleton import JOINTS
from training import checkpoint, memory
from utils import to_float

GIF_FRAMES = 600


def parse(argv=None) -> argparse.Namespace:
    """The command line, checked."""
    parser = Parser(prog="reenact.py", description="Have a trained person move as another one does.")
    add = parser.add_argument
    add("ckpt", type=Path, metavar="CKPT", help="checkpoint of the trained person")
    add("source", type=Path, metavar="SOURCE", help="a video, a poses.json, or a folder of pose pictures")
    add("out", type=Path, metavar="OUT", help="folder to write")
    add("--DR", type=Path, required=True, help="dataset of the trained person")
    add("--no-fit", dest="fit", action="store_false", help="leave the poses as large and where they are")
    add("--fps", type=real(0, above=True), default=20.0, help="frames per second to take from a video")
    add("--start", type=real(0), default=0.0, help="second of the video to begin at")
    add("--end", type=real(0, above=True), help="second of the video to end at")
    add("--person", type=whole(1, 99), default=1, help="whom to follow: 1 is the largest at first")
    add("--pose_models", type=Path, metavar="FOLDER", help="with the pose networks, instead of fetching them")
    add("--device", help="cuda, cuda:1, cpu; if not given, CUDA where available")
    return parser.parse_args(argv)


def source_places(args, aspect: float) -> tuple[np.ndarray, tuple[int, int]]:
    """The places of the other person's joints `(T, J, 2)`, and the size of the picture that they are in."""
    if args.source.suffix == ".json":
        poses = pose_file.read(args.source)
        return poses.places, poses.size
    estimator = blazepose.BlazePose(model_folder(args.pose_models), args.person)
    total = video.frame_count(args.source, args.fps, args.start, args.end)
    frames = video.frames(args.source, args.fps, args.start, args.end)
    rows, size = [], (0, 0)
    for picture in Progress(frames, (f"poses of {args.source.name}",), total=total, unit="frame"):
        size = picture.shape[1::-1]
        rows.append(joints.estimated(estimator, picture))
    places = joints.repaired(np.array(rows).reshape(-1, len(JOINTS), 3))
    if not pose_file.is_somebody(places).any():
        raise UserError(f"{args.source}: nobody was found in its {len(rows)} frames")
    crop = find_crop(places, size, aspect)
    return crop.places(places, (crop.width, crop.height)), (crop.width, crop.height)


def pose_pictures(args, flags) -> tuple[int, Iterator[np.ndarray]]:
    """How many poses there are, and pose pictures in pieces, uint8 `(N, H, W, 3)` in the networks' size."""
    size = flags.frame_H, flags.frame_W
    if args.source.is_dir():
        entries = list(numbered_frames(args.source).values())
        return len(entries), _pieces(entries, lambda entry: read_picture(entry.path, size))
    places, own_size = source_places(args, flags.frame_W / flags.frame_H)
    if args.fit:
        trained = pose_file.read(args.DR / pose_file.NAME)
        places, own_size = fitted(places, trained.places), trained.size

    def paint(row: np.ndarray) -> np.ndarray:
        return resized(Image.fromarray(paint_places(row, *own_size)), size)

    return len(places), _pieces(places, paint)


def _pieces(rows: Sequence, picture_of: Callable) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), POSES_AT_ONCE):
        yield np.stack([picture_of(row) for row in rows[start : start + POSES_AT_ONCE]])


def given_frame(args, flags) -> list[np.ndarray]:
    """The first test frame of the trained person, and its pose, each uint8 `(H, W, 3)`."""
    folders = args.DR / "test" / "test_img" / "0", args.DR / "test" / "test_label" / "0"
    entries = (next(iter(numbered_frames(folder).values())) for folder in folders)
    return [read_picture(entry.path, (flags.frame_H, flags.frame_W)) for entry in entries]


def films(model: VAE_Model, args, flags, kept: list[utils.Film]) -> Iterator[utils.Film]:
    """The person painted by the poses, in pieces; what the GIF and the sheet show is added to `kept`."""
    device = next(model.parameters()).device
    first_frame, first_pose = given_frame(args, flags)
    wrap_step = Graphed if device.type == "cuda" else None
    count, pieces = pose_pictures(args, flags)
    # Entered for each piece, because between two of them the writer of the video is at work.
    precision = autocast(flags.precision, device)
    with precision:
        pictures = to_float(first_frame, device)[None], to_float(first_pose, device)[None]
        rollout = Rollout(model, *pictures, flags.shifts, wrap_step)
    with Progress(total=count, descriptions=("painting the person",), unit="frame") as bar:
        for poses in pieces:
            with precision:
                frames = utils.to_uint8(rollout(to_float(poses)[None])[0])
            film = utils.comparison(poses, frames, None)
            if len(kept) * POSES_AT_ONCE < GIF_FRAMES:
                kept.append(film)
            bar.update(len(frames))
            yield film


def main(argv=None) -> None:
    """Find the poses, fit them, paint the person, write."""
    args = parse(argv)
    stored = ["--DR", str(args.DR), "--save_root", str(args.out), "--ckpt_path", str(args.ckpt)]
    flags, start = checkpoint.tester_flags([*stored, *(["--device", args.device] if args.device else [])])
    run_dir.make_writable(args.out, args.DR)
    run_dir.tidy(args.out)
    keep_pages()
    device, threads = select_device(flags), Threads(None)
    memory.require_model(flags, device)
    model = VAE_Model(flags)
    checkpoint.load_weights(model, args.ckpt, start)
    on_device(model, flags, device)
    threads.update()
    kept: list[utils.Film] = []
    utils.save_mp4(args.out / "driven.mp4", films(model, args, flags, kept))
    beginning = replace(kept[0], frames=np.concatenate([film.frames for film in kept]))
    utils.save_sheet(args.out / "driven_sheet.png", beginning)
    utils.save_gif(args.out / "driven.gif", beginning)
    print(f"look at driven.mp4, driven.gif and driven_sheet.png in {args.out}")


if __name__ == "__main__":
    cli.run(main)
