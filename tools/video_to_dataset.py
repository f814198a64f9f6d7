"""Make a dataset of a video of a person: frames, pose pictures, and their division into train, val and test.

    python -m tools.video_to_dataset me.mp4 --DR data/me

Written to data/me: train, val and test in the layout that Trainer.py reads; poses.json with the joints of
each frame; film.png to look at. The last tenth of the frames is the test sequence, the tenth before it
validation. The camera has to stand still. If the tool is stopped, the same command goes on.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime import cli

if __name__ == "__main__":
    cli.prepare()

import argparse
import hashlib
import itertools
import json
import shutil
from dataclasses import dataclass

import numpy as np
from PIL import Image

import utils
from runtime import files
from runtime.cli import UserError
from runtime.parser import Parser, real, whole
from runtime.progress import Progress
from tools import pose_file
from tools.make_dataset import UNFINISHED, check_out, picture_size, publish, restore
from tools.poses import blazepose, joints, video
from tools.poses.crop import Crop, find_crop
from tools.poses.models import PACKAGE, model_folder
from tools.synthetic.frames import paint_places

NOTES = ".film.jsonl"  # joints that were found before a stop
JUMP = 100  # of the frame numbers between two shots
LONGEST_VIDEO = 630  # frames of validation and test
LEAST_FRAMES = 20
SHEET_ROWS = 6


@dataclass
class Kept:
    """A frame of the dataset: its number, the video and the frame in it, and its joints there.

    Attributes:
        places: `(J, 2)`, repaired.
        visibility: `(J,)` in [0, 1], as it was estimated; NaN where nobody was found.
    """

    number: int
    video: int
    index: int
    places: np.ndarray
    visibility: np.ndarray


def parse(argv=None) -> argparse.Namespace:
    """The command line, checked."""
    parser = Parser(prog="video_to_dataset.py", description="Make a dataset of a video of a person.")
    add = parser.add_argument
    add("videos", type=Path, nargs="+", metavar="VIDEO", help="videos, or folders of numbered pictures")
    add("--DR", type=Path, required=True, help="folder of the dataset, new or empty")
    add("--fps", type=real(0, above=True), default=30.0, help="frames per second to keep")
    add("--size", type=picture_size, default="256x128", metavar="WxH", help="of the pictures, in pixels")
    crop = "part of the video to use, in its pixels; if not given, as much as possible, with the person in it"
    add("--crop", type=_crop, metavar="LEFT,TOP,WIDTH,HEIGHT", help=crop)
    add(
        "--held_out", type=real(0, 0.4, above=True), default=0.1, help="part for validation, and for the test"
    )
    add("--start", type=real(0), default=0.0, help="second of each video to begin at")
    add("--end", type=real(0, above=True), help="second of each video to end at")
    add("--person", type=whole(1, 99), default=1, help="whom to follow: 1 is the largest at first")
    add("--pose_models", type=Path, metavar="FOLDER", help="with the pose networks, instead of fetching them")
    openpose = "take the poses from these folders of OpenPose JSON, one for each video, frame by frame"
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


def find_joints(args, notes: Path) -> tuple[list[np.ndarray], tuple[int, int]]:
    """The joints `(T, J, 3)` in each video, NaN without a person; and width and height of the videos.

    What is found is noted in the file `notes`, so that a stopped tool goes on.
    """
    known = _noted(args, notes)
    estimator, size, by_video = None, None, []
    with notes.open("a") as file:
        for number, path in enumerate(args.videos):
            openpose = joints.read_openpose(args.openpose[number], args.person) if args.openpose else None
            if openpose is None:
                estimator = blazepose.BlazePose(model_folder(args.pose_models), args.person)
            rows = []
            total = video.frame_count(path, args.fps, args.start, args.end)
            frames = video.frames(path, args.fps, args.start, args.end)
            for picture in Progress(frames, (f"poses of {path.name}",), total=total, unit="frame"):
                if size not in (None, picture.shape[1::-1]):
                    raise UserError(f"{path}: {picture.shape[1]}x{picture.shape[0]} pixels, others {size}")
                size = picture.shape[1::-1]
                if openpose is not None:
                    rows.append(openpose[len(rows)] if len(rows) < len(openpose) else joints.nobody())
                elif len(rows) < len(known.get(number, [])):
                    row, estimator.state = known[number][len(rows)]
                    rows.append(np.array(row, float))
                else:
                    rows.append(joints.estimated(estimator, picture).round(pose_file.DECIMALS))
                    file.write(json.dumps([number, rows[-1].tolist(), estimator.state]) + "\n")
            if not rows:
                raise UserError(f"{path}: no frames in it (of --start and --end)")
            by_video.append(np.array(rows))
    return by_video, size


def _noted(args, notes: Path) -> dict[int, list[tuple[list, list]]]:
    """What a stopped tool has found, if it had the same videos and flags; else a new file.

    Returns:
        By the number of the video the joints of each frame, and the state of the estimator after it.
    """
    asked = [args.fps, args.start, args.end, args.person]
    asked += [
        [str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in args.videos if path.exists()
    ]
    key = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
    lines = notes.read_text().splitlines() if notes.is_file() else []
    rows: dict[int, list[tuple[list, list]]] = {}
    if lines[:1] != [key]:
        files.write(notes, key + "\n")
        return rows
    for line in lines[1:]:
        try:
            number, row, state = json.loads(line)
        except ValueError:  # the tool was killed while it wrote
            break
        rows.setdefault(number, []).append((row, state))
    return rows


def keep_frames(by_video: list[np.ndarray]) -> list[Kept]:
    """The frames with a person, numbered so that a new shot begins where some are missing."""
    kept, number = [], 0
    for index, of_video in enumerate(by_video):
        places = joints.repaired(of_video)
        for shot in joints.runs(pose_file.is_somebody(places)):
            for i, frame in enumerate(shot):
                kept.append(Kept(number + i, index, int(frame), places[frame], of_video[frame, :, 2]))
            number += len(shot) + JUMP
    return kept


def folders(count: int, held_out: float) -> list[tuple[str, str]]:
    """The folders of the frame and of the pose of each frame; the last frames are held out."""
    part = min(LONGEST_VIDEO, max(2, round(held_out * count)))
    return (
        [("train/train_img", "train/train_label")] * (count - 2 * part)
        + [("val/val_img", "val/val_label")] * part
        + [("test/test_gt/0", "test/test_label/0")] * part
    )


def write_dataset(args, kept: list[Kept], crop: Crop, root: Path) -> None:
    """All pictures, and film.png."""
    places = {(entry.video, entry.index): place for place, entry in enumerate(kept)}
    divided = folders(len(kept), args.held_out)
    first_of_test = next(place for place, (folder, _) in enumerate(divided) if folder.startswith("test"))
    shown, sheet = set(np.linspace(0, len(kept) - 1, SHEET_ROWS).astype(int)), []
    with Progress(total=len(kept), descriptions=("pictures",), unit="frame") as bar:
        for number, path in enumerate(args.videos):
            for index, picture in enumerate(video.frames(path, args.fps, args.start, args.end)):
                if (place := places.get((number, index))) is None:
                    continue
                image = crop.apply(picture, args.size)
                pose = paint_places(crop.places(kept[place].places, args.size), *args.size)
                name = f"frame{kept[place].number:06d}.png"
                _save(root / divided[place][0] / name, image)
                _save(root / divided[place][1] / name, pose)
                if place == first_of_test:
                    _save(root / "test/test_img/0" / name, image)
                if place in shown:
                    sheet.append((image, np.minimum(image, pose), pose))
                bar.update()
    columns = (np.stack(tiles) for tiles in zip(*sheet, strict=True))
    film = utils.film(dict(zip(("frame", "skeleton", "pose"), columns, strict=True)))
    utils.save_sheet(root / "film.png", film, SHEET_ROWS)


def _save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, compress_level=4)


def write_poses(args, kept: list[Kept], crop: Crop, path: Path) -> None:
    """poses.json: the joints of each frame, and where they are from."""
    frames = []
    for entry, (_, folder) in zip(kept, folders(len(kept), args.held_out), strict=True):
        places, source = crop.places(entry.places, args.size), {"video": entry.video, "frame": entry.index}
        frames.append(pose_file.frame(folder, entry.number, places, args.size, entry.visibility, **source))
    pose_file.write(
        path,
        args.size,
        frames,
        estimator="OpenPose" if args.openpose else f"{blazepose.NAME} of {PACKAGE}",
        videos=[video.name for video in args.videos],
        crop=crop._asdict(),
    )


def summary(by_video: list[np.ndarray], kept: list[Kept]) -> str:
    """How many frames were kept and dropped, and why."""
    total = sum(map(len, by_video))
    empty = sum(int(np.isnan(of_video).all(axis=(1, 2)).sum()) for of_video in by_video)
    shots = 1 + sum(after.number - before.number > 1 for before, after in itertools.pairwise(kept))
    lost = total - len(kept)
    why = f"; {lost} dropped: nobody was found in {empty}, the trunk was not seen in the rest" if lost else ""
    return f"{len(kept)} of {total} frames in {shots} shot{'s' if shots > 1 else ''}{why}"


def find_person(args, notes: Path) -> tuple[list[np.ndarray], list[Kept], Crop]:
    """The joints in each video, the frames to keep, and the part of the pictures to use."""
    try:
        by_video, size = find_joints(args, notes)
        kept = keep_frames(by_video)
        if len(kept) < LEAST_FRAMES:
            raise UserError(f"{len(kept)} frames show a person; at least {LEAST_FRAMES} are needed")
    except UserError:
        notes.unlink(missing_ok=True)
        raise
    places = np.array([entry.places for entry in kept])
    return by_video, kept, args.crop or find_crop(places, size, args.size[0] / args.size[1])


def main(argv=None) -> None:
    """Find the poses, choose the part of the picture, write the dataset."""
    args = parse(argv)
    out, notes, root = args.DR, args.DR / NOTES, args.DR / UNFINISHED
    begun = notes.is_file() and {path.name for path in out.iterdir()} <= {NOTES, UNFINISHED}
    check_out(out, args.overwrite or begun)
    out.mkdir(parents=True, exist_ok=True)
    restore(out)
    try:
        by_video, kept, crop = find_person(args, notes)
        root.mkdir()
        write_dataset(args, kept, crop, root)
        write_poses(args, kept, crop, root / pose_file.NAME)
        publish(root, out)
    finally:
        cli.ignore_signals()
        shutil.rmtree(root, ignore_errors=True)
        if not any(out.iterdir()):
            out.rmdir()
    notes.unlink()
    print(f"{out}: {summary(by_video, kept)}; look at {out / 'film.png'}")


if __name__ == "__main__":
    cli.run(main)
