"""The studio around the dancer: a lit wall, boards, a rug, a plant, a lamp, pictures; and shadows."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .body import INDEX
from .paint import clipped
from .view import WALL

WALL_COLOR = (0.82, 0.87, 0.86)
SKIRTING = (238, 236, 228)
BOARDS = (0.76, 0.63, 0.49)
RUG, RUG_EDGE = (203, 178, 150), (226, 205, 178)

# From a point above the floor to its shadow, metres right and back for each metre of height.
SHADOW_RIGHT, SHADOW_BACK = 0.34, 0.26
# Bones that throw the shadow, and their half widths in metres.
SHADOWS = (
    ("pelvis", "neck", 0.15),
    ("neck", "head", 0.09),
    *((f"{s}_{a}", f"{s}_{b}", r) for s in "lr" for a, b, r in (
        ("hip", "knee", 0.08), ("knee", "ankle", 0.06), ("shoulder", "elbow", 0.05),
        ("elbow", "fingers", 0.04),
    )),
)  # fmt: skip


class Room:
    """The empty studio as `view` sees it: `background`, (3, H, W) float32 in [0, 1]."""

    def __init__(self, view):
        self.view = view
        self.background = _paint_room(view)
        wall_foot = view.project(np.array([0.0, 0.0, WALL]))[0][1]
        self.top = max(0, int(wall_foot))
        rows = np.arange(self.top, view.height)[:, None] + 0.5
        columns = np.arange(view.width) + 0.5
        x, z = view.floor_points(rows, columns)
        self.floor_x = x.astype(np.float32)
        self.floor_z = np.broadcast_to(z, x.shape).astype(np.float32)

    def with_shadow(self, joints):
        """(3, H, W): the studio with the soft shadow of a person. joints: (J, 3) in metres."""
        picture = self.background.copy()
        dark = np.zeros_like(self.floor_x)
        for start, end, half in SHADOWS:
            self._shade(dark, joints[INDEX[start]], joints[INDEX[end]], half)
        for side in "lr":
            heel, toe = joints[INDEX[f"{side}_heel"]], joints[INDEX[f"{side}_toe"]]
            self._touch(dark, heel, toe)
        picture[:, self.top :] *= 1.0 - dark * np.float32([1.0, 0.98, 0.88])[:, None, None]
        return picture

    def _shade(self, dark, start, end, half):
        """Darken the floor where the bone from start to end takes the lamp's light."""
        height = max(0.0, (start[1] + end[1]) / 2)
        soft = 0.05 + 0.10 * height
        ax, az = start[0] + SHADOW_RIGHT * start[1], start[2] - SHADOW_BACK * start[1]
        bx, bz = end[0] + SHADOW_RIGHT * end[1], end[2] - SHADOW_BACK * end[1]
        box, away = self._distance((ax, az), (bx, bz), half + soft)
        amount = clipped(0.5 - (away - half) / (2 * soft))
        amount = amount * amount * (3 - 2 * amount) * np.float32(0.34 / (1 + 0.7 * height))
        np.maximum(dark[box], amount, out=dark[box])

    def _touch(self, dark, heel, toe):
        """The tight dark shadow under a sole, gone as soon as the foot is off the floor."""
        height = max(0.0, min(heel[1], toe[1]))
        soft = 0.05 + 0.5 * height
        box, away = self._distance((heel[0], heel[2]), (toe[0], toe[2]), 0.04 + 2 * soft)
        amount = np.float32(0.55 / (1 + height / 0.04) ** 2) * np.exp(
            -0.5 * (np.maximum(away - 0.03, 0.0) / soft) ** 2
        )
        dark[box] += (1.0 - dark[box]) * amount

    def _distance(self, a, b, margin):
        """The part of the floor around the segment from a to b (x, z), and distances to it in metres."""
        low, high = np.minimum(a, b) - margin, np.maximum(a, b) + margin
        inside_z = (self.floor_z[:, 0] > low[1]) & (self.floor_z[:, 0] < high[1])
        inside_x = ((self.floor_x > low[0]) & (self.floor_x < high[0])).any(0)
        box = _span(inside_z), _span(inside_x)
        x, z = self.floor_x[box] - np.float32(a[0]), self.floor_z[box] - np.float32(a[1])
        dx, dz = np.float32(b[0] - a[0]), np.float32(b[1] - a[1])
        along = clipped((x * dx + z * dz) / max(dx * dx + dz * dz, np.float32(1e-6)))
        return box, np.hypot(x - along * dx, z - along * dz)


def _span(inside):
    """The slice from the first to the last True."""
    hits = np.flatnonzero(inside)
    return slice(hits[0], hits[-1] + 1) if len(hits) else slice(0, 0)


def _paint_room(view):
    """(3, H, W) float32: drawn much larger with Pillow, then averaged down."""
    zoom = max(2, min(4, 2048 // view.width))
    picture = Image.fromarray(_walls(view, zoom))
    _Decorator(picture, view, zoom).decorate()
    return np.asarray(picture.reduce(zoom), np.float32).transpose(2, 0, 1).copy() / 255


def _walls(view, zoom):
    """uint8 wall and floor: the lamp's light from the left, darker corners, boards in perspective."""
    columns = (np.arange(view.width * zoom, dtype=np.float32) + 0.5) / zoom
    rows = ((np.arange(view.height * zoom, dtype=np.float32) + 0.5) / zoom)[:, None]
    foot = view.project(np.array([0.0, 0.0, WALL]))[0][1]
    u, v = columns / view.width, rows / view.height
    glow = np.exp(-(((u - 0.36) / 0.42) ** 2) - ((v - 0.30) / 0.62) ** 2)
    wall = np.float32(WALL_COLOR) * (0.80 + 0.26 * glow)[..., None]
    x, z = view.floor_points(np.maximum(rows, foot), columns)
    board = np.floor(z / 0.16)
    tone = 0.04 * np.sin(board * 12.9898) + 0.02 * np.sin(x * 3.1 + board * 7.0)
    seam = np.minimum(z / 0.16 - board, board + 1 - z / 0.16) < 0.05
    near = 0.86 + 0.10 * glow + 0.10 * (v - foot / view.height)
    floor = np.float32(BOARDS) * (near + tone - 0.10 * seam)[..., None]
    picture = np.where((rows < foot)[..., None], wall, floor)
    edge = 1.0 - 0.16 * clipped(np.hypot(u - 0.5, (v - 0.5) * 0.8) - 0.30)
    return (clipped(picture * edge[..., None]) * 255 + 0.5).astype(np.uint8)


class _Decorator:
    """Draws the things of the studio on an enlarged picture, given in metres."""

    def __init__(self, picture, view, zoom):
        self.picture, self.view, self.zoom = picture, view, zoom
        self.draw = ImageDraw.Draw(picture)

    def decorate(self):
        """Everything, from the back to the front."""
        half = self.view.half_width * 1.28  # what the camera sees of the wall
        self._window_light(-0.10 * half)
        self._box(-half - 1, 0.0, half + 1, 0.11, SKIRTING)
        self._box(-half - 1, 0.10, half + 1, 0.115, (205, 204, 196))
        self._print(0.40 * half)
        self._rug()
        self._plant(-0.84 * half)
        self._lamp(0.86 * half)

    def _spots(self, points, z=WALL):
        """Pixels of (x, y) points in the plane at z."""
        flat = np.array([(x, y, z) for x, y in points], float)
        return [tuple(p) for p in self.view.project(flat)[0][:, :2] * self.zoom]

    def _box(self, x0, y0, x1, y1, color, z=WALL):
        self.draw.polygon(self._spots([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], z), fill=color)

    def _blurred(self, polygon, color, opacity, radius):
        """A polygon of pixels with an edge that is soft over `radius` metres; opacity: 0 to 255."""
        mask = Image.new("L", self.picture.size)
        ImageDraw.Draw(mask).polygon(polygon, fill=opacity)
        mask = mask.filter(ImageFilter.GaussianBlur(radius * self.view.scale * self.zoom))
        self.picture.paste(color, mask=mask)

    def _window_light(self, x):
        """Sunlight through a window with four panes, slanting over the wall."""
        pane = np.array([(0, 0), (0.64, 0.10), (0.64, 0.62), (0, 0.52)])
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            corner = (x - 0.75 + 0.72 * i, 1.05 + 0.58 * j + 0.11 * i)
            self._blurred(self._spots(pane + corner), (255, 246, 222), 92, 0.022)

    def _print(self, x):
        """A framed print: hills under a sun."""
        shadow = [(x + 0.03, 1.2), (x + 0.68, 1.2), (x + 0.68, 2.02), (x + 0.03, 2.02)]
        self._blurred(self._spots(shadow), (70, 80, 84), 90, 0.03)
        self._box(x, 1.24, x + 0.64, 2.06, (92, 74, 60))
        self._box(x + 0.035, 1.275, x + 0.605, 2.025, (246, 240, 226))
        sun = self._spots([(x + 0.20, 1.86), (x + 0.44, 1.62)])
        self.draw.ellipse((*sun[0], *sun[1]), fill=(236, 150, 88))
        line = np.linspace(0.07, 0.57, 24)
        for low, high, color in ((1.58, 1.66, (140, 170, 165)), (1.44, 1.55, (84, 124, 128))):
            ridge = low + (high - low) * (0.5 + 0.5 * np.sin(11 * line + low * 9))
            hill = [(x + 0.07, 1.31), *zip(x + line, ridge, strict=True), (x + 0.57, 1.31)]
            self.draw.polygon(self._spots(hill), fill=color)

    def _rug(self):
        """A round rug, seen flat."""
        for radius, color in ((1.0, RUG_EDGE), (0.95, RUG), (0.80, RUG_EDGE), (0.775, RUG)):
            turn = np.linspace(0, 2 * np.pi, 96)
            wide = radius * min(1.75, 0.8 * self.view.half_width)
            points = np.stack(
                [wide * np.cos(turn), np.zeros_like(turn), -0.05 + radius * 0.72 * np.sin(turn)], -1
            )
            spots = self.view.project(points)[0][:, :2] * self.zoom
            self.draw.polygon([tuple(p) for p in spots], fill=color)

    def _plant(self, x):
        """A rubber plant in a pot."""
        z = -1.35
        self._ground_shadow(x, z, 0.26)
        rng = np.random.default_rng(7)
        for k in range(15):
            angle = np.pi * (0.10 + 0.80 * ((k * 0.618) % 1.0))
            reach = 0.30 + 0.42 * rng.random() + 0.16 * np.sin(angle)
            self._leaf(x, 0.40 + 0.02 * k, angle, reach, 0.085, k, z)
        pot = [(-0.17, 0.40), (0.17, 0.40), (0.125, 0.0), (-0.125, 0.0)]
        self.draw.polygon(self._spots([(x + a, b) for a, b in pot], z), fill=(214, 190, 160))
        shade = [(0.04, 0.40), (0.17, 0.40), (0.125, 0.0), (0.03, 0.0)]
        self.draw.polygon(self._spots([(x + a, b) for a, b in shade], z), fill=(190, 164, 136))
        self._box(x - 0.185, 0.37, x + 0.185, 0.43, (224, 202, 174), z)

    def _leaf(self, x, y, angle, reach, wide, k, z):
        s = np.linspace(0, 1, 14)
        bend = angle + 0.55 * (s - 0.3) * np.sign(np.pi / 2 - angle) * -1.0
        along = np.stack([np.cos(bend), np.sin(bend)], -1) * (reach * s)[:, None]
        across = np.stack([-np.sin(bend), np.cos(bend)], -1)
        width = (wide * np.sin(np.pi * np.clip((s - 0.25) / 0.75, 0, 1)) ** 0.8 + 0.006)[:, None]
        outline = np.concatenate([along + across * width, (along - across * width)[::-1]])
        green = np.array([(66, 116, 88), (84, 138, 98), (52, 98, 80)][k % 3])
        half = np.concatenate([along + across * width, along[::-1]])
        for shape, color in ((outline, green), (half, green * 0.86)):
            points = [(x + a, y + b) for a, b in shape]
            self.draw.polygon(self._spots(points, z), fill=tuple(int(c) for c in color))

    def _lamp(self, x):
        """A standing lamp that is on."""
        z = -1.4
        self._ground_shadow(x, z, 0.20)
        turn = np.linspace(0, 2 * np.pi, 48)
        halo = np.stack([x + 0.62 * np.cos(turn), 1.55 + 0.60 * np.sin(turn)], -1)
        self._blurred(self._spots(halo, z), (255, 226, 160), 70, 0.16)
        self._box(x - 0.013, 0.02, x + 0.013, 1.45, (64, 62, 66), z)
        base = self._spots([(x - 0.15, 0.045), (x + 0.15, -0.035)], z)
        self.draw.ellipse((*base[0], *base[1]), fill=(64, 62, 66))
        shade = [(-0.24, 1.36), (0.24, 1.36), (0.155, 1.76), (-0.155, 1.76)]
        self.draw.polygon(self._spots([(x + a, b) for a, b in shade], z), fill=(250, 222, 162))
        glow = [(-0.12, 1.36), (0.10, 1.36), (0.06, 1.76), (-0.08, 1.76)]
        self.draw.polygon(self._spots([(x + a, b) for a, b in glow], z), fill=(255, 236, 190))

    def _ground_shadow(self, x, z, radius):
        turn = np.linspace(0, 2 * np.pi, 40)
        points = np.stack(
            [
                x + 0.10 + 1.3 * radius * np.cos(turn),
                np.zeros_like(turn),
                z - 0.05 + 0.6 * radius * np.sin(turn),
            ],
            -1,
        )
        spots = [tuple(p) for p in self.view.project(points)[0][:, :2] * self.zoom]
        self._blurred(spots, (60, 48, 40), 120, 0.05)
