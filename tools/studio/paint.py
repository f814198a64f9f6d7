"""Brushes for solid, softly lit bodies: a canvas with depth, tapered limbs, ellipsoids, a trunk.

Every brush works out, for the pixels around it, a signed distance to the outline (pixels, negative
inside), the closeness of the surface (pixels, towards the camera) and its normal; coverage is the
distance clipped to one pixel, which antialiases the outline.
"""

import numpy as np

LIGHT = np.float32([-0.52, -0.62, 0.59])  # towards the lamp: left, up (rows grow downwards), to us
SHADE = np.float32([0.58, 0.56, 0.68])[:, None, None]  # what is left of a colour away from the light
LIT = np.float32([1.10, 1.07, 1.02])[:, None, None]
OCCLUSION = 0.05  # m: how far a limb darkens what is behind it
FAR = np.float32(-1e6)


def clipped(values):
    """Values cut to 0..1; on small arrays much faster than `numpy.clip`."""
    return np.minimum(np.maximum(values, np.float32(0.0)), np.float32(1.0))


class Canvas:
    """The picture of one person: colour times opacity (3, H, W), opacity and closeness (H, W)."""

    def __init__(self, width, height, pixels_per_metre):
        self.color = np.zeros((3, height, width), np.float32)
        self.alpha = np.zeros((height, width), np.float32)
        self.depth = np.full((height, width), FAR)
        self.unit = pixels_per_metre

    def grid(self, left, top, right, bottom):
        """The box of pixels that covers these bounds and a margin: slices, columns, rows; or None."""
        margin = OCCLUSION * self.unit + 2
        height, width = self.alpha.shape
        x0, x1 = max(0, int(left - margin)), min(width, int(right + margin) + 1)
        y0, y1 = max(0, int(top - margin)), min(height, int(bottom + margin) + 1)
        if x0 >= x1 or y0 >= y1:
            return None
        columns = np.arange(x0, x1, dtype=np.float32) + np.float32(0.5)
        rows = np.arange(y0, y1, dtype=np.float32)[:, None] + np.float32(0.5)
        return (slice(y0, y1), slice(x0, x1)), columns, rows

    def lay(self, box, distance, depth, color):
        """Put a surface on the canvas: in front of what is farther away, behind what is nearer.

        distance, depth: (h, w); color: (3, h, w) in [0, 1].
        """
        old = self.depth[box]
        coverage = clipped(0.5 - distance)
        in_front = depth - old
        self._darken_behind(box, distance, in_front)
        # Surfaces that cut into each other change over within a few millimetres instead of at once.
        visible = coverage * clipped(in_front / (0.02 * self.unit) + 0.5)
        below = self.color[(slice(None), *box)]
        below += visible * (color - below)
        self.alpha[box] += visible * (1.0 - self.alpha[box])
        self.depth[box] = np.where(coverage > 0.5, np.maximum(old, depth), old)

    def _darken_behind(self, box, distance, in_front):
        reach = OCCLUSION * self.unit
        near = clipped(1.0 - distance / reach) * (distance > -0.5)
        gap = clipped(in_front / reach)
        self.color[(slice(None), *box)] *= 1.0 - np.float32(0.30) * near * near * gap


def lit(color, nx, ny, nz):
    """`color` ((3, 1, 1) or (3, h, w)) on a surface with the given unit normals (h, w), rows downwards."""
    toward = LIGHT[0] * nx + LIGHT[1] * ny + LIGHT[2] * nz
    amount = clipped(np.float32(0.42) + np.float32(0.62) * toward)
    return color * (SHADE + (LIT - SHADE) * amount)


def bands(position, base, marks, sharpness):
    """Colour along a surface: `base`, then for each mark (from, to, colour) that colour between.

    position: (h, w); sharpness: how many pixels one unit of position takes, for smooth edges.
    """
    color = plain(base)
    for start, stop, mark in marks:
        inside = np.minimum(position - start, stop - position) * sharpness
        color = over(color, inside, mark)
    return color


def plain(color):
    """(3, 1, 1) float32 from three numbers in [0, 1]."""
    return np.float32(color)[:, None, None]


def over(color, distance, mark):
    """`mark` laid over `color` (3, h, w) where `distance` (h, w) in pixels is positive, antialiased."""
    return color + clipped(distance + np.float32(0.5)) * (plain(mark) - color)


def limb(canvas, start, end, radii, color, marks=()):
    """A tapered round limb. start, end: column, row, closeness; radii: at both ends, pixels; marks: see
    `bands`, with positions from 0 at the start to 1 at the end."""
    (ax, ay, az), (bx, by, bz), (ra, rb) = start, end, radii
    most = max(ra, rb)
    where = canvas.grid(min(ax, bx) - most, min(ay, by) - most, max(ax, bx) + most, max(ay, by) + most)
    if where is None:
        return
    box, columns, rows = where
    dx, dy = bx - ax, by - ay
    length2 = dx * dx + dy * dy + 1e-3
    x, y = columns - np.float32(ax), rows - np.float32(ay)
    along = clipped((x * np.float32(dx / length2)) + y * np.float32(dy / length2))
    x, y = x - along * np.float32(dx), y - along * np.float32(dy)
    radius = along * np.float32(rb - ra) + np.float32(ra)
    away = np.sqrt(x * x + y * y)
    inverse = 1.0 / np.maximum(np.maximum(radius, away), 1e-3)
    nx, ny = x * inverse, y * inverse
    nz = np.sqrt(np.maximum(1.0 - nx * nx - ny * ny, 0.0))
    color = bands(along, color, marks, np.float32(np.sqrt(length2)))
    depth = np.float32(az) + along * np.float32(bz - az) + radius * nz
    canvas.lay(box, away - radius, depth, lit(color, nx, ny, nz))


def ellipsoid(canvas, center, axes, paint):
    """An ellipsoid. center: column, row, closeness; axes: (3, 3), its half axes as columns in (column,
    row, closeness); paint(u, v, w) gives the colours (3, h, w) of points of the unit
    sphere that the ellipsoid is a stretched picture of, and a distance (h, w), positive where the
    ellipsoid has a hole."""
    shape = axes @ axes.T
    half_x, half_y = np.sqrt(shape[0, 0]), np.sqrt(shape[1, 1])
    cx, cy, cz = center
    where = canvas.grid(cx - half_x, cy - half_y, cx + half_x, cy + half_y)
    if where is None:
        return
    box, columns, rows = where
    x, y = columns - np.float32(cx), rows - np.float32(cy)
    q = np.linalg.inv(shape).astype(np.float32)
    # The outline is the ellipse in which rays only touch the surface.
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
    color, hole = paint(*sphere)
    canvas.lay(
        box,
        np.maximum(distance, hole),
        np.float32(cz) + z,
        lit(color, nx * norm, ny * norm, nz * norm),
    )


def trunk(canvas, start, end, profile, yaws, paint):
    """A body around an axis with an elliptical cross-section that changes along it and may twist.

    start, end: column, row, closeness; profile: rows of (position from 0 to 1, half width, half depth
    in pixels); yaws: of both ends, rad; paint(along, around) gives colours (3, h, w) for the position
    along the axis and the angle around it, 0 in front of the body, rad.
    """
    (ax, ay, az), (bx, by, bz) = start, end
    places, wide, deep = np.array(profile, np.float32).T
    twist = yaws[0] + places * (yaws[1] - yaws[0])
    half = np.sqrt((wide * np.cos(twist)) ** 2 + (deep * np.sin(twist)) ** 2)
    most = half.max()
    where = canvas.grid(min(ax, bx) - most, min(ay, by) - most, max(ax, bx) + most, max(ay, by) + most)
    if where is None:
        return
    box, columns, rows = where
    length = np.hypot(bx - ax, by - ay) + 1e-3
    ux, uy = np.float32((bx - ax) / length), np.float32((by - ay) / length)
    x, y = columns - np.float32(ax), rows - np.float32(ay)
    along = (x * ux + y * uy) / np.float32(length)
    across = ux * y - uy * x
    radius = np.interp(along, places, half).astype(np.float32)
    thickness = np.interp(along, places, wide * deep / half).astype(np.float32)
    slope = np.interp(along, places, np.gradient(half, places) / length).astype(np.float32)
    steep = 1.0 / np.sqrt(1.0 + slope * slope)
    sides = (np.abs(across) - radius) * steep
    ends = np.maximum(-along, along - 1.0) * np.float32(length)
    nu = np.clip(across / np.maximum(radius, 1e-3), -1.0, 1.0)
    nz = np.sqrt(1.0 - nu * nu)
    depth = np.float32(az) + along * np.float32(bz - az) + thickness * nz
    # Across the axis is (-uy, ux) in the picture; a narrowing body faces a little along its axis.
    nx, ny = (-uy * nu - ux * slope) * steep, (ux * nu - uy * slope) * steep
    yaw = yaws[0] + clipped(along) * np.float32(yaws[1] - yaws[0])
    color = paint(along, np.arctan2(nu, nz) - yaw)
    canvas.lay(box, np.maximum(sides, ends), depth, lit(color, nx, ny, nz))
