"""The camera: from metres in the studio to pixels in the image."""

import numpy as np

DISTANCE = 6.0  # from the camera to the middle of the floor, m
EYE_HEIGHT = 1.35  # of the camera, m
FLOOR_MARGIN = 0.20  # visible below the feet of a person in the middle of the floor, m
VISIBLE_HEIGHT, VISIBLE_WIDTH = 2.32, 2.40  # at least, m; the person is 1.75 m tall
WALL = -1.7  # z of the back wall, m
ARM_SPACE = 1.02  # that the person needs on either side, m


class View:
    """The camera for images of `width` x `height` pixels."""

    def __init__(self, width, height):
        self.width, self.height = width, height
        self.scale = min(height / VISIBLE_HEIGHT, width / VISIBLE_WIDTH)  # pixels per metre at z = 0
        self.floor = height - FLOOR_MARGIN * self.scale  # row of the floor at z = 0
        self.half_width = width / self.scale / 2  # m
        self.half_range = max(0.05, self.half_width - ARM_SPACE)  # of the person's position, m
        self.wall_foot = self.pixels(np.array([0.0, 0.0, WALL]))[1]  # row where wall and floor meet

    def project(self, points):
        """(..., 3) metres -> (..., 3): column, row and closeness in pixels, and (...) pixels per metre."""
        near = DISTANCE / (DISTANCE - points[..., 2])
        column = self.width / 2 + points[..., 0] * near * self.scale
        height = EYE_HEIGHT + (points[..., 1] - EYE_HEIGHT) * near
        row = self.floor - height * self.scale
        point = np.stack([column, row, points[..., 2] * self.scale], -1)
        return point, near * self.scale

    def pixels(self, points):
        """(..., 3) metres -> (..., 2): column and row in pixels."""
        return self.project(points)[0][..., :2]

    def floor_points(self, rows, columns):
        """x and z, in metres, of the floor under these pixels. The rows must be below the horizon."""
        drop = (rows - self.floor) / self.scale + EYE_HEIGHT
        near = drop / EYE_HEIGHT
        return (columns - self.width / 2) / self.scale / near, DISTANCE * (1 - 1 / near)
