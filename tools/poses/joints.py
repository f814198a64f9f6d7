"""The joints of one person over time: from an estimator's landmarks to those of the painter, repaired."""

import json
import re
from pathlib import Path

import numpy as np
from scipy.signal import savgol_filter

from runtime.cli import UserError
from tools.synthetic.skeleton import JOINTS

from .blazepose import BlazePose

# Of a joint that is used. Lower than usual: estimates of joints that are hidden by the body are good.
LEAST_VISIBILITY = 0.2
LONGEST_GAP = 5  # frames that are interpolated
SMOOTHING = {"window_length": 7, "polyorder": 2}  # Savitzky and Golay 1964
# Numbers of BlazePose's landmarks; the mean of two where the painter's joint lies between them.
BLAZEPOSE = {
    "nose": (0,), "l_eye": (2,), "r_eye": (5,), "l_ear": (7,), "r_ear": (8,),
    "l_shoulder": (11,), "r_shoulder": (12,), "l_elbow": (13,), "r_elbow": (14,), "l_wrist": (15,),
    "r_wrist": (16,), "l_hip": (23,), "r_hip": (24,), "l_knee": (25,), "r_knee": (26,), "l_ankle": (27,),
    "r_ankle": (28,), "l_toe": (31,), "r_toe": (32,), "neck": (11, 12), "pelvis": (23, 24),
}  # fmt: skip
COCO_18 = {
    "nose": (0,), "neck": (1,), "r_shoulder": (2,), "r_elbow": (3,), "r_wrist": (4,), "l_shoulder": (5,),
    "l_elbow": (6,), "l_wrist": (7,), "r_hip": (8,), "r_knee": (9,), "r_ankle": (10,), "l_hip": (11,),
    "l_knee": (12,), "l_ankle": (13,), "r_eye": (14,), "l_eye": (15,), "r_ear": (16,), "l_ear": (17,),
    "pelvis": (8, 11),
}  # fmt: skip
BODY_25 = {
    "nose": (0,), "neck": (1,), "r_shoulder": (2,), "r_elbow": (3,), "r_wrist": (4,), "l_shoulder": (5,),
    "l_elbow": (6,), "l_wrist": (7,), "pelvis": (8,), "r_hip": (9,), "r_knee": (10,), "r_ankle": (11,),
    "l_hip": (12,), "l_knee": (13,), "l_ankle": (14,), "r_eye": (15,), "l_eye": (16,), "r_ear": (17,),
    "l_ear": (18,), "l_toe": (19,), "r_toe": (22,),
}  # fmt: skip
OPENPOSE = {18: COCO_18, 25: BODY_25}  # by the number of joints


def painted_joints(landmarks: np.ndarray, numbers: dict[str, tuple[int, ...]]) -> np.ndarray:
    """Landmarks `(L, 3)` -> `(J, 3)`, in the order of the painter: column, row, visibility.

    A joint that the estimator does not know has the visibility 0.
    """
    joints = np.zeros((len(JOINTS), 3))
    for index, name in enumerate(JOINTS):
        if name in numbers:
            sources = landmarks[list(numbers[name])]
            joints[index] = [*sources[:, :2].mean(axis=0), sources[:, 2].min()]
    return joints


def nobody() -> np.ndarray:
    """The joints `(J, 3)` of a frame without a person."""
    return np.full((len(JOINTS), 3), np.nan)


def estimated(estimator: BlazePose, picture: np.ndarray) -> np.ndarray:
    """The joints `(J, 3)` of the person that an estimator follows, in the next picture."""
    pose = estimator(picture)
    return nobody() if pose is None else painted_joints(pose.landmarks, BLAZEPOSE)


def repaired(joints: np.ndarray) -> np.ndarray:
    """Places of joints over the frames of a shot, `(T, J, 2)`, NaN where a joint is not known.

    Joints that are not visible are dropped, gaps of up to `LONGEST_GAP` frames are interpolated, and what
    is known for long enough in a row is smoothed.

    Args:
        joints: `(T, J, 3)`, with the visibility; NaN in frames without a person.
    """
    places = np.where(joints[..., 2:] >= LEAST_VISIBILITY, joints[..., :2], np.nan)
    for joint in range(places.shape[1]):
        _fill_gaps(places[:, joint])
        for run in runs(~np.isnan(places[:, joint, 0])):
            if len(run) >= SMOOTHING["window_length"]:
                places[run, joint] = savgol_filter(places[run, joint], **SMOOTHING, axis=0)
    return places


def _fill_gaps(places: np.ndarray) -> None:
    """Interpolate short gaps of one joint, `(T, 2)`, in place."""
    for gap in runs(np.isnan(places[:, 0])):
        before, after = gap[0] - 1, gap[-1] + 1
        if len(gap) <= LONGEST_GAP and before >= 0 and after < len(places):
            share = ((gap - before) / (after - before))[:, None]
            places[gap] = (1 - share) * places[before] + share * places[after]


def runs(flags: np.ndarray) -> list[np.ndarray]:
    """The indices of each run of frames that are flagged."""
    flagged = np.flatnonzero(flags)
    parts = np.split(flagged, np.flatnonzero(np.diff(flagged) != 1) + 1)
    return [part for part in parts if len(part)]


def read_openpose(folder: Path, person: int = 1) -> list[np.ndarray]:
    """The joints `(J, 3)` of each JSON file of a folder that OpenPose wrote, NaN where nobody is.

    Args:
        person: which one, if there are several: 1 is the largest in the first frame; then the nearest.

    Raises:
        UserError: no such files, or other content.
    """
    paths = sorted(folder.glob("*.json"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])
    if not paths:
        raise UserError(f"{folder}: no JSON files of OpenPose in it")
    rows, last = [], None
    for path in paths:
        people = [_openpose_person(path, entry) for entry in _people(path)]
        middles = [joints[JOINTS.index("neck"), :2] for joints in people]
        if not people or (last is None and person > len(people)):
            rows.append(nobody())
            continue
        if last is None:
            order = sorted(range(len(people)), key=lambda index: -_height(people[index]))
            index = order[person - 1]
        else:
            index = int(np.argmin([np.linalg.norm(middle - last) for middle in middles]))
        last = middles[index]
        rows.append(people[index])
    return rows


def _people(path: Path) -> list:
    try:
        return list(json.loads(path.read_text("utf-8"))["people"])
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{path}: not a file of OpenPose ({type(error).__name__}: {error})") from None


def _openpose_person(path: Path, entry: object) -> np.ndarray:
    try:
        landmarks = np.array(entry["pose_keypoints_2d"], float).reshape(-1, 3)
        return painted_joints(landmarks, OPENPOSE[len(landmarks)])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: needs pose_keypoints_2d of 18 or 25 joints") from None


def _height(joints: np.ndarray) -> float:
    rows = joints[joints[:, 2] > 0, 1]
    return float(np.ptp(rows)) if len(rows) else 0.0
