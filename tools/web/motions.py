"""The motions of the web demo, its reference frames, and how it draws poses."""

from dataclasses import dataclass

import numpy as np

from dataloader import Video
from tools.pose_file import Poses
from tools.synthetic.frames import view_of
from tools.synthetic.skeleton import BONES, JOINTS, THICKNESS, bone_width
from training.pose_filling import fill_missing_poses

# Keypoints are int16: UNITS per image side; a keypoint may lie up to one image outside.
UNITS, MAX_UNITS, UNKNOWN = 16_000, 32_767, -32_768
MAX_TRAINING_POSES = 1000  # that the page compares with
PERCENTILE = 99  # of the distances of validation poses to the training poses
PELVIS = JOINTS.index("pelvis")


@dataclass
class Motions:
    """The motions and reference frames of the page.

    Attributes:
        labels: the name of each motion, and its kind, "joints" or "images".
        motions: int16 `(T, J, 2)`, or uint8 `(T, H, W, 3)`.
        references: the first frame and pose of each, uint8 `(2 * M, H, W, 3)`.
        training_poses: int16 `(N, J, 2)`; N = 0 without keypoints.
        unit: of motions and training poses, in pixels.
        max_distance: mean distance of the keypoints to the nearest training pose, in pixels, above which a
            pose counts as unlike the training data; None without keypoints.
    """

    labels: list[dict[str, str]]
    motions: list[np.ndarray]
    references: np.ndarray
    training_poses: np.ndarray
    unit: float
    max_distance: float | None


def drawing_style(poses: Poses | None, frame_size: tuple[int, int]) -> dict:
    """How the page draws a skeleton, by the names that renderer.js reads.

    Args:
        poses: of the dataset; None if unknown.
        frame_size: height and width of the networks' images.
    """
    width, height = poses.size if poses else frame_size[::-1]
    bones = [
        {
            "start": JOINTS.index(start),
            "end": JOINTS.index(end),
            "color": [value / 255 for value in color],
            "width": bone_width(end),
        }
        for start, end, color in BONES
    ]
    zoom = view_of(width, height).height // height
    style = {"bones": bones, "thickness": THICKNESS, "size": [width, height], "zoom": zoom}
    return {"joints": JOINTS, "style": style | {"frameSize": frame_size[::-1]}}


def collect(videos: list[Video], poses: Poses | None, config) -> Motions:
    """The motions of some videos, as keypoints where these are known.

    Args:
        videos: of the test and of validation.
        poses: of the dataset; None if unknown.
        config: `fill_poses, pose_background`.
    """
    labels, motions = [], []
    unit = max(poses.size) / UNITS if poses else 1.0
    for video in videos:
        is_test = video.number is not None
        name = f"test sequence {video.number}" if is_test else "validation"
        keypoints = _keypoints(poses, f"test/test_label/{video.number}" if is_test else "val/val_label")
        labels.append({"name": name, "kind": "joints" if len(keypoints) else "images"})
        images = fill_missing_poses(video.poses, config.fill_poses, config.pose_background)
        motions.append(_to_int16(keypoints[: len(images)], unit) if len(keypoints) else images)
    references = np.stack([image for video in videos for image in (video.first_frame, video.poses[0])])
    training_poses, max_distance = _keypoints(poses, "train/train_label"), None
    if len(training_poses):
        training_poses = training_poses[:: -(-len(training_poses) // MAX_TRAINING_POSES)]
        max_distance = _max_distance(_keypoints(poses, "val/val_label"), training_poses)
    return Motions(labels, motions, references, _to_int16(training_poses, unit), unit, max_distance)


def _keypoints(poses: Poses | None, folder: str) -> np.ndarray:
    return np.zeros((0, len(JOINTS), 2)) if poses is None else poses.of_folder(folder)


def _to_int16(keypoints: np.ndarray, unit: float) -> np.ndarray:
    units = (keypoints / unit).round().clip(-MAX_UNITS, MAX_UNITS)
    return np.where(np.isnan(keypoints), UNKNOWN, np.nan_to_num(units)).astype(np.int16)


def _max_distance(validation: np.ndarray, training: np.ndarray) -> float | None:
    """The page computes the same distance (kinematics.js, nearestDistance)."""
    training = training - training[:, PELVIS, None]
    nearest = []
    for keypoints in validation:
        lengths = np.linalg.norm(keypoints - keypoints[PELVIS] - training, axis=-1)
        known = ~np.isnan(lengths)
        counts = known.sum(axis=1)
        means = np.where(known, lengths, 0).sum(axis=1) / counts.clip(min=1)
        if counts.any():
            nearest.append(means[counts > 0].min())
    return float(np.percentile(nearest, PERCENTILE)) if nearest else None
