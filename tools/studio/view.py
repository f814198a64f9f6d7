"""The camera: from metres in the studio to pixels in the picture."""

import numpy as np

DISTANCE = 6.0  # from the camera to the middle of the floor, m
EYE = 1.35  # height of the camera, m
BELOW = 0.20  # what the picture shows under the feet of a person in the middle, m
TALL, WIDE = 2.32, 2.40  # what the picture shows at least, m; the person is 1.75 m tall
WALL = -1.7  # z of the back wall, m
ARMS_LENGTH = 1.02  # what the person needs on either side, m


class View:
    """A camera for pictures of `width` x `height` pixels."""

    def __init__(self, width, height):
        self.width, self.height = width, height
        self.scale = min(height / TALL, width / WIDE)  # pixels a metre at z = 0
        self.floor = height - BELOW * self.scale  # row of the floor at z = 0
        self.half_width = width / self.scale / 2
        self.half_range = max(0.05, self.half_width - ARMS_LENGTH)

    def project(self, points):
        """(..., 3) metres -> (..., 3): column, row and closeness in pixels, and (...) pixels a metre."""
        near = DISTANCE / (DISTANCE - points[..., 2])
        column = self.width / 2 + points[..., 0] * near * self.scale
        height = EYE + (points[..., 1] - EYE) * near
        row = self.floor - height * self.scale
        place = np.stack([column, row, points[..., 2] * self.scale], -1)
        return place, near * self.scale

    def floor_points(self, rows, columns):
        """Where the rays through pixels meet the floor: x and z in metres. Rows below the horizon."""
        drop = (rows - self.floor) / self.scale + EYE
        near = drop / EYE
        return (columns - self.width / 2) / self.scale / near, DISTANCE * (1 - 1 / near)
