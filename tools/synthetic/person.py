"""The image of the person: a shape and colours for each part of the body."""

import numpy as np

from .body import INDEX
from .curves import curve
from .geometry import wrapped
from .shapes import Canvas, clamp01, ellipsoid, limb, over, rgb, trunk

SKIN = (0.87, 0.62, 0.48)
LIPS = (0.72, 0.36, 0.33)
CHEEK = (0.91, 0.53, 0.43)
HAIR = (0.24, 0.14, 0.11)
EYE = (0.13, 0.09, 0.09)
JACKET = (0.80, 0.23, 0.20)
TRIM = (0.98, 0.88, 0.72)
SHIRT = (0.96, 0.95, 0.91)
TROUSERS = (0.12, 0.16, 0.31)
SHOE = (0.93, 0.93, 0.92)

# Position along the trunk from below the hips to the neck, half width and half depth in metres.
_TRUNK_SECTIONS = (
    (0.00, 0.168, 0.122),
    (0.10, 0.166, 0.122),
    (0.36, 0.146, 0.106),
    (0.62, 0.166, 0.120),
    (0.78, 0.178, 0.118),
    (0.87, 0.174, 0.105),
    (0.93, 0.146, 0.090),
    (0.97, 0.098, 0.075),
    (1.00, 0.062, 0.062),
)
_POSITIONS, *_SIZES = np.array(_TRUNK_SECTIONS).T
_ALONG = np.linspace(0.0, 1.0, 33)
TRUNK_PROFILE = np.stack([_ALONG, *(curve(_ALONG, _POSITIONS, sizes) for sizes in _SIZES)], -1)

HEM_BELOW = 0.07  # distance of the jacket's end below the middle of the pelvis, m
DETAIL = 80  # pixels per metre; in smaller images, ears, nose and thumbs are left out


def render_person(figure, frame, view):
    """A `Canvas` with the person in frame `frame` of a `Figure`, as `view` sees it."""
    return _Renderer(figure, frame, view).render()


def _solid(color):
    """The texture of an ellipsoid of one colour, without a hole."""
    return lambda u, v, w: (rgb(color), -np.inf)


class _Renderer:
    """Collects the parts of the body, then renders them from the farthest to the nearest."""

    def __init__(self, figure, frame, view):
        self.canvas = Canvas(view.width, view.height, view.scale)
        self.pelvis, self.chest, self.head = figure.pelvis[frame], figure.chest[frame], figure.head[frame]
        self.points, scales = view.project(figure.joints[frame])
        # Pixels per metre; one scale for the whole body, which is not deep.
        self.scale = float(scales[INDEX["pelvis"]])
        self.parts = []  # (closeness, function that renders the part)

    def render(self):
        """Render all parts; returns the canvas."""
        for side in ("l", "r"):
            self._arm(side)
            self._leg(side)
        self._trunk()
        self._head()
        for _, render_part in sorted(self.parts, key=lambda part: part[0]):
            render_part()
        return self.canvas

    def _at(self, joint, offset=None):
        """Column, row and closeness of a joint, moved by `offset` metres in the studio."""
        point = self.points[INDEX[joint]]
        if offset is None:
            return point
        return point + np.array([offset[0], -offset[1], offset[2]]) * self.scale

    def _limb(self, start, end, radii, color, marks=()):
        ra, rb = radii[0] * self.scale, radii[1] * self.scale
        closeness = (start[2] + end[2]) / 2 + min(ra, rb)
        self.parts.append((closeness, lambda: limb(self.canvas, start, end, (ra, rb), color, marks)))

    def _ellipsoid(self, center, frame, half_axes, texture):
        axes = frame * np.array(half_axes) * self.scale
        axes[1] *= -1.0
        closeness = center[2] + np.sqrt(np.sum(axes[2] ** 2))
        self.parts.append((closeness, lambda: ellipsoid(self.canvas, center, axes, texture)))

    def _arm(self, side):
        joints = ("shoulder", "elbow", "wrist", "fingers")
        shoulder, elbow, wrist, fingers = (self._at(f"{side}_{joint}") for joint in joints)
        self._limb(shoulder, elbow, (0.053, 0.047), JACKET)
        sleeve = [(-1.0, 0.36, JACKET), (0.36, 0.44, TRIM)]
        self._limb(elbow, wrist, (0.046, 0.030), SKIN, sleeve)
        palm = wrist + 0.55 * (fingers - wrist)
        self._limb(wrist, palm, (0.031, 0.037), SKIN)
        self._limb(palm, wrist + 0.86 * (fingers - wrist), (0.035, 0.021), SKIN)
        if self.scale < DETAIL:
            return
        inwards = self.chest[:, 0] * (-0.03 if side == "l" else 0.03) + self.chest[:, 2] * 0.03
        start = wrist + 0.15 * (fingers - wrist)
        thumb = self._at(f"{side}_wrist", inwards) + 0.55 * (fingers - wrist)
        self._limb(start, thumb, (0.019, 0.013), SKIN)

    def _leg(self, side):
        joints = ("hip", "knee", "ankle", "heel", "toe")
        hip, knee, ankle, heel, toe = (self._at(f"{side}_{joint}") for joint in joints)
        self._limb(hip, knee, (0.080, 0.062), TROUSERS)
        self._limb(knee, ankle, (0.062, 0.047), TROUSERS, [(0.90, 2.0, SHIRT)])
        lift = np.array([0.0, -self.scale, 0.0])
        self._limb(ankle + 0.02 * lift, heel + 0.062 * lift, (0.046, 0.044), SHOE)
        self._limb(heel + 0.055 * lift, toe + 0.044 * lift, (0.043, 0.040), SHOE)
        self._limb(ankle, toe + 0.048 * lift, (0.043, 0.037), SHOE)
        self._limb(heel + 0.015 * lift, toe + 0.014 * lift, (0.018, 0.016), JACKET)

    def _trunk(self):
        hips = self._at("pelvis", -0.035 * self.pelvis[:, 1])
        self._ellipsoid(hips, self.pelvis, (0.146, 0.115, 0.112), _solid(TROUSERS))
        # The jacket hangs loosely over the hips: nearer to the camera, so that no thigh cuts into it.
        loose = np.array([0.0, 0.0, 0.045 * self.scale])
        start = self._at("pelvis", -HEM_BELOW * self.pelvis[:, 1]) + loose
        end = self._at("neck")
        profile = TRUNK_PROFILE * [1.0, self.scale, self.scale]
        yaw, chest_yaw = (np.arctan2(frame[0, 2], frame[2, 2]) for frame in (self.pelvis, self.chest))
        yaws = yaw, yaw + wrapped(chest_yaw - yaw)
        closeness = (start[2] + end[2]) / 2 + 0.11 * self.scale
        self.parts.append((closeness, lambda: trunk(self.canvas, start, end, profile, yaws, self._jacket)))
        neck, head = self._at("neck", -0.03 * self.chest[:, 1]), self._at("head", -0.05 * self.head[:, 1])
        self._limb(neck, head, (0.050, 0.046), SKIN)

    def _jacket(self, along, around):
        """An open jacket over a light shirt, with a stripe across the back and a light hem."""
        sharp = 0.16 * self.scale
        front = np.cos(around)
        stripe = np.minimum(along - 0.60, 0.70 - along) * 0.6 * self.scale
        hem = (0.045 - along) * 0.6 * self.scale
        color = over(rgb(JACKET), np.maximum(stripe, hem), TRIM)
        opening = (front - (0.97 - 0.07 * along)) * sharp
        color = over(color, opening + 0.010 * self.scale, TRIM)
        return over(color, opening, SHIRT)

    def _head(self):
        center = self._at("head")
        self._ellipsoid(center, self.head, (0.082, 0.119, 0.095), self._face)
        back = self._at("head", 0.026 * self.head[:, 1] - 0.026 * self.head[:, 2])
        self._ellipsoid(back, self.head, (0.083, 0.092, 0.075), _solid(HAIR))
        crown = center + np.array([0.0, -0.006, 0.0]) * self.scale
        self._ellipsoid(crown, self.head, (0.087, 0.125, 0.101), self._hair)
        tie, middle, end = self._at("hair_tie"), self._at("ponytail"), self._at("ponytail_end")
        self._limb(tie, middle, (0.034, 0.046), HAIR, [(0.0, 0.16, JACKET)])
        self._limb(middle, end, (0.046, 0.012), HAIR)
        if self.scale < DETAIL:
            return
        for side in ("l", "r"):
            self._ellipsoid(self._at(f"{side}_ear"), self.head, (0.012, 0.028, 0.018), _solid(SKIN))
        nose = self._at("nose", -0.02 * self.head[:, 2])
        self._ellipsoid(nose, self.head, (0.013, 0.022, 0.020), _solid(SKIN))

    def _face(self, u, v, w):
        """Skin with eyes, brows, cheeks and a smile; u to the left, v up, w forward."""
        size = 0.1 * self.scale
        front = np.where(w > 0, 0.0, 9.0)
        beside = np.abs(u)
        cheek = np.hypot((beside - 0.55) / 0.20, (v + 0.28) / 0.13) + front
        blush = np.float32(0.6) * clamp01(np.float32(1.2) - cheek)
        color = rgb(SKIN) + blush * (rgb(CHEEK) - rgb(SKIN))
        eye = 1.0 - np.hypot((beside - 0.40) / 0.10, (v - 0.06) / 0.11) - front
        color = over(color, eye * 0.1 * size, EYE)
        arch = 0.30 - 0.7 * (beside - 0.40) ** 2
        brow = np.minimum(0.035 - np.abs(v - arch), 0.19 - np.abs(beside - 0.42)) - front
        color = over(color, brow * size, HAIR)
        smile = -0.52 + 0.9 * u * u
        mouth = np.minimum(0.035 - np.abs(v - smile), 0.30 - beside) - front
        return over(color, mouth * size, LIPS), -np.inf

    def _hair(self, u, v, w):
        """Hair combed back from the forehead; the hole leaves the face free."""
        line = w - (0.02 + 1.10 * v + 0.16 * u)
        shine = 0.06 * np.maximum(np.cos(9.0 * u + 4.0 * w), 0.0) * rgb((1.0, 0.8, 0.7))
        return rgb(HAIR) + shine, line * 0.07 * self.scale
