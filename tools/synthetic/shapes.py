"""Solid, softly lit shapes: limbs, ellipsoids and a trunk, on a canvas with a depth buffer.

For the pixels around it, a shape computes the signed distance to the outline (pixels, negative inside),
the closeness of the surface (pixels, larger nearer to the camera) and its normal. The outline is antialiased:
coverage falls from 1 to 0 over one pixel. Points are (column, row, closeness) in pixels.
"""

import numpy as np

LIGHT = np.float32([-0.52, -0.62, 0.59])  # direction to the lamp: columns, rows, closeness
# Factors of a surface's colour: away from the light, and towards it.
SHADE = np.float32([0.58, 0.56, 0.68])[:, None, None]
LIT = np.float32([1.10, 1.07, 1.02])[:, None, None]
OCCLUSION = 0.05  # distance at which a limb darkens what is behind it, m
FAR = np.float32(-1e6)


def clamp01(values):
    """Values limited to 0..1; on small arrays much faster than `numpy.clip`."""
    return np.minimum(np.maximum(values, np.float32(0.0)), np.float32(1.0))


def rgb(color):
    """(3, 1, 1) float32 from three numbers."""
    return np.float32(color)[:, None, None]


def over(color, distance, mark):
    """The colour `mark` over `color` (3, h, w) where `distance` (h, w) in pixels is positive, antialiased."""
    return color + clamp01(distance + np.float32(0.5)) * (rgb(mark) - color)


def pixels_around(shape, start, end, reach_x, reach_y):
    """The pixels of an image of `shape` (H, W) around the segment from `start` to `end`.

    Returns the slices of rows and columns, the columns (w,) and the rows (h, 1) of the pixels' centres. All
    pixels within `reach_x` columns and `reach_y` rows of the segment are among them.
    """
    height, width = shape
    x0, x1 = _span(start[0], end[0], reach_x, width)
    y0, y1 = _span(start[1], end[1], reach_y, height)
    columns = np.arange(x0, x1, dtype=np.float32) + np.float32(0.5)
    rows = np.arange(y0, y1, dtype=np.float32)[:, None] + np.float32(0.5)
    return (slice(y0, y1), slice(x0, x1)), columns, rows


def _span(a, b, reach, size):
    """Start and stop of the pixels within `reach` of the interval between a and b, inside 0..size."""
    start = max(0, int(min(a, b) - reach - 2))
    return start, max(start, min(size, int(max(a, b) + reach + 3)))


def segment_distance(x, y, dx, dy):
    """Distance of the points (x, y) from the segment from (0, 0) to (dx, dy); all float32."""
    along = clamp01((x * dx + y * dy) / max(dx * dx + dy * dy, np.float32(1e-6)))
    return np.hypot(x - along * dx, y - along * dy)


class Canvas:
    """The image of one person: colour times opacity (3, H, W), opacity and closeness (H, W)."""

    def __init__(self, width, height, pixels_per_metre):
        self.color = np.zeros((3, height, width), np.float32)
        self.alpha = np.zeros((height, width), np.float32)
        self.depth = np.full((height, width), FAR)
        self.scale = pixels_per_metre

    def around(self, start, end, reach_x, reach_y):
        """`pixels_around`, with room for the darkening of what is behind."""
        margin = OCCLUSION * self.scale
        return pixels_around(self.alpha.shape, start, end, reach_x + margin, reach_y + margin)

    def add(self, box, distance, depth, color):
        """Add a surface: in front of what is farther away, behind what is nearer.

        box: slices of rows and columns; distance, depth: (h, w); color: (3, h, w) in [0, 1].
        """
        old = self.depth[box]
        coverage = clamp01(0.5 - distance)
        in_front = depth - old
        self._darken_behind(box, distance, in_front)
        # Where surfaces intersect, one replaces the other within a few millimetres instead of at once.
        visible = coverage * clamp01(in_front / (0.02 * self.scale) + 0.5)
        below = self.color[(slice(None), *box)]
        below += visible * (color - below)
        self.alpha[box] += visible * (1.0 - self.alpha[box])
        self.depth[box] = np.where(coverage > 0.5, np.maximum(old, depth), old)

    def _darken_behind(self, box, distance, in_front):
        reach = OCCLUSION * self.scale
        near = clamp01(1.0 - distance / reach) * (distance > -0.5)
        gap = clamp01(in_front / reach)
        self.color[(slice(None), *box)] *= 1.0 - np.float32(0.30) * near * near * gap


def shade(color, nx, ny, nz):
    """`color` ((3, 1, 1) or (3, h, w)) on a surface whose unit normals are (nx, ny, nz), each (h, w)."""
    toward = LIGHT[0] * nx + LIGHT[1] * ny + LIGHT[2] * nz
    amount = clamp01(np.float32(0.42) + np.float32(0.62) * toward)
    return color * (SHADE + (LIT - SHADE) * amount)


def limb(canvas, start, end, radii, color, marks=()):
    """A round limb that tapers from `start` to `end`.

    radii: at both ends, pixels; marks: (from, to, colour) of bands of another colour, with positions from
    0 at the start to 1 at the end.
    """
    (ax, ay, az), (bx, by, bz), (ra, rb) = start, end, radii
    reach = max(ra, rb)
    box, columns, rows = canvas.around(start, end, reach, reach)
    dx, dy = bx - ax, by - ay
    squared_length = dx * dx + dy * dy + 1e-3
    x, y = columns - np.float32(ax), rows - np.float32(ay)
    along = clamp01((x * np.float32(dx / squared_length)) + y * np.float32(dy / squared_length))
    x, y = x - along * np.float32(dx), y - along * np.float32(dy)
    radius = along * np.float32(rb - ra) + np.float32(ra)
    away = np.sqrt(x * x + y * y)
    inverse = 1.0 / np.maximum(np.maximum(radius, away), 1e-3)
    nx, ny = x * inverse, y * inverse
    nz = np.sqrt(np.maximum(1.0 - nx * nx - ny * ny, 0.0))
    color, length = rgb(color), np.float32(np.sqrt(squared_length))
    for low, high, mark in marks:
        color = over(color, np.minimum(along - low, high - along) * length, mark)
    depth = np.float32(az) + along * np.float32(bz - az) + radius * nz
    canvas.add(box, away - radius, depth, shade(color, nx, ny, nz))


def ellipsoid(canvas, center, axes, texture):
    """An ellipsoid: a unit sphere, stretched.

    axes: (3, 3), the half axes as columns, in pixels; texture(u, v, w): takes points of the unit sphere, each
    coordinate (h, w), and returns their colours (3, h, w) and a distance (h, w) in pixels, positive where
    the ellipsoid has a hole.
    """
    shape = axes @ axes.T
    cx, cy, cz = center
    box, columns, rows = canvas.around(center, center, np.sqrt(shape[0, 0]), np.sqrt(shape[1, 1]))
    x, y = columns - np.float32(cx), rows - np.float32(cy)
    q = np.linalg.inv(shape).astype(np.float32)
    # The outline is the ellipse of the lines of sight that only touch the surface.
    outline = q[:2, :2] - np.outer(q[:2, 2], q[:2, 2]) / q[2, 2]
    gx, gy = outline[0, 0] * x + outline[0, 1] * y, outline[1, 0] * x + outline[1, 1] * y
    level = np.sqrt(np.maximum(gx * x + gy * y, 1e-6))
    distance = (level - 1.0) * level / np.maximum(np.sqrt(gx * gx + gy * gy), 1e-6)
    shrink = 1.0 / np.maximum(level, 1.0)
    x, y = x * shrink, y * shrink
    middle = -(q[0, 2] * x + q[1, 2] * y) / q[2, 2]
    z = middle + np.sqrt(np.maximum(1.0 - (level * shrink) ** 2, 0.0) / q[2, 2])
    nx, ny, nz = (q[i, 0] * x + q[i, 1] * y + q[i, 2] * z for i in range(3))
    norm = 1.0 / np.sqrt(nx * nx + ny * ny + nz * nz)
    inverse = np.linalg.inv(axes).astype(np.float32)
    sphere = (inverse[i, 0] * x + inverse[i, 1] * y + inverse[i, 2] * z for i in range(3))
    color, hole = texture(*sphere)
    surface = shade(color, nx * norm, ny * norm, nz * norm)
    canvas.add(box, np.maximum(distance, hole), np.float32(cz) + z, surface)


def trunk(canvas, start, end, profile, yaws, texture):
    """A body around an axis, with an elliptical cross-section that changes along it and may twist.

    profile: (K, 3), position from 0 at the start to 1 at the end, half width and half depth in pixels;
    yaws: of both ends, rad; texture(along, around): returns colours (3, h, w) for positions along the axis
    and angles around it (rad, 0 in front of the body), each (h, w).
    """
    (ax, ay, az), (bx, by, bz) = start, end
    positions, wide, deep = np.array(profile, np.float32).T
    twist = yaws[0] + positions * (yaws[1] - yaws[0])
    half = np.sqrt((wide * np.cos(twist)) ** 2 + (deep * np.sin(twist)) ** 2)
    box, columns, rows = canvas.around(start, end, half.max(), half.max())
    length = np.hypot(bx - ax, by - ay) + 1e-3
    ux, uy = np.float32((bx - ax) / length), np.float32((by - ay) / length)
    x, y = columns - np.float32(ax), rows - np.float32(ay)
    along = (x * ux + y * uy) / np.float32(length)
    across = ux * y - uy * x
    radius = np.interp(along, positions, half).astype(np.float32)
    thickness = np.interp(along, positions, wide * deep / half).astype(np.float32)
    slope = np.interp(along, positions, np.gradient(half, positions) / length).astype(np.float32)
    steep = 1.0 / np.sqrt(1.0 + slope * slope)
    sides = (np.abs(across) - radius) * steep
    ends = np.maximum(-along, along - 1.0) * np.float32(length)
    nu = np.clip(across / np.maximum(radius, 1e-3), -1.0, 1.0)
    nz = np.sqrt(1.0 - nu * nu)
    depth = np.float32(az) + along * np.float32(bz - az) + thickness * nz
    # (-uy, ux) points across the axis; where the body narrows, its surface turns a little along the axis.
    nx, ny = (-uy * nu - ux * slope) * steep, (ux * nu - uy * slope) * steep
    yaw = yaws[0] + clamp01(along) * np.float32(yaws[1] - yaws[0])
    color = texture(along, np.arctan2(nu, nz) - yaw)
    canvas.add(box, np.maximum(sides, ends), depth, shade(color, nx, ny, nz))
