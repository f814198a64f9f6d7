"""The frames, folders and files of a dataset made from videos, in the layout that Trainer.py reads."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import utils
from runtime import files
from runtime.progress import Progress
from tools import pose_file
from tools.synthetic.frames import draw_keypoints

from . import video
from .blazepose import NAME
from .crop import Crop, find_crop
from .joints import runs, smooth
from .models import PACKAGE
from .tracking import body_size, distance
from .video import Timeline

SHOT_GAP = 100  # between the frame numbers of two shots
MAX_HELD_OUT = 630  # frames of validation and test
SHEET_FRAMES = 4  # of each kind


@dataclass
class Frame:
    """A frame of the dataset.

    Attributes:
        number: in the dataset.
        video: which of the videos.
        index: of `Timeline.times` of the video.
        joints: `(J, 3)` as estimated: x, y in the video, visibility in [0, 1].
        keypoints: `(J, 2)` in the video, smoothed; NaN where unknown.
    """

    number: int
    video: int
    index: int
    joints: np.ndarray
    keypoints: np.ndarray


def select_frames(
    timelines: list[Timeline], chosen: list[np.ndarray], by_video: list[np.ndarray]
) -> list[Frame]:
    """The frames with a person; their numbers jump where a new shot begins or frames are missing."""
    selected, number = [], 0
    for index, (timeline, indices, joints) in enumerate(zip(timelines, chosen, by_video, strict=True)):
        shots = timeline.shots[indices]
        for shot in np.unique(shots):
            part = np.flatnonzero(shots == shot)
            keypoints = smooth(joints[part], timeline.size)
            for run in runs(pose_file.has_person(keypoints)):
                for i, row in enumerate(run):
                    source = index, int(indices[part[row]]), joints[part[row]]
                    selected.append(Frame(number + i, *source, keypoints[row]))
                number += len(run) + SHOT_GAP
    return selected


def choose_crops(args, timelines: list[Timeline], selected: list[Frame]) -> list[Crop]:
    """The crop of each video; videos of one size have the same."""
    crops: dict[tuple[int, int], Crop] = {}
    for size in {timeline.size for timeline in timelines}:
        frames = [frame.keypoints for frame in selected if timelines[frame.video].size == size]
        if frames and not args.crop:
            crops[size] = find_crop(np.array(frames), size, args.size[0] / args.size[1])
    return [args.crop or crops.get(timeline.size) for timeline in timelines]


def split_folders(count: int, held_out: float) -> list[tuple[str, str]]:
    """The folders of the image and the pose of each frame; the last frames are held out."""
    part = min(MAX_HELD_OUT, max(2, round(held_out * count)))
    return (
        [("train/train_img", "train/train_label")] * (count - 2 * part)
        + [("val/val_img", "val/val_label")] * part
        + [("test/test_gt/0", "test/test_label/0")] * part
    )


def write_images(
    args, timelines: list[Timeline], selected: list[Frame], crops: list[Crop], root: Path
) -> None:
    """All images, and the sheet poses.png."""
    folders = split_folders(len(selected), args.held_out)
    first_of_test = next(i for i, (folder, _) in enumerate(folders) if folder.startswith("test"))
    reasons, tiles = frames_to_check(selected), []
    with Progress(total=len(selected), descriptions=("images",), unit="frame") as bar:
        for position, (frame, full) in enumerate(zip(selected, _images(timelines, selected), strict=True)):
            crop = crops[frame.video]
            image = crop.apply(full, args.size)
            pose = draw_keypoints(crop.transform(frame.keypoints, args.size), *args.size)
            name = f"frame{frame.number:06d}.png"
            _save(root / folders[position][0] / name, image)
            _save(root / folders[position][1] / name, pose)
            if position == first_of_test:
                _save(root / "test/test_img/0" / name, image)
            if position in reasons:
                tiles.append((image, np.minimum(image, pose), pose))
            bar.update()
    columns = (np.stack(images) for images in zip(*tiles, strict=True))
    grid = utils.side_by_side(dict(zip(("frame", "skeleton", "pose"), columns, strict=True)))
    labels = [
        f"{_source_name(timelines, selected[position])}\n{reason}" for position, reason in reasons.items()
    ]
    files.save(root / "poses.png", utils.save_sheet, grid, len(labels), labels)


def frames_to_check(selected: list[Frame]) -> dict[int, str]:
    """Frames of the contact sheet, position -> reason: evenly spaced ones, and doubtful ones."""
    visibility = np.nan_to_num([frame.joints[:, 2].mean() for frame in selected])
    jumps = np.zeros(len(selected))
    for position, (before, after) in enumerate(itertools.pairwise(selected), 1):
        if after.number == before.number + 1:
            moved = distance(after.joints, before.joints)  # infinite where joints are interpolated
            jumps[position] = moved / max(body_size(after.joints), 1) if moved < np.inf else 0
    reasons = dict.fromkeys(np.linspace(0, len(selected) - 1, SHEET_FRAMES).astype(int).tolist(), "")
    for reason, order in (("unsure", np.argsort(visibility)), ("jump", np.argsort(-jumps))):
        for position in _spread(order.tolist(), len(selected) // (4 * SHEET_FRAMES))[:SHEET_FRAMES]:
            reasons[position] = reasons.get(position) or reason
    return dict(sorted(reasons.items()))


def _spread(order: list[int], distance: int) -> list[int]:
    """The positions without those near an earlier one."""
    result: list[int] = []
    for position in order:
        if all(abs(position - other) > distance for other in result):
            result.append(position)
    return result


def _images(timelines: list[Timeline], selected: list[Frame]) -> Iterator[np.ndarray]:
    for index, timeline in enumerate(timelines):
        yield from video.frames(timeline, [frame.index for frame in selected if frame.video == index])


def _source_name(timelines: list[Timeline], frame: Frame) -> str:
    number = timelines[frame.video].numbers[frame.index]
    return f"{number}" if len(timelines) == 1 else f"{frame.video}:{number}"


def _save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, compress_level=4)


def write_poses(
    args, timelines: list[Timeline], selected: list[Frame], crops: list[Crop], fps: float, path: Path
) -> None:
    """poses.json: the keypoints of each frame, and where they are from."""
    entries = []
    for frame, (_, folder) in zip(selected, split_folders(len(selected), args.held_out), strict=True):
        keypoints = crops[frame.video].transform(frame.keypoints, args.size)
        source = {"video": frame.video, "frame": int(timelines[frame.video].numbers[frame.index])}
        visibility = frame.joints[:, 2]
        entries.append(pose_file.frame(folder, frame.number, keypoints, args.size, visibility, **source))
    rectangles = [crop and crop._asdict() for crop in crops]
    pose_file.write(
        path,
        args.size,
        fps,
        entries,
        estimator="keypoint files" if args.openpose else f"{NAME} of {PACKAGE}",
        videos=[path.name for path in args.videos],
        **({"crop": rectangles[0]} if len(set(crops)) == 1 else {"crops": rectangles}),
    )
