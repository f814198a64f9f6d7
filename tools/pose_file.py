"""poses.json, beside the splits of a dataset: where the joints are in each pose picture."""

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
    """What a poses.json says.

    Attributes:
        places: of joints in the pictures, in pixels, `(T, J, 2)`, NaN where they are not known.
        size: width and height of the pictures.
        folders: of each pose picture, such as val/val_label; empty if the file does not tell them.
    """

    places: np.ndarray
    size: tuple[int, int]
    folders: list[str]


def write(path: Path, size: tuple[int, int], frames: list[dict], **source) -> None:
    """Write a poses.json.

    Args:
        size: width and height of the pictures.
        frames: from `frame`.
        source: where the joints are from, plain values.
    """
    files.write(path, json.dumps({"joints": JOINTS, "size": size, **source, "frames": frames}))


def frame(
    folder: str, number: int, places: np.ndarray, size: tuple[int, int], visibility: np.ndarray, **source
):
    """The entry of one pose picture.

    Args:
        folder: of the picture, below the dataset.
        number: in the picture's name.
        places: `(J, 2)` in pixels, NaN where a joint is not known.
        visibility: `(J,)` in [0, 1], NaN where it is not known.
        source: which frame it is from, plain values.
    """
    return {
        "folder": folder,
        "number": number,
        **source,
        "pixels": _plain(places, DECIMALS),
        "fractions": _plain(places / size, 5),
        "visibility": [round(float(value), 2) for value in np.nan_to_num(visibility)],
    }


def _plain(places: np.ndarray, decimals: int) -> list:
    return [None if np.isnan(place).any() else place.round(decimals).tolist() for place in places]


def is_somebody(places: np.ndarray) -> np.ndarray:
    """Whether a frame shows a person whose trunk is known: `(T, J, 2)` -> `(T,)`."""
    trunk = [JOINTS.index(name) for name in ("neck", "pelvis")]
    return ~np.isnan(places[:, trunk]).any(axis=(1, 2))


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
        rows = [[place or (np.nan, np.nan) for place in entry["pixels"]] for entry in poses["frames"]]
        places, (width, height) = np.array(rows, float).reshape(-1, len(JOINTS), 2), poses["size"]
        if not is_somebody(places).any():
            raise ValueError("nobody is in them")
        folders = [str(entry["folder"]) for entry in poses["frames"] if "folder" in entry]
        size = int(width), int(height)
        if min(size) < 1 or len(folders) not in (0, len(places)):
            raise ValueError("size or folders are wrong")
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise UserError(
            f"{path}: not the poses of a dataset ({error}); tools.video_to_dataset writes them"
        ) from None
    return Poses(places, size, folders)
