"""Keypoints in JSON as pose estimators write them: OpenPose, COCO, MMPose, DWPose and AlphaPose.

A file holds one frame, numbered in its name, or many frames.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from images import SUFFIXES, visible
from runtime.cli import UserError, log
from tools.pose_file import MAX_PIXELS

from .joints import LAYOUTS, no_person, to_joints
from .tracking import Tracker, body_size
from .video import Timeline

POINTS = "pose_keypoints_2d", "keypoints"  # keys of a person
GROUPS = "people", "instances", "instance_info", "annotations", "predictions"  # keys of persons or frames
CANVAS = "canvas_width", "canvas_height"  # keys of a frame, in ControlNet's files


class People(NamedTuple):
    """Everyone in a video.

    Attributes:
        by_frame: joints `(J, 3)` of each person, by the number of the frame.
        is_relative: coordinates are fractions of the image's size.
        size: width and height of the images, if the files have it.
    """

    by_frame: dict[int, list[np.ndarray]]
    is_relative: bool
    size: tuple[float, float] | None


def read_people(path: Path) -> People:
    """The people in a JSON file, or in the JSON files of a folder.

    Files without a pose are counted and passed over. A joint at (0, 0) is unknown.

    Raises:
        UserError: no poses, poses of another kind, or two files of one frame.
    """
    paths = [path]
    if path.is_dir():
        paths = sorted(Path(entry) for entry in visible(path) if entry.name.endswith(".json"))
    by_frame: dict[int, list[np.ndarray]] = defaultdict(list)
    sources: dict[int, Path] = {}
    num_others, size = 0, None
    for file in paths:
        content = _read_json(file)
        frames = _read_frames(file, content)
        size = size or _canvas(content)
        num_others += frames is None
        for number, people in (frames or {}).items():
            if people and sources.setdefault(number, file) != file:
                raise UserError(f"{file}: frame {number} is also in {sources[number].name}; keep one")
            by_frame[number] += people
    if not any(by_frame.values()):
        raise UserError(f"{path}: contains no OpenPose, COCO or DWPose poses")
    if num_others:
        log(f"{path}: skipped {num_others} JSON files without poses")
    return People(dict(by_frame), _is_relative(path, by_frame), size)


def _is_relative(path: Path, by_frame: dict[int, list[np.ndarray]]) -> bool:
    points = np.concatenate(
        [joints[joints[:, 2] > 0, :2] for people in by_frame.values() for joints in people]
    )
    if np.abs(points).max() > 2:
        return False
    if points.min() < -0.5:
        raise UserError(f"{path}: keypoints are in [-1, 1]; export them in pixels (--keypoint_scale 0)")
    return True


def _read_json(path: Path):
    """The content of a file; None if it is not JSON."""
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError):
        return None


def _canvas(content) -> tuple[float, float] | None:
    frame = content[0] if isinstance(content, list) and content else content
    size = [frame.get(key) for key in CANVAS] if isinstance(frame, dict) else [None]
    is_size = all(isinstance(side, int | float) and 0 < side < MAX_PIXELS for side in size)
    return tuple(size) if is_size else None


def _read_frames(path: Path, content) -> dict[int, list[np.ndarray]] | None:
    """The people in a file by frame; None if it holds no frames."""
    names = _image_names(content)
    frames: dict[int, list[np.ndarray]] = defaultdict(list)
    try:
        for number, person in _walk(content, _number(path.name, None)):
            if (number := names.get(number, number)) is not None:
                frames[number] += [] if person is None else [person]
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: its poses cannot be read ({error})") from None
    return dict(frames) or None


def _image_names(content) -> dict[int, int | None]:
    """The frame of each image id in an annotation file of COCO."""
    images = content.get("images") if isinstance(content, dict) else None
    images = images if isinstance(images, list) else []
    images = [image for image in images if isinstance(image, dict) and isinstance(image.get("id"), int)]
    return {image["id"]: _number(image.get("file_name"), None) for image in images}


def _walk(item, number: int | None) -> Iterator[tuple[int | None, np.ndarray | None]]:
    """The number of a frame, with each person `(J, 3)` in it, and with None for each group of people."""
    if isinstance(item, list):
        is_by_position = all(isinstance(part, dict) and not part.keys().isdisjoint(GROUPS) for part in item)
        for position, part in enumerate(item):
            yield from _walk(part, position if is_by_position else number)
    elif isinstance(item, dict):
        number = _number(item.get("frame_id", item.get("image_id")), number)
        points = next((item[key] for key in POINTS if key in item), None)
        if points is not None:
            yield number, _to_person(points, item.get("keypoint_scores"))
            return
        for key in GROUPS:
            if key in item:
                yield number, None
                yield from _walk(item[key], number)


def _number(name, default: int | None) -> int | None:
    """The number of a frame, which may be that in the name of an image."""
    digits = re.findall(r"\d+", Path(str(name)).stem) if name is not None else []
    return int(digits[-1]) if digits else default


def _to_person(points: list, scores: list | None) -> np.ndarray | None:
    """The joints `(J, 3)` of a person; None if none is seen."""
    values = np.array(points, float)
    if scores is not None:
        values = np.column_stack([values.reshape(len(scores), -1)[:, :2], scores])
    landmarks = values.reshape(-1, 3)
    if len(landmarks) == 0:
        return None
    if len(landmarks) not in LAYOUTS:
        counts = ", ".join(map(str, LAYOUTS))
        raise ValueError(f"{len(landmarks)} landmarks per person; known are {counts}")
    is_known = (landmarks[:, :2] != 0).any(axis=1) & (np.abs(landmarks) < MAX_PIXELS).all(axis=1)
    landmarks = np.where(is_known[:, None], landmarks, 0)
    landmarks[:, 2] = landmarks[:, 2].clip(0, 1)  # COCO has 2 for visible, DWPose scores above 1
    joints = to_joints(landmarks, LAYOUTS[len(landmarks)])
    return joints if body_size(joints) else None


def is_keypoint_folder(folder: Path) -> bool:
    """Whether a folder holds keypoints: at least as many JSON files as images."""
    names = [entry.name.lower() for entry in visible(folder)]
    num_files = sum(name.endswith(".json") for name in names)
    return num_files > 0 and num_files >= sum(name.endswith(SUFFIXES) for name in names)


def read_all(path: Path, fps: float, person: int = 1) -> tuple[np.ndarray, tuple[int, int]]:
    """The joints `(T, J, 3)` of one person in all frames; width and height of the images.

    Args:
        path: see `read_people`.
        fps, person: see `follow`.

    Raises:
        UserError: coordinates are relative to an unknown size.
    """
    people = read_people(path)
    if people.is_relative and not people.size:
        raise UserError(f"{path}: keypoints are relative to an unknown image size; export them in pixels")
    followed = follow(people, fps, person)
    numbers = range(min(followed), max(followed) + 1)
    joints = np.array([followed.get(number, no_person()) for number in numbers])
    if np.isnan(joints).all():
        raise UserError(f"{path}: person {person} not found")
    width, height = people.size or np.nanmax(joints[..., :2], axis=(0, 1))
    return joints, (math.ceil(width), math.ceil(height))


def read_joints(path: Path, timeline: Timeline, indices: np.ndarray, person: int = 1) -> np.ndarray:
    """The joints `(T, J, 3)` of one person in some frames of a video, by the numbers of the frames.

    Args:
        path: see `read_people`.
        indices: `(T,)`, of `timeline.times`.
        person: see `follow`.

    Raises:
        UserError: no frame of the video has a pose.
    """
    people, numbers = read_people(path), timeline.numbers
    last = max(people.by_frame)
    if 0 not in people.by_frame and last == numbers[-1] + 1:
        log(f"{path}: frame numbers start at 1")
        numbers = numbers + 1
    cuts = numbers[1:][np.diff(timeline.shots) > 0]
    followed = follow(people, timeline.fps, person, timeline.size, cuts)
    joints = np.array([followed.get(int(number), no_person()) for number in numbers[indices]])
    if np.isnan(joints).all():
        raise UserError(
            f"{path}: has no poses of the frames {numbers[0]} to {numbers[-1]} of {timeline.path}"
        )
    return joints


def follow(
    people: People,
    fps: float,
    person: int = 1,
    size: tuple[int, int] | None = None,
    cuts: Collection[int] = (),
) -> dict[int, np.ndarray]:
    """The joints `(J, 3)` of one person by the number of the frame, NaN where they are not seen.

    Args:
        people: in a video.
        fps: frames per second of the video.
        person: which one, if there are several: 1 is the largest when they are first seen.
        size: width and height of the frames, by default those of the files.
        cuts: frames with which a new shot begins.
    """
    from_size = (1, 1) if people.is_relative else people.size or size or (1, 1)
    to_size = size or people.size or (1, 1)
    scale = np.append(np.divide(to_size, from_size), 1)
    tracker, followed = Tracker(person), {}
    for number in sorted({*people.by_frame, *cuts}):
        if number in cuts:
            tracker = Tracker(person)
        candidates = [joints * scale for joints in people.by_frame.get(number, ())]
        chosen = tracker.update(candidates, number / fps)
        followed[number] = no_person() if chosen is None else candidates[chosen]
    return followed
