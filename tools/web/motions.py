"""What a page knows of motions: how poses are painted, where it may begin, and what was recorded."""

from dataclasses import dataclass

import numpy as np

from tools.pose_file import Poses
from tools.synthetic.frames import view_of
from tools.synthetic.skeleton import BONES, JOINTS, THICKNESS, narrowing
from training.evaluate import Sequence

# Places are stored in 16 bits: pictures have this many units, and a joint may be a picture's length outside.
UNITS, LARGEST, UNKNOWN = 16_000, 32_767, -32_768
MOST_FAMILIAR = 1000  # poses of the training that the page compares with
USUAL = 99  # percentile of the distance of validation poses to those of the training
PELVIS = JOINTS.index("pelvis")


@dataclass
class Recorded:
    """The motions and the start frames of a page.

    Attributes:
        names: of the motions; each begins with the start frame of the same number.
        kinds: "joints" or "pictures".
        motions: int16 `(T, J, 2)`, or uint8 `(T, H, W, 3)`.
        starts: frame and pose of each, uint8 `(2 * M, H, W, 3)`.
        familiar: poses of the training, int16 `(N, J, 2)`; none without joints.
        unit: of the motions and the familiar poses, in pixels.
        familiar_distance: mean distance of the joints, in pixels, that is usual for poses that are not of the
            training; None without joints.
    """

    names: list[str]
    kinds: list[str]
    motions: list[np.ndarray]
    starts: np.ndarray
    familiar: np.ndarray
    unit: float
    familiar_distance: float | None


def look(joints: Poses | None, frame: tuple[int, int]) -> dict:
    """How the page paints a skeleton; its names are those that painter.js reads.

    Args:
        joints: of the dataset; None if they are not known.
        frame: height and width of the networks' pictures.
    """
    width, height = joints.size if joints else frame[::-1]
    bones = [
        {
            "start": JOINTS.index(start),
            "end": JOINTS.index(end),
            "color": [value / 255 for value in color],
            "width": narrowing(end),
        }
        for start, end, color in BONES
    ]
    zoom = view_of(width, height).height // height
    painted = {"bones": bones, "thickness": THICKNESS, "size": [width, height], "zoom": zoom}
    return {"joints": JOINTS, "look": {**painted, "frame": frame[::-1]}}


def recorded(sequences: list[Sequence], joints: Poses | None) -> Recorded:
    """The motions of some sequences, as joints where they are known.

    Args:
        sequences: test sequences and validation.
        joints: of the dataset; None if they are not known.
    """
    names, kinds, motions = [], [], []
    unit = max(joints.size) / UNITS if joints else 1.0
    for sequence in sequences:
        is_test = sequence.name != "val"
        names.append(f"test {sequence.name}" if is_test else "validation")
        places = _of_folder(joints, f"test/test_label/{sequence.name}" if is_test else "val/val_label")
        kinds.append("joints" if len(places) else "pictures")
        poses = sequence.filled_poses()
        motions.append(_stored(places[: len(poses)], unit) if len(places) else poses)
    starts = np.stack([picture for s in sequences for picture in (s.first_frame, s.poses[0])])
    familiar = _of_folder(joints, "train/train_label")
    distance = None
    if len(familiar):
        familiar = familiar[:: -(-len(familiar) // MOST_FAMILIAR)]
        distance = _usual_distance(_of_folder(joints, "val/val_label"), familiar)
    return Recorded(names, kinds, motions, starts, _stored(familiar, unit), unit, distance)


def _of_folder(joints: Poses | None, folder: str) -> np.ndarray:
    if joints is None:
        return np.zeros((0, len(JOINTS), 2))
    return joints.places[[name == folder for name in joints.folders]]


def _stored(places: np.ndarray, unit: float) -> np.ndarray:
    units = (places / unit).round().clip(-LARGEST, LARGEST)
    return np.where(np.isnan(places), UNKNOWN, np.nan_to_num(units)).astype(np.int16)


def _usual_distance(poses: np.ndarray, familiar: np.ndarray) -> float | None:
    """The page computes the same distance (kinematics.js, nearestDistance)."""
    familiar = familiar - familiar[:, PELVIS, None]
    nearest = []
    for places in poses:
        lengths = np.linalg.norm(places - places[PELVIS] - familiar, axis=-1)
        known = ~np.isnan(lengths)
        counts = known.sum(axis=1)
        means = np.where(known, lengths, 0).sum(axis=1) / counts.clip(min=1)
        if counts.any():
            nearest.append(means[counts > 0].min())
    return float(np.percentile(nearest, USUAL)) if nearest else None
