"""The studio: a lit wall, a wooden floor, furniture, and the person's shadow."""

import numpy as np
from PIL import Image

from .body import INDEX
from .furniture import furnish
from .shapes import clamp01, segment_distance

WALL_COLOR = (0.82, 0.87, 0.86)
BOARDS = (0.76, 0.63, 0.49)

# Distance from a point above the floor to its shadow, per metre of height: to the right and to the back, m.
SHADOW_RIGHT, SHADOW_BACK = 0.34, 0.26
# The bones that cast a shadow: start, end, half width in metres.
_TRUNK_BONES = (("pelvis", "neck", 0.15), ("neck", "head", 0.09))
_LIMB_BONES = (
    ("hip", "knee", 0.08),
    ("knee", "ankle", 0.06),
    ("shoulder", "elbow", 0.05),
    ("elbow", "fingers", 0.04),
)
SHADOW_BONES = (
    *_TRUNK_BONES,
    *((f"{side}_{a}", f"{side}_{b}", half) for side in "lr" for a, b, half in _LIMB_BONES),
)


class Room:
    """The empty studio as `view` sees it: `background`, (3, H, W) float32 in [0, 1]."""

    def __init__(self, view):
        self.view = view
        self.background = _render_room(view)
        self.top = max(0, int(view.wall_foot))  # first row of the floor
        rows = np.arange(self.top, view.height)[:, None] + 0.5
        columns = np.arange(view.width) + 0.5
        x, z = view.floor_points(rows, columns)
        self.floor_x = x.astype(np.float32)
        self.floor_z = np.broadcast_to(z, x.shape).astype(np.float32)

    def with_shadow(self, joints):
        """(3, H, W): the studio with the soft shadow of a person. joints: (J, 3) in metres."""
        image = self.background.copy()
        dark = np.zeros_like(self.floor_x)
        for start, end, half in SHADOW_BONES:
            self._shade(dark, joints[INDEX[start]], joints[INDEX[end]], half)
        for side in "lr":
            heel, toe = joints[INDEX[f"{side}_heel"]], joints[INDEX[f"{side}_toe"]]
            self._touch(dark, heel, toe)
        image[:, self.top :] *= 1.0 - dark * np.float32([1.0, 0.98, 0.88])[:, None, None]
        return image

    def _shade(self, dark, start, end, half):
        """Darken the floor in the shadow of the bone from `start` to `end`, of half width `half` metres."""
        height = max(0.0, (start[1] + end[1]) / 2)
        soft = 0.05 + 0.10 * height
        ax, az = start[0] + SHADOW_RIGHT * start[1], start[2] - SHADOW_BACK * start[1]
        bx, bz = end[0] + SHADOW_RIGHT * end[1], end[2] - SHADOW_BACK * end[1]
        box, away = self._distance((ax, az), (bx, bz), half + soft)
        amount = clamp01(0.5 - (away - half) / (2 * soft))
        amount = amount * amount * (3 - 2 * amount) * np.float32(0.34 / (1 + 0.7 * height))
        np.maximum(dark[box], amount, out=dark[box])

    def _touch(self, dark, heel, toe):
        """The small dark shadow under a sole, which fades as the foot leaves the floor."""
        height = max(0.0, min(heel[1], toe[1]))
        soft = 0.05 + 0.5 * height
        box, away = self._distance((heel[0], heel[2]), (toe[0], toe[2]), 0.04 + 2 * soft)
        fall_off = np.exp(-0.5 * (np.maximum(away - 0.03, 0.0) / soft) ** 2)
        amount = np.float32(0.55 / (1 + height / 0.04) ** 2) * fall_off
        dark[box] += (1.0 - dark[box]) * amount

    def _distance(self, a, b, margin):
        """Slices of the floor around the segment from a to b (x, z), and distances to it in metres."""
        low, high = np.minimum(a, b) - margin, np.maximum(a, b) + margin
        inside_z = (self.floor_z[:, 0] > low[1]) & (self.floor_z[:, 0] < high[1])
        inside_x = ((self.floor_x > low[0]) & (self.floor_x < high[0])).any(0)
        box = _span(inside_z), _span(inside_x)
        x, z = self.floor_x[box] - np.float32(a[0]), self.floor_z[box] - np.float32(a[1])
        dx, dz = np.float32(b[0] - a[0]), np.float32(b[1] - a[1])
        return box, segment_distance(x, z, dx, dz)


def _span(inside):
    """The slice from the first to the last True."""
    hits = np.flatnonzero(inside)
    return slice(hits[0], hits[-1] + 1) if len(hits) else slice(0, 0)


def _render_room(view):
    """(3, H, W) float32 in [0, 1]: drawn enlarged with Pillow, then averaged."""
    zoom = max(2, min(4, 2048 // view.width))
    image = Image.fromarray(_walls(view, zoom))
    furnish(image, view, zoom)
    return np.asarray(image.reduce(zoom), np.float32).transpose(2, 0, 1).copy() / 255


def _walls(view, zoom):
    """(zoom * H, zoom * W, 3) uint8 wall and floor: light from the left, darker corners, floor boards."""
    columns = (np.arange(view.width * zoom, dtype=np.float32) + 0.5) / zoom
    rows = ((np.arange(view.height * zoom, dtype=np.float32) + 0.5) / zoom)[:, None]
    foot = view.wall_foot
    u, v = columns / view.width, rows / view.height
    glow = np.exp(-(((u - 0.36) / 0.42) ** 2) - ((v - 0.30) / 0.62) ** 2)
    wall = np.float32(WALL_COLOR) * (0.80 + 0.26 * glow)[..., None]
    x, z = view.floor_points(np.maximum(rows, foot), columns)
    board = np.floor(z / 0.16)
    tone = 0.04 * np.sin(board * 12.9898) + 0.02 * np.sin(x * 3.1 + board * 7.0)
    seam = np.minimum(z / 0.16 - board, board + 1 - z / 0.16) < 0.05
    near = 0.86 + 0.10 * glow + 0.10 * (v - foot / view.height)
    floor = np.float32(BOARDS) * (near + tone - 0.10 * seam)[..., None]
    image = np.where((rows < foot)[..., None], wall, floor)
    edge = 1.0 - 0.16 * clamp01(np.hypot(u - 0.5, (v - 0.5) * 0.8) - 0.30)
    return (clamp01(image * edge[..., None]) * 255 + 0.5).astype(np.uint8)
