"""Make a dataset from a video of a person: frames, pose images, and the splits train, val and test.

    python -m tools.video_to_dataset me.mp4 --DR data/me

Written to data/me: train, val and test in the layout that Trainer.py reads; poses.json with the keypoints of
each frame; poses.png to look at. The last tenth of the frames is the test sequence, the tenth before it
validation. The camera must not move. A stopped tool is continued by the same command.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime import cli

if __name__ == "__main__":
    cli.prepare()

import argparse
import itertools
import json
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

import utils
from runtime import files
from runtime.cli import UserError
from runtime.parser import Parser, float_range, int_range
from runtime.progress import Progress
from tools import pose_file
from tools.make_dataset import UNFINISHED, check_output, image_size, publish, restore
from tools.optional import require
from tools.poses import blazepose, joints, video
from tools.poses.crop import Crop, find_crop
from tools.poses.models import PACKAGE, model_folder
from tools.synthetic.frames import draw_keypoints

JOINTS_LOG = ".joints.jsonl"  # joints that were estimated before a stop
SHOT_GAP = 100  # between the frame numbers of two shots
MAX_HELD_OUT = 630  # frames of validation and test
MIN_FRAMES = 20
SHEET_ROWS = 6
# Pixels per frame from which training is better with --recipe large, and with single clips.
LARGE_FRAME, MEDIUM_FRAME = 192 * 96, 128 * 64


@dataclass
class Frame:
    """A frame of the dataset.

    Attributes:
        number: in the dataset.
        video, index: where it is from.
        keypoints: `(J, 2)` in the video, smoothed.
        visibility: `(J,)` in [0, 1], as estimated; NaN without a person.
    """

    number: int
    video: int
    index: int
    keypoints: np.ndarray
    visibility: np.ndarray


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = Parser(prog="video_to_dataset.py", description="Make a dataset from a video of a person.")
    add = parser.add_argument
    add("videos", type=Path, nargs="+", metavar="VIDEO", help="videos, or folders of numbered images")
    add("--DR", type=Path, required=True, help="dataset to write, a new or empty folder")
    add("--fps", type=float_range(0, exclusive=True), default=30.0, help="frames per second to sample")
    add("--size", type=image_size, default="256x128", metavar="WxH", help="image size in pixels")
    crop = "crop of the video, in its pixels; by default the largest one with the person in it"
    add("--crop", type=_crop, metavar="LEFT,TOP,WIDTH,HEIGHT", help=crop)
    held_out = "fraction of the frames for validation, and for the test"
    add("--held_out", type=float_range(0, 0.4, exclusive=True), default=0.1, help=held_out)
    add("--start", type=float_range(0), default=0.0, help="start in each video, in seconds")
    add("--end", type=float_range(0, exclusive=True), help="end in each video, in seconds")
    add("--person", type=int_range(1, 99), default=1, help="person to track: 1 is the largest at the start")
    add("--pose_models", type=Path, metavar="FOLDER", help="pose networks to use instead of a download")
    openpose = "folders of OpenPose JSON with the poses, one per video, a file per frame"
    add("--openpose", type=Path, nargs="+", metavar="FOLDER", help=openpose)
    add("--overwrite", action="store_true", help="replace the dataset in the folder")
    args = parser.parse_args(argv)
    if args.openpose and len(args.openpose) != len(args.videos):
        parser.error(f"--openpose: {len(args.openpose)} folders for {len(args.videos)} videos")
    return args


def _crop(text: str) -> Crop:
    try:
        crop = Crop(*map(int, text.split(",")))
    except (ValueError, TypeError):
        crop = Crop(0, 0, 0, 0)
    if crop.width < 1 or crop.height < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not LEFT,TOP,WIDTH,HEIGHT in pixels")
    return crop


def estimate_joints(args, log: Path) -> tuple[list[np.ndarray], tuple[int, int]]:
    """The joints in each video, `(T, J, 3)`, NaN without a person; and width and height of the videos.

    Estimates are written to the file `log`, from which a stopped tool continues.
    """
    known = _read_log(args, log)
    size, by_video = None, []
    with log.open("a") as file:
        for number, path in enumerate(args.videos):
            openpose = joints.read_openpose(args.openpose[number], args.person) if args.openpose else None
            if openpose is None:
                estimator = blazepose.BlazePose(model_folder(args.pose_models), args.person)
            rows = []
            total = video.num_frames(path, args.fps, args.start, args.end)
            frames = video.frames(path, args.fps, args.start, args.end)
            for image in Progress(frames, (f"poses of {path.name}",), total=total, unit="frame"):
                if size not in (None, image.shape[1::-1]):
                    raise UserError(f"{path}: {image.shape[1]}x{image.shape[0]} pixels, others {size}")
                size = image.shape[1::-1]
                if openpose is not None:
                    rows.append(openpose[len(rows)] if len(rows) < len(openpose) else joints.no_person())
                elif entry := next(known, None):
                    rows.append(np.array(entry[0], float))
                    estimator.state = entry[1]
                else:
                    rows.append(joints.estimate(estimator, image).round(pose_file.DECIMALS))
                    file.write(json.dumps([rows[-1].tolist(), estimator.state]) + "\n")
            if not rows:
                raise UserError(f"{path}: no frames in it (of --start and --end)")
            by_video.append(np.array(rows))
    return by_video, size


def _read_log(args, log: Path) -> Iterator[list]:
    """The joints of each frame and the state of the estimator after it, that a stopped tool has found.

    If that had other videos or flags, the log starts anew.
    """
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime) for path in args.videos if path.exists()]
    key = json.dumps([args.fps, args.start, args.end, args.person, stats])
    lines = log.read_text().splitlines() if log.is_file() else []
    entries = []
    if lines[:1] != [key]:
        files.write(log, key + "\n")
        lines = []
    for line in lines[1:]:
        try:
            entries.append(json.loads(line))
        except ValueError:  # the tool was killed while it wrote
            break
    return iter(entries)


def select_frames(by_video: list[np.ndarray]) -> list[Frame]:
    """The frames with a person; their numbers jump where frames are missing."""
    selected, number = [], 0
    for index, estimates in enumerate(by_video):
        keypoints = joints.smooth(estimates)
        for shot in joints.runs(pose_file.has_person(keypoints)):
            for i, frame in enumerate(shot):
                selected.append(
                    Frame(number + i, index, int(frame), keypoints[frame], estimates[frame, :, 2])
                )
            number += len(shot) + SHOT_GAP
    return selected


def split_folders(count: int, held_out: float) -> list[tuple[str, str]]:
    """The folders of the image and the pose of each frame; the last frames are held out."""
    part = min(MAX_HELD_OUT, max(2, round(held_out * count)))
    return (
        [("train/train_img", "train/train_label")] * (count - 2 * part)
        + [("val/val_img", "val/val_label")] * part
        + [("test/test_gt/0", "test/test_label/0")] * part
    )


def write_images(args, selected: list[Frame], crop: Crop, root: Path) -> None:
    """All images, and the sheet poses.png."""
    positions = {(frame.video, frame.index): position for position, frame in enumerate(selected)}
    folders = split_folders(len(selected), args.held_out)
    first_of_test = next(i for i, (folder, _) in enumerate(folders) if folder.startswith("test"))
    in_sheet, sheet = set(np.linspace(0, len(selected) - 1, SHEET_ROWS).astype(int)), []
    with Progress(total=len(selected), descriptions=("images",), unit="frame") as bar:
        for number, path in enumerate(args.videos):
            for index, full in enumerate(video.frames(path, args.fps, args.start, args.end)):
                if (position := positions.get((number, index))) is None:
                    continue
                frame = selected[position]
                image = crop.apply(full, args.size)
                pose = draw_keypoints(crop.transform(frame.keypoints, args.size), *args.size)
                name = f"frame{frame.number:06d}.png"
                _save(root / folders[position][0] / name, image)
                _save(root / folders[position][1] / name, pose)
                if position == first_of_test:
                    _save(root / "test/test_img/0" / name, image)
                if position in in_sheet:
                    sheet.append((image, np.minimum(image, pose), pose))
                bar.update()
    columns = (np.stack(tiles) for tiles in zip(*sheet, strict=True))
    grid = utils.side_by_side(dict(zip(("frame", "skeleton", "pose"), columns, strict=True)))
    files.save(root / "poses.png", utils.save_sheet, grid, SHEET_ROWS)


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, compress_level=4)


def write_poses(args, selected: list[Frame], crop: Crop, path: Path) -> None:
    """poses.json: the keypoints of each frame, and where they are from."""
    entries = []
    for frame, (_, folder) in zip(selected, split_folders(len(selected), args.held_out), strict=True):
        keypoints = crop.transform(frame.keypoints, args.size)
        source = {"video": frame.video, "frame": frame.index}
        entries.append(
            pose_file.frame(folder, frame.number, keypoints, args.size, frame.visibility, **source)
        )
    pose_file.write(
        path,
        args.size,
        entries,
        estimator="OpenPose" if args.openpose else f"{blazepose.NAME} of {PACKAGE}",
        videos=[video.name for video in args.videos],
        crop=crop._asdict(),
    )


def summary(by_video: list[np.ndarray], selected: list[Frame]) -> str:
    """How many frames are used, and why not all."""
    total = sum(map(len, by_video))
    shots = 1 + sum(after.number - before.number > 1 for before, after in itertools.pairwise(selected))
    others = "; the others do not show a person from neck to hips" if len(selected) < total else ""
    return f"{len(selected)} of {total} frames in {shots} shot{'s' if shots > 1 else ''}{others}"


def training_command(dataset: Path, size: tuple[int, int]) -> str:
    """The command that trains on the dataset."""
    width, height = size
    command = ["python", "Trainer.py", "--DR", str(dataset), "--save_root", f"runs/{dataset.resolve().name}"]
    if width * height >= LARGE_FRAME:
        command += ["--recipe", "large"]
    command += ["--frame_W", str(width), "--frame_H", str(height), "--max_minutes", "20"]
    if MEDIUM_FRAME <= width * height < LARGE_FRAME:
        command += ["--batch_size", "1", "--tta", "1"]
    return shlex.join(command)


def main(argv: list[str] | None = None) -> None:
    """Estimate the poses, choose the crop, write the dataset."""
    args = parse(argv)
    require("scipy.signal", "requirements-video.txt")  # not after minutes of estimation
    out, log, root = args.DR, args.DR / JOINTS_LOG, args.DR / UNFINISHED
    is_begun = log.is_file() and {path.name for path in out.iterdir()} <= {JOINTS_LOG, UNFINISHED}
    check_output(out, args.overwrite or is_begun)
    out.mkdir(parents=True, exist_ok=True)
    restore(out)
    try:
        by_video, size = estimate_joints(args, log)
        selected = select_frames(by_video)
        if len(selected) < MIN_FRAMES:
            raise UserError(f"{len(selected)} frames show a person; at least {MIN_FRAMES} are needed")
        keypoints = np.array([frame.keypoints for frame in selected])
        crop = args.crop or find_crop(keypoints, size, args.size[0] / args.size[1])
        root.mkdir()
        write_images(args, selected, crop, root)
        write_poses(args, selected, crop, root / pose_file.NAME)
        publish(root, out)
    except UserError as error:
        if not isinstance(error, files.WriteError):
            log.unlink(missing_ok=True)
        raise
    finally:
        cli.ignore_signals()
        shutil.rmtree(root, ignore_errors=True)
        if not any(out.iterdir()):
            out.rmdir()
    log.unlink()
    cli.log(f"{out}: {summary(by_video, selected)}; look at {out / 'poses.png'}")
    cli.log(f"train with: {training_command(out, args.size)}")


if __name__ == "__main__":
    cli.run(main)
