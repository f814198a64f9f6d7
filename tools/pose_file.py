"""poses.json, beside the splits of a dataset: the keypoints of each pose image."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from runtime import files
from runtime.cli import UserError
from tools.synthetic.skeleton import JOINTS

NAME = "poses.json"
DECIMALS = 2  # of a pixel


class Poses(NamedTuple):
    """The content of a poses.json.

    Attributes:
        keypoints: in pixels, `(T, J, 2)`, NaN where unknown.
        size: width and height of the images.
        folders: of each pose image, such as val/val_label; empty if the file has none.
    """

    keypoints: np.ndarray
    size: tuple[int, int]
    folders: list[str]

    def of_folder(self, folder: str) -> np.ndarray:
        """The keypoints of the images of one folder, `(N, J, 2)`."""
        return self.keypoints[[name == folder for name in self.folders]]


def write(path: Path, size: tuple[int, int], frames: list[dict], **source) -> None:
    """Write a poses.json.

    Args:
        size: width and height of the images.
        frames: from `frame`.
        source: where the keypoints are from, plain values.
    """
    files.write(path, json.dumps({"joints": JOINTS, "size": size, **source, "frames": frames}))


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
    """Whether a frame shows a person whose trunk is known: `(T, J, 2)` -> `(T,)`."""
    trunk = [JOINTS.index(name) for name in ("neck", "pelvis")]
    return ~np.isnan(keypoints[:, trunk]).any(axis=(1, 2))


def read(path: Path) -> Poses:
    """Read a poses.json.

    Raises:
        UserError: no such file, or other content.
    """
    try:
        if not path.is_file():
            raise FileNotFoundError("no such file")
        poses = json.loads(path.read_text("utf-8"))
        if tuple(poses["joints"]) != JOINTS:
            raise ValueError("it has other joints")
        rows = [[point or (np.nan, np.nan) for point in entry["pixels"]] for entry in poses["frames"]]
        keypoints, (width, height) = np.array(rows, float).reshape(-1, len(JOINTS), 2), poses["size"]
        if not has_person(keypoints).any():
            raise ValueError("no frame has a person")
        folders = [str(entry["folder"]) for entry in poses["frames"] if "folder" in entry]
        size = int(width), int(height)
        if min(size) < 1 or len(folders) not in (0, len(keypoints)):
            raise ValueError("size or folders are wrong")
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: not a poses.json of tools.video_to_dataset ({error})") from None
    return Poses(keypoints, size, folders)
