"""The joints of a pose image, from the landmarks of pose estimators, and smoothed over time."""

import numpy as np

from tools.optional import require
from tools.synthetic.skeleton import JOINTS

from .tracking import MIN_VISIBILITY, body_size, is_visible

MAX_GAP = 5  # frames without a joint that are interpolated
MAX_HIDDEN = 60  # frames in which the body hides a joint
SMOOTHNESS = 0.7  # of the smoother, relative to the weight of a visible joint
OUTLIER = 0.03  # distance from the smooth track at which an estimate has half its weight, in body heights
ITERATIONS = 5  # of the weights
MIN_WEIGHT = 0.003  # of an estimated joint
# Landmark indices of each joint, by estimator; two landmarks are averaged.
BLAZEPOSE = {
    "nose": (0,), "l_eye": (2,), "r_eye": (5,), "l_ear": (7,), "r_ear": (8,),
    "l_shoulder": (11,), "r_shoulder": (12,), "l_elbow": (13,), "r_elbow": (14,), "l_wrist": (15,),
    "r_wrist": (16,), "l_hip": (23,), "r_hip": (24,), "l_knee": (25,), "r_knee": (26,), "l_ankle": (27,),
    "r_ankle": (28,), "l_toe": (31,), "r_toe": (32,), "neck": (11, 12), "pelvis": (23, 24),
}  # fmt: skip
COCO_17 = {
    "nose": (0,), "l_eye": (1,), "r_eye": (2,), "l_ear": (3,), "r_ear": (4,), "l_shoulder": (5,),
    "r_shoulder": (6,), "l_elbow": (7,), "r_elbow": (8,), "l_wrist": (9,), "r_wrist": (10,), "l_hip": (11,),
    "r_hip": (12,), "l_knee": (13,), "r_knee": (14,), "l_ankle": (15,), "r_ankle": (16,), "neck": (5, 6),
    "pelvis": (11, 12),
}  # fmt: skip
COCO_WHOLEBODY = COCO_17 | {"l_toe": (17,), "r_toe": (20,)}
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
HALPE_26 = COCO_17 | {"neck": (18,), "pelvis": (19,), "l_toe": (20,), "r_toe": (21,)}
# By the number of landmarks.
LAYOUTS = {17: COCO_17, 18: COCO_18, 25: BODY_25, 26: HALPE_26, 133: COCO_WHOLEBODY}


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


def smooth(joints: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """Keypoints of a shot, `(T, J, 2)`, NaN where unknown.

    Gaps of up to `MAX_GAP` frames are interpolated. This is the Whittaker smoother (Eilers 2003, "A
    perfect smoother") with second differences. It weights each estimate with its visibility, so that joints
    that the body hides, for up to `MAX_HIDDEN` frames, follow their visible neighbours in time. Outliers
    are downweighted iteratively (Cauchy weights).

    Args:
        joints: `(T, J, 3)`, with the visibility; NaN in frames without a person.
        size: width and height of the image, outside which a joint is unknown.
    """
    points, visibility = joints[..., :2], np.nan_to_num(joints[..., 2])
    if size is not None:
        visibility = np.where(((points >= 0) & (points <= size)).all(axis=-1), visibility, 0)
    keypoints = np.full(points.shape, np.nan)
    sizes = [body_size(row) for row in joints if is_visible(row).any()]
    scale = OUTLIER * max(1.0, np.median(sizes)) if sizes else 1.0
    for joint in range(joints.shape[1]):
        is_known = visibility[:, joint] > 0
        for hidden in runs(visibility[:, joint] < MIN_VISIBILITY):
            is_known[hidden] &= len(hidden) <= MAX_HIDDEN
        weights = np.where(is_known, visibility[:, joint].clip(MIN_WEIGHT), 0)
        for run in runs(_without_gaps(is_known)):
            keypoints[run, joint] = _smoothed(np.nan_to_num(points[run, joint]), weights[run], scale)
    return keypoints


def _without_gaps(is_known: np.ndarray) -> np.ndarray:
    filled = is_known.copy()
    for gap in runs(~is_known):
        filled[gap] = len(gap) <= MAX_GAP and gap[0] > 0 and gap[-1] < len(is_known) - 1
    return filled


def _smoothed(track: np.ndarray, weights: np.ndarray, scale: float) -> np.ndarray:
    """One joint over time, `(T, 2)`.

    Args:
        weights: `(T,)`; the first and the last are not 0.
        scale: distance in pixels at which an estimate has half its weight.
    """
    if len(track) < 3:
        return track
    result = _whittaker(track, weights)
    for _ in range(ITERATIONS):
        robust = weights / (1 + (np.linalg.norm(track - result, axis=1) / scale) ** 2)
        result = _whittaker(track, robust)
    return result


def _whittaker(track: np.ndarray, weights: np.ndarray) -> np.ndarray:
    linalg = require("scipy.linalg", "requirements-video.txt")
    # The matrix of the normal equations, weights + smoothness * D'D with second differences D, by diagonals.
    count = len(track)
    diagonals = np.zeros((3, count))
    for row, values in enumerate(((1, 4, 1), (-2, -2), (1,))):
        for offset, value in enumerate(values):
            diagonals[row, offset : offset + count - 2] += value
    diagonals *= SMOOTHNESS
    diagonals[0] += weights
    return linalg.solveh_banded(diagonals, weights[:, None] * track, lower=True)


def runs(flags: np.ndarray) -> list[np.ndarray]:
    """The indices of each run of true flags."""
    indices = np.flatnonzero(flags)
    parts = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    return [part for part in parts if len(part)]
