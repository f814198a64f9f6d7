"""The pose image: a coloured skeleton on white, as pose estimators draw it."""

import numpy as np

from .body import INDEX
from .shapes import clamp01, pixels_around, rgb, segment_distance

THICKNESS = 0.036  # of a bone, as a fraction of the image's height
# The right side is warm, the left side is cool, so that front and back differ; the middle is violet.
BONES = (
    ("neck", "nose", (170, 60, 235)),
    ("neck", "pelvis", (105, 85, 255)),
    ("neck", "r_shoulder", (255, 70, 95)),
    ("r_shoulder", "r_elbow", (255, 110, 40)),
    ("r_elbow", "r_wrist", (250, 165, 25)),
    ("neck", "l_shoulder", (60, 130, 255)),
    ("l_shoulder", "l_elbow", (25, 175, 245)),
    ("l_elbow", "l_wrist", (45, 215, 225)),
    ("pelvis", "r_hip", (215, 60, 160)),
    ("r_hip", "r_knee", (225, 45, 70)),
    ("r_knee", "r_ankle", (240, 120, 95)),
    ("r_ankle", "r_toe", (245, 190, 70)),
    ("pelvis", "l_hip", (40, 110, 200)),
    ("l_hip", "l_knee", (20, 165, 105)),
    ("l_knee", "l_ankle", (80, 210, 85)),
    ("l_ankle", "l_toe", (150, 225, 60)),
    ("nose", "r_eye", (235, 60, 200)),
    ("r_eye", "r_ear", (235, 60, 200)),
    ("nose", "l_eye", (110, 60, 225)),
    ("l_eye", "l_ear", (110, 60, 225)),
)


JOINTS = tuple(dict.fromkeys(joint for start, end, _ in BONES for joint in (start, end)))
JOINT_NUMBERS = [INDEX[name] for name in JOINTS]  # among those of a `Figure`


def draw_bones(keypoints, height, width):
    """(3, H, W) float32 in [0, 1]: bones between joints.

    keypoints: (J, 2) column and row of each of `JOINTS`, in pixels. A bone with a NaN joint is left out.
    """
    keypoints = dict(zip(JOINTS, np.asarray(keypoints, np.float32), strict=True))
    image = np.ones((3, height, width), np.float32)
    half_width = THICKNESS * height / 2
    for start, end, color in BONES:
        if np.isnan(keypoints[start]).any() or np.isnan(keypoints[end]).any():
            continue
        _line(image, keypoints[start], keypoints[end], half_width * bone_width(end), rgb(color) / 255)
    return image


def bone_width(end):
    """Width of the bone to a joint, relative to `THICKNESS`."""
    return 0.6 if "eye" in end or "ear" in end else 1.0


def _line(image, start, end, half_width, color):
    """An antialiased line with round ends. start, end: column and row; half_width: pixels."""
    box, columns, rows = pixels_around(image.shape[1:], start, end, half_width, half_width)
    distance = segment_distance(columns - start[0], rows - start[1], *(end - start)) - np.float32(half_width)
    coverage = clamp01(np.float32(0.5) - distance)
    covered = image[(slice(None), *box)]
    covered += coverage * (color - covered)
