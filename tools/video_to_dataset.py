"""Make a dataset from a video of a person: frames, pose images, and the splits train, val and test.

    python -m tools.video_to_dataset me.mp4 --DR data/me

Written to data/me: train, val and test in the layout that Trainer.py reads; poses.json with the keypoints of
each frame; poses.png for inspection. The last tenth of the frames is the test sequence, the tenth before it
validation. The camera must not move. After an interruption, rerun the same command to continue.
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

import numpy as np

from runtime import files
from runtime.cli import UserError
from runtime.parser import Parser, float_range, int_range
from tools import pose_file
from tools.make_dataset import UNFINISHED, check_output, image_size, publish, restore
from tools.optional import require
from tools.poses import keypoint_files, video
from tools.poses.blazepose import BlazePose
from tools.poses.crop import Crop
from tools.poses.dataset import Frame, choose_crops, select_frames, write_images, write_poses
from tools.poses.estimate import JointEstimator, estimate_joints
from tools.poses.joints import runs
from tools.poses.models import model_folder
from tools.poses.video import Timeline

JOINTS_LOG = ".joints.jsonl"  # joints that were estimated before a stop
LOG_FORMAT = 2
MIN_FRAMES = 20
# Pixels per frame from which --recipe large, or a batch size of 1, trains better.
LARGE_FRAME, MEDIUM_FRAME = 192 * 96, 128 * 64


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = Parser(prog="video_to_dataset.py", description="Make a dataset from a video of a person.")
    add = parser.add_argument
    add("videos", type=Path, nargs="+", metavar="VIDEO", help="videos, or folders of numbered images")
    add("--DR", type=Path, required=True, help="dataset to write, a new or empty folder")
    add("--fps", type=float_range(0, exclusive=True), default=30.0, help="frames per second to sample")
    add("--size", type=image_size, default="256x128", metavar="WxH", help="image size in pixels")
    crop = "crop in video pixels; by default the largest one that contains the person"
    add("--crop", type=_crop, metavar="LEFT,TOP,WIDTH,HEIGHT", help=crop)
    held_out = "fraction of the frames held out for validation, and again for the test"
    add("--held_out", type=float_range(0, 0.4, exclusive=True), default=0.1, help=held_out)
    add("--start", type=float_range(0), default=0.0, help="start in each video, in seconds")
    add("--end", type=float_range(0, exclusive=True), help="end in each video, in seconds")
    add("--person", type=int_range(1, 99), default=1, help="person to track: 1 is the largest at the start")
    add("--pose_models", type=Path, metavar="FOLDER", help="pose networks to use instead of a download")
    openpose = "use poses from OpenPose, COCO or DWPose JSON: one folder or file per video"
    add("--openpose", type=Path, nargs="+", metavar="PATH", help=openpose)
    add("--overwrite", action="store_true", help="replace the dataset in the folder")
    args = parser.parse_args(argv)
    if args.openpose and len(args.openpose) != len(args.videos):
        parser.error(f"--openpose: {len(args.openpose)} for {len(args.videos)} videos")
    return args


def _crop(text: str) -> Crop:
    try:
        crop = Crop(*map(int, text.split(",")))
    except (ValueError, TypeError):
        crop = Crop(0, 0, 0, 0)
    if crop.width < 1 or crop.height < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not LEFT,TOP,WIDTH,HEIGHT in pixels")
    return crop


def choose_frames(args, timelines: list[Timeline]) -> tuple[list[np.ndarray], float]:
    """The frames of each video to use, as indices of its timeline; and how many there are per second."""
    fps = min(video.sampled_fps(timeline, args.fps) for timeline in timelines)
    chosen = []
    for timeline in timelines:
        chosen.append(video.sample(timeline, fps, args.start, args.end))
        total, rate = len(timeline.times), f"{timeline.fps:.4g}"
        if not len(chosen[-1]):
            raise UserError(f"{timeline.path}: no frames between --start and --end")
        cli.log(f"{timeline.path}: {len(chosen[-1])} of {total} frames used, {fps:.4g} of {rate} fps")
    return chosen, fps


def find_joints(args, timelines: list[Timeline], chosen: list[np.ndarray], log: Path) -> list[np.ndarray]:
    """The joints in the chosen frames of each video, `(T, J, 3)`, NaN without a person.

    Estimates are written to the file `log`, from which a stopped tool continues.
    """
    if args.openpose:
        sources = zip(args.openpose, timelines, chosen, strict=True)
        return [keypoint_files.read_joints(*source, args.person) for source in sources]
    known = iter(_read_log(args, log))
    estimator = JointEstimator(BlazePose(model_folder(args.pose_models)), args.person)
    by_video = []
    with log.open("a") as file:
        for timeline, indices in zip(timelines, chosen, strict=True):
            rows = []
            for joints, state in estimate_joints(estimator, timeline, indices, known):
                rows.append(joints)
                if state is not None:
                    file.write(json.dumps([joints.tolist(), state]) + "\n")
            by_video.append(np.array(rows))
    return by_video


def _read_log(args, log: Path) -> list:
    """The joints and the estimator state after each frame, as logged by an interrupted run.

    If that run had other videos or flags, the log is restarted.
    """
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime) for path in args.videos]
    key = json.dumps([LOG_FORMAT, args.fps, args.start, args.end, args.person, stats])
    lines = log.read_text().splitlines() if log.is_file() else []
    entries = []
    if lines[:1] != [key]:
        files.write(log, key + "\n")
        lines = []
    for line in lines[1:]:
        try:
            entries.append(json.loads(line))
        except ValueError:  # the tool was killed while it wrote
            files.write(log, "".join(f"{line}\n" for line in lines[: 1 + len(entries)]))
            break
    return entries


def summary(timelines: list[Timeline], chosen: list[np.ndarray], selected: list[Frame]) -> str:
    """How many frames have a pose, and which have none."""
    total = sum(map(len, chosen))
    shots = 1 + sum(after.number - before.number > 1 for before, after in itertools.pairwise(selected))
    has_pose, gaps = {(frame.video, frame.index) for frame in selected}, []
    for number, (timeline, indices) in enumerate(zip(timelines, chosen, strict=True)):
        is_lost = np.array([(number, index) not in has_pose for index in indices.tolist()])
        ends = [timeline.numbers[indices[gap[[0, -1]]]] for gap in runs(is_lost)]
        gaps += [f"{first}-{last} of {timeline.path.name}" for first, last in ends]
    first_gaps = ", ".join(gaps[:3]) + (", .." if len(gaps) > 3 else "")
    others = f"; in the others, neck and hips or head are not visible ({first_gaps})" if gaps else ""
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
    require("scipy.linalg", "requirements-video.txt")  # not after minutes of estimation
    out, log, root = args.DR, args.DR / JOINTS_LOG, args.DR / UNFINISHED
    is_begun = log.is_file() and {path.name for path in out.iterdir()} <= {JOINTS_LOG, UNFINISHED}
    check_output(out, args.overwrite or is_begun)
    out.mkdir(parents=True, exist_ok=True)
    restore(out)
    try:
        timelines = [video.scan(path, args.fps) for path in args.videos]
        chosen, fps = choose_frames(args, timelines)
        by_video = find_joints(args, timelines, chosen, log)
        selected = select_frames(timelines, chosen, by_video)
        if len(selected) < MIN_FRAMES:
            raise UserError(f"{len(selected)} frames show a person; at least {MIN_FRAMES} are needed")
        crops = choose_crops(args, timelines, selected)
        root.mkdir()
        write_images(args, timelines, selected, crops, root)
        write_poses(args, timelines, selected, crops, fps, root / pose_file.NAME)
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
    log.unlink(missing_ok=True)
    cli.log(f"{out}: {summary(timelines, chosen, selected)}; check the poses in {out / 'poses.png'}")
    cli.log(f"train with: {training_command(out, args.size)}")


if __name__ == "__main__":
    cli.run(main)
