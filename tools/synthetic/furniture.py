"""The furniture: a window's light, a print, a rug, a plant and a lamp."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .view import WALL

SKIRTING = (238, 236, 228)
RUG, RUG_EDGE = (203, 178, 150), (226, 205, 178)
GREENS = (66, 116, 88), (84, 138, 98), (52, 98, 80)


def furnish(image, view, zoom):
    """Draw the furniture on a Pillow image of the empty studio, `zoom` times larger than `view`."""
    _Furnisher(image, view, zoom).furnish()


class _Furnisher:
    """Draws one piece after another. Coordinates are in metres, colours are 0 to 255."""

    def __init__(self, image, view, zoom):
        self.image, self.view, self.zoom = image, view, zoom
        self.draw = ImageDraw.Draw(image)

    def furnish(self):
        """Draw everything, from the back to the front."""
        half = self.view.half_width * 1.28  # half of the visible width of the wall
        self._window_light(-0.10 * half)
        self._box(-half - 1, 0.0, half + 1, 0.11, SKIRTING)
        self._box(-half - 1, 0.10, half + 1, 0.115, (205, 204, 196))
        self._print(0.40 * half)
        self._rug()
        self._plant(-0.84 * half)
        self._lamp(0.86 * half)

    def _spots(self, points, z=WALL):
        """Pixels of (x, y) points in the plane at z."""
        return self._pixels([(x, y, z) for x, y in points])

    def _floor_ellipse(self, x, z, half_width, half_depth, corners):
        """Pixels of the corners of a polygon close to an ellipse on the floor around (x, z)."""
        angles = np.linspace(0, 2 * np.pi, corners)
        across, along = half_width * np.cos(angles), half_depth * np.sin(angles)
        return self._pixels(np.stack([x + across, np.zeros_like(angles), z + along], -1))

    def _pixels(self, points):
        points = self.view.pixels(np.array(points, float)) * self.zoom
        return [tuple(point) for point in points]

    def _shape(self, points, color, z=WALL, origin=(0.0, 0.0)):
        """A filled polygon of (x, y) points, relative to `origin`, in the plane at z."""
        points = [(origin[0] + x, origin[1] + y) for x, y in points]
        self.draw.polygon(self._spots(points, z), fill=color)

    def _box(self, x0, y0, x1, y1, color, z=WALL):
        self._shape([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color, z)

    def _blurred(self, polygon, color, opacity, radius):
        """A polygon of pixels, with an edge blurred by `radius` metres; opacity: 0 to 255."""
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(polygon, fill=opacity)
        mask = mask.filter(ImageFilter.GaussianBlur(radius * self.view.scale * self.zoom))
        self.image.paste(color, mask=mask)

    def _window_light(self, x):
        """Sunlight on the wall, through a window with four panes."""
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
            self._shape(hill, color)

    def _rug(self):
        """A round rug."""
        half_width = min(1.75, 0.8 * self.view.half_width)
        for radius, color in ((1.0, RUG_EDGE), (0.95, RUG), (0.80, RUG_EDGE), (0.775, RUG)):
            circle = self._floor_ellipse(0.0, -0.05, radius * half_width, radius * 0.72, 96)
            self.draw.polygon(circle, fill=color)

    def _plant(self, x):
        """A rubber plant in a pot."""
        z = -1.35
        self._ground_shadow(x, z, 0.26)
        rng = np.random.default_rng(7)
        for k in range(15):
            angle = np.pi * (0.10 + 0.80 * ((k * 0.618) % 1.0))
            length = 0.30 + 0.42 * rng.random() + 0.16 * np.sin(angle)
            self._leaf(x, 0.40 + 0.02 * k, z, angle, length, GREENS[k % 3])
        pot = [(-0.17, 0.40), (0.17, 0.40), (0.125, 0.0), (-0.125, 0.0)]
        self._shape(pot, (214, 190, 160), z, origin=(x, 0.0))
        shade = [(0.04, 0.40), (0.17, 0.40), (0.125, 0.0), (0.03, 0.0)]
        self._shape(shade, (190, 164, 136), z, origin=(x, 0.0))
        self._box(x - 0.185, 0.37, x + 0.185, 0.43, (224, 202, 174), z)

    def _leaf(self, x, y, z, angle, length, color):
        """A bent leaf on a stalk, with one half darker; angle: of the stalk, 0 to the right."""
        s = np.linspace(0, 1, 14)
        bend = angle + 0.55 * (s - 0.3) * np.sign(np.pi / 2 - angle) * -1.0
        along = np.stack([np.cos(bend), np.sin(bend)], -1) * (length * s)[:, None]
        across = np.stack([-np.sin(bend), np.cos(bend)], -1)
        width = (0.085 * np.sin(np.pi * np.clip((s - 0.25) / 0.75, 0, 1)) ** 0.8 + 0.006)[:, None]
        outline = np.concatenate([along + across * width, (along - across * width)[::-1]])
        half = np.concatenate([along + across * width, along[::-1]])
        self._shape(outline, color, z, origin=(x, y))
        self._shape(half, tuple(int(0.86 * part) for part in color), z, origin=(x, y))

    def _lamp(self, x):
        """A standing lamp, switched on."""
        z = -1.4
        self._ground_shadow(x, z, 0.20)
        turn = np.linspace(0, 2 * np.pi, 48)
        halo = np.stack([x + 0.62 * np.cos(turn), 1.55 + 0.60 * np.sin(turn)], -1)
        self._blurred(self._spots(halo, z), (255, 226, 160), 70, 0.16)
        self._box(x - 0.013, 0.02, x + 0.013, 1.45, (64, 62, 66), z)
        base = self._spots([(x - 0.15, 0.045), (x + 0.15, -0.035)], z)
        self.draw.ellipse((*base[0], *base[1]), fill=(64, 62, 66))
        shade = [(-0.24, 1.36), (0.24, 1.36), (0.155, 1.76), (-0.155, 1.76)]
        self._shape(shade, (250, 222, 162), z, origin=(x, 0.0))
        glow = [(-0.12, 1.36), (0.10, 1.36), (0.06, 1.76), (-0.08, 1.76)]
        self._shape(glow, (255, 236, 190), z, origin=(x, 0.0))

    def _ground_shadow(self, x, z, radius):
        """The soft shadow on the floor of something round at (x, z)."""
        shadow = self._floor_ellipse(x + 0.10, z - 0.05, 1.3 * radius, 0.6 * radius, 40)
        self._blurred(shadow, (60, 48, 40), 120, 0.05)
