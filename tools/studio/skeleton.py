"""The pose picture: a coloured skeleton on white, as pose estimators draw it."""

import numpy as np

from .body import INDEX
from .paint import clipped, plain

THICKNESS = 0.036  # of a bone, as a part of the picture's height
# The body's right is warm, its left is cool, so that front and back differ; the middle is violet.
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


def paint_skeleton(figure, frame, view):
    """(3, H, W) float32 in [0, 1]: the pose of frame `frame` of `figure`, as `view` sees it."""
    places = view.project(figure.joints[frame])[0][:, :2].astype(np.float32)
    picture = np.ones((3, view.height, view.width), np.float32)
    half = THICKNESS * view.height / 2
    for start, end, color in BONES:
        width = half * (0.6 if "eye" in end or "ear" in end else 1.0)
        _line(picture, places[INDEX[start]], places[INDEX[end]], width, plain(color) / 255)
    return picture


def _line(picture, a, b, half, color):
    """A round-ended line of half width `half` pixels from a to b (column, row), antialiased."""
    height, width = picture.shape[1:]
    (x0, y0), (x1, y1) = np.minimum(a, b) - half - 1, np.maximum(a, b) + half + 2
    x0, y0, x1, y1 = max(0, int(x0)), max(0, int(y0)), min(width, int(x1)), min(height, int(y1))
    if x0 >= x1 or y0 >= y1:
        return
    x = np.arange(x0, x1, dtype=np.float32) + np.float32(0.5) - a[0]
    y = np.arange(y0, y1, dtype=np.float32)[:, None] + np.float32(0.5) - a[1]
    dx, dy = b - a
    along = clipped((x * dx + y * dy) / max(dx * dx + dy * dy, np.float32(1e-6)))
    distance = np.hypot(x - along * dx, y - along * dy) - np.float32(half)
    coverage = clipped(np.float32(0.5) - distance)
    box = picture[:, y0:y1, x0:x1]
    box += coverage * (color - box)
