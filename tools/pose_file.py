"""poses.json, beside the splits of a dataset: the keypoints of each pose image."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from runtime import files
from runtime.cli import UserError
from tools.synthetic.skeleton import JOINTS
from utils import FRAMES_PER_SECOND, MAX_FPS

NAME = "poses.json"
DECIMALS = 2  # of a pixel
MAX_PIXELS = 100_000


class Poses(NamedTuple):
    """The content of a poses.json.

    Attributes:
        keypoints: in pixels, `(T, J, 2)`, NaN where unknown.
        size: width and height of the images.
        folders: of each pose image, such as val/val_label; empty if the file has none.
        fps: frames per second.
        videos: names of the videos that they are from.
    """

    keypoints: np.ndarray
    size: tuple[int, int]
    folders: list[str]
    fps: float = FRAMES_PER_SECOND
    videos: tuple[str, ...] = ()

    def of_folder(self, folder: str) -> np.ndarray:
        """The keypoints of the images of one folder, `(N, J, 2)`."""
        return self.keypoints[[name == folder for name in self.folders]]


def write(path: Path, size: tuple[int, int], fps: float, frames: list[dict], **source) -> None:
    """Write a poses.json.

    Args:
        size: width and height of the images.
        fps: frames per second.
        frames: from `frame`.
        source: where the keypoints are from, plain values.
    """
    files.write(path, json.dumps({"joints": JOINTS, "size": size, "fps": fps, **source, "frames": frames}))


def frame(
    folder: str, number: int, keypoints: np.ndarray, size: tuple[int, int], visibility: np.ndarray, **source
) -> dict:
    """The entry of one pose image.

    Args:
        folder: of the image, below the dataset.
        number: in the image's name.
        keypoints: `(J, 2)` in pixels, NaN where unknown.
        visibility: `(J,)` in [0, 1], NaN where unknown.
        source: which frame it is from, plain values.
    """
    return {
        "folder": folder,
        "number": number,
        **source,
        "pixels": _plain(keypoints, DECIMALS),
        "fractions": _plain(keypoints / size, 5),
        "visibility": [round(float(value), 2) for value in np.nan_to_num(visibility)],
    }


def _plain(points: np.ndarray, decimals: int) -> list:
    return [None if np.isnan(point).any() else point.round(decimals).tolist() for point in points]


def has_person(keypoints: np.ndarray) -> np.ndarray:
    """Whether a frame shows the neck of a person, and the hips or the head: `(T, J, 2)` -> `(T,)`."""
    neck, pelvis, nose = (
        ~np.isnan(keypoints[:, JOINTS.index(name), 0]) for name in ("neck", "pelvis", "nose")
    )
    return neck & (pelvis | nose)


def is_poses(path: Path) -> bool:
    """Whether a JSON file is a poses.json, and not one of a pose estimator."""
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError):
        return True  # `read` reports the problem
    return isinstance(content, dict) and "joints" in content


def read(path: Path) -> Poses:
    """Read a poses.json.

    Raises:
        UserError: no such file, or other content.
    """
    try:
        if not path.is_file():
            raise FileNotFoundError("no such file")
        poses = json.loads(path.read_text("utf-8-sig"))
        if tuple(poses["joints"]) != JOINTS:
            raise ValueError("unexpected joints")
        rows = [[point or (np.nan, np.nan) for point in entry["pixels"]] for entry in poses["frames"]]
        keypoints, (width, height) = np.array(rows, float).reshape(-1, len(JOINTS), 2), poses["size"]
        if not has_person(keypoints).any():
            raise ValueError("no frame has a person")
        folders = [str(entry["folder"]) for entry in poses["frames"] if "folder" in entry]
        videos = tuple(map(str, poses.get("videos", ())))
        size, fps = (int(width), int(height)), float(poses.get("fps", FRAMES_PER_SECOND))
        if min(size) < 1 or len(folders) not in (0, len(keypoints)) or not 0.01 <= fps <= MAX_FPS:
            raise ValueError("size, fps or folders are wrong")
        if np.abs(np.nan_to_num(keypoints, nan=0.0)).max() > MAX_PIXELS or max(size) > MAX_PIXELS:
            raise ValueError(f"coordinates exceed {MAX_PIXELS} pixels")
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: not a poses.json of tools.video_to_dataset ({error})") from None
    return Poses(keypoints, size, folders, fps, videos)
