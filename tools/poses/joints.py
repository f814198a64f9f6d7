"""Keypoints of one person over time: from the landmarks of an estimator to our joints, smoothed."""

import json
import re
from pathlib import Path

import numpy as np

from runtime.cli import UserError
from tools.optional import require
from tools.synthetic.skeleton import JOINTS

from .blazepose import BlazePose

# Lower than usual, because estimates of joints that the body hides are good.
MIN_VISIBILITY = 0.2
MAX_GAP = 5  # frames that are interpolated
SMOOTHING = {"window_length": 7, "polyorder": 2}  # Savitzky and Golay 1964
# Indices of BlazePose's landmarks; of two, the mean.
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


def to_joints(landmarks: np.ndarray, indices: dict[str, tuple[int, ...]]) -> np.ndarray:
    """Landmarks `(L, 3)` -> `(J, 3)` in the order of `JOINTS`: x, y, visibility.

    A joint that the estimator does not have gets visibility 0.
    """
    joints = np.zeros((len(JOINTS), 3))
    for joint, name in enumerate(JOINTS):
        if name in indices:
            sources = landmarks[list(indices[name])]
            joints[joint] = [*sources[:, :2].mean(axis=0), sources[:, 2].min()]
    return joints


def no_person() -> np.ndarray:
    """The joints `(J, 3)` of a frame without a person."""
    return np.full((len(JOINTS), 3), np.nan)


def estimate(estimator: BlazePose, image: np.ndarray) -> np.ndarray:
    """The joints `(J, 3)` of the person that an estimator tracks, in the next image."""
    pose = estimator(image)
    return no_person() if pose is None else to_joints(pose.landmarks, BLAZEPOSE)


def smooth(joints: np.ndarray) -> np.ndarray:
    """Keypoints of a shot, `(T, J, 2)`, NaN where unknown.

    Invisible joints are dropped, gaps of up to `MAX_GAP` frames interpolated, and the rest is smoothed.

    Args:
        joints: `(T, J, 3)`, with the visibility; NaN in frames without a person.
    """
    signal = require("scipy.signal", "requirements-video.txt")
    keypoints = np.where(joints[..., 2:] >= MIN_VISIBILITY, joints[..., :2], np.nan)
    for joint in range(keypoints.shape[1]):
        _fill_gaps(keypoints[:, joint])
        for run in runs(~np.isnan(keypoints[:, joint, 0])):
            if len(run) >= SMOOTHING["window_length"]:
                keypoints[run, joint] = signal.savgol_filter(keypoints[run, joint], **SMOOTHING, axis=0)
    return keypoints


def _fill_gaps(track: np.ndarray) -> None:
    """Interpolate short gaps of one joint, `(T, 2)`, in place."""
    for gap in runs(np.isnan(track[:, 0])):
        before, after = gap[0] - 1, gap[-1] + 1
        if len(gap) <= MAX_GAP and before >= 0 and after < len(track):
            weight = ((gap - before) / (after - before))[:, None]
            track[gap] = (1 - weight) * track[before] + weight * track[after]


def runs(flags: np.ndarray) -> list[np.ndarray]:
    """The indices of each run of true flags."""
    indices = np.flatnonzero(flags)
    parts = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    return [part for part in parts if len(part)]


def read_openpose(folder: Path, person: int = 1) -> list[np.ndarray]:
    """The joints `(J, 3)` of each JSON file in a folder that OpenPose wrote, NaN without a person.

    Args:
        person: which one, if there are several: 1 is the largest in the first frame, then the nearest.

    Raises:
        UserError: no such files, or other content.
    """
    paths = sorted(folder.glob("*.json"), key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])
    if not paths:
        raise UserError(f"{folder}: no JSON files of OpenPose in it")
    rows, last = [], None
    for path in paths:
        people = _read_people(path)
        necks = [joints[JOINTS.index("neck"), :2] for joints in people]
        if not people or (last is None and person > len(people)):
            rows.append(no_person())
            continue
        if last is None:
            order = sorted(range(len(people)), key=lambda index: -_height(people[index]))
            index = order[person - 1]
        else:
            index = int(np.argmin([np.linalg.norm(neck - last) for neck in necks]))
        last = necks[index]
        rows.append(people[index])
    return rows


def _read_people(path: Path) -> list[np.ndarray]:
    try:
        people = json.loads(path.read_text("utf-8"))["people"]
        landmarks = [np.array(person["pose_keypoints_2d"], float).reshape(-1, 3) for person in people]
        return [to_joints(points, OPENPOSE[len(points)]) for points in landmarks]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not a file of OpenPose with 18 or 25 joints per person") from None


def _height(joints: np.ndarray) -> float:
    y = joints[joints[:, 2] > 0, 1]
    return float(np.ptp(y)) if len(y) else 0.0
