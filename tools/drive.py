"""Have a trained person move as another one does in a video, in poses.json, or in a folder of pose pictures.

    python -m tools.drive RUN/best.ckpt friend.mp4 OUT --DR data/me

Written to OUT: driven.gif and driven.mp4 (poses and prediction side by side), driven_sheet.png to look at,
and driven.npz with the frames. DR is the dataset of the trained person: its first test frame is where the
motion begins, and its poses.json tells the lengths of their bones.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine import console

if __name__ == "__main__":
    console.prepare()

import argparse
import json

import numpy as np
from PIL import Image

import utils
from engine import checkpoint, evaluate, files, folder, memory
from engine.console import UserError
from engine.device import keep_pages, on_device, select_device
from engine.parser import Parser, real, whole
from engine.progress import Progress
from engine.threads import Threads
from frame_cache import load_pictures, numbered_frames, read_picture, resized
from modules import VAE_Model
from tools.poses import blazepose, joints, video
from tools.poses.crop import find_crop
from tools.poses.fit import fitted
from tools.poses.models import model_folder
from tools.studio.frames import to_uint8
from tools.studio.skeleton import JOINTS, paint_bones


def parse(argv=None) -> argparse.Namespace:
    """The command line, checked."""
    parser = Parser(prog="drive.py", description="Have a trained person move as another one does.")
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


def read_poses(path: Path) -> tuple[np.ndarray, tuple[int, int]]:
    """The places of joints `(T, J, 2)` of a poses.json, NaN where they are not known, and the pictures' size.

    Raises:
        UserError: no such file, or other content.
    """
    try:
        if not path.is_file():
            raise FileNotFoundError("no such file")
        poses = json.loads(path.read_text("utf-8"))
        if tuple(poses["joints"]) != JOINTS:
            raise ValueError("it has other joints")
        rows = [[place or (np.nan, np.nan) for place in entry["pixels"]] for entry in poses["frames"]]
        places, (width, height) = np.array(rows, float).reshape(-1, len(JOINTS), 2), poses["size"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the poses of a film ({error}); tools.film writes them") from None
    return places, (int(width), int(height))


def source_places(args, aspect: float) -> tuple[np.ndarray, tuple[int, int]]:
    """The places of the other person's joints `(T, J, 2)`, and the size of the picture that they are in."""
    if args.source.suffix == ".json":
        return read_poses(args.source)
    estimator = blazepose.BlazePose(model_folder(args.pose_models), args.person)
    total = video.frame_count(args.source, args.fps, args.start, args.end)
    frames = video.frames(args.source, args.fps, args.start, args.end)
    rows, size = [], (0, 0)
    for picture in Progress(frames, (f"poses of {args.source.name}",), total=total, unit="frame"):
        pose, size = estimator(picture), picture.shape[1::-1]
        nobody = np.full((len(JOINTS), 3), np.nan)
        rows.append(nobody if pose is None else joints.painted_joints(pose.landmarks, joints.BLAZEPOSE))
    places = joints.repaired(np.array(rows).reshape(-1, len(JOINTS), 3))
    if not joints.is_somebody(places).any():
        raise UserError(f"{args.source}: nobody was found in its {len(rows)} frames")
    crop = find_crop(places, size, aspect)
    return crop.places(places, (crop.width, crop.height)), (crop.width, crop.height)


def pose_pictures(args, flags) -> np.ndarray:
    """The pose pictures to paint the person by, uint8 `(T, H, W, 3)` in the size of the networks."""
    size = flags.frame_H, flags.frame_W
    if args.source.is_dir():
        entries = list(numbered_frames(args.source).values())
        return load_pictures(args.source, "poses", entries, size, flags.num_workers)[:]
    places, own_size = source_places(args, flags.frame_W / flags.frame_H)
    if args.fit:
        trained, own_size = read_poses(args.DR / "poses.json")
        places = fitted(places, trained)
    width, height = own_size
    pictures = []
    for row in Progress(places, ("pose pictures",), unit="frame", leave=False):
        picture = to_uint8(paint_bones(row, height, width), height)
        pictures.append(resized(Image.fromarray(picture), size))
    return np.stack(pictures)


def main(argv=None) -> None:
    """Find the poses, fit them, paint the person, write."""
    args = parse(argv)
    stored = ["--DR", str(args.DR), "--save_root", str(args.out), "--ckpt_path", str(args.ckpt)]
    flags, start = checkpoint.tester_flags([*stored, *(["--device", args.device] if args.device else [])])
    folder.make_writable(args.out, args.DR)
    folder.tidy(args.out)
    keep_pages()
    device, threads = select_device(flags), Threads(None)
    memory.require_model(flags, device)
    model = VAE_Model(flags)
    checkpoint.load_weights(model, args.ckpt, start)
    on_device(model, flags, device)
    poses = pose_pictures(args, flags)
    first = next(iter(numbered_frames(args.DR / "test" / "test_img" / "0").values()))
    own_pose = next(iter(numbered_frames(args.DR / "test" / "test_label" / "0").values()))
    size = flags.frame_H, flags.frame_W
    # The given frame has its own pose; the motion begins after it.
    poses = np.concatenate([read_picture(own_pose.path, size)[None], poses])
    sequence = evaluate.Sequence("driven", poses, read_picture(first.path, size), fill_poses=flags.fill_poses)
    threads.update()
    with Progress(total=len(poses) - 1, descriptions=("painting the person",), unit="frame") as bar:
        evaluate.render(model, [sequence], flags, bar.update)
    frames = utils.to_uint8(sequence.prediction)
    film = utils.comparison(poses, frames, None)
    with files.replacing(args.out / "driven.npz") as temporary:
        np.savez_compressed(temporary, prediction=frames, pose=poses)
    utils.save_sheet(args.out / "driven_sheet.png", film)
    utils.save_gif(args.out / "driven.gif", film)
    utils.save_mp4(args.out / "driven.mp4", film)
    print(f"{len(frames)} frames are in {args.out}: driven.mp4, driven.gif, driven_sheet.png, driven.npz")


if __name__ == "__main__":
    console.run(main)
