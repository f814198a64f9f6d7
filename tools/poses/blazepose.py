"""BlazePose (Bazarevsky et al. 2020): the landmarks of the people in an image.

A detector finds the regions of people. A second network finds 33 landmarks of one person in a square region,
and two points that give the region in the next frame of a video. Constants are those of MediaPipe's graphs
pose_detection and pose_landmark.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from tools.optional import require

from .models import DETECTOR, LANDMARKS

NAME = "BlazePose full"
DETECTOR_SIDE, LANDMARK_SIDE = 224, 256  # of the networks' inputs, pixels
ANCHORS = ((8, 2), (16, 2), (32, 6))  # strides of the detector, and anchors per position
MIN_SCORE = 0.5  # of a detection, and of a person in a region
NMS_THRESHOLD = 0.3  # intersection over union, above which two boxes count as one person
REGION_SCALE = 1.25  # side of a region, in diameters of the circle around a body
NUM_LANDMARKS = 33
# In a mirrored image, left is right.
MIRRORED = [0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9, *(index + 1 - 2 * (index % 2 == 0) for index in range(11, 33))]
MAX_DISAGREEMENT = 0.07  # of a landmark in the mirrored image, in sides of the region


class Region(NamedTuple):
    """A square around a person: center and side in pixels, rotation in radians."""

    center: np.ndarray
    side: float
    angle: float


class Square(NamedTuple):
    """A square of an image, upright, in pixels."""

    left: int
    top: int
    side: int


class Pose(NamedTuple):
    """Landmarks `(33, 3)`: x, y (pixels), visibility in [0, 1]; and the region in the next frame."""

    landmarks: np.ndarray
    region: Region


def region_of(center: np.ndarray, edge: np.ndarray) -> Region:
    """The region of a body, from the center of its hips and the head's point on the circle around it."""
    x, y = edge - center
    return Region(center, 2 * REGION_SCALE * math.hypot(x, y), math.pi / 2 - math.atan2(-y, x))


class BlazePose:
    """The two networks.

    Args:
        folder: with the networks' files.

    Raises:
        UserError: the library that runs the networks is missing.
    """

    def __init__(self, folder: Path):
        interpreter = require("ai_edge_litert.interpreter", "requirements-video.txt").Interpreter
        self._detector = _Network(interpreter, folder / DETECTOR)
        self._landmarks = _Network(interpreter, folder / LANDMARKS)

    def find_people(self, image: Image.Image) -> Iterator[Pose]:
        """All people in an image; a person may be found several times."""
        for square in _squares(*image.size):
            for region in self._detect(image, square):
                if (pose := self.find_landmarks(image, region)) is not None:
                    yield pose

    def refine(self, image: Image.Image, pose: Pose) -> Pose:
        """Average a pose with that of the mirrored image, where both agree."""
        (x, y), side, angle = pose.region
        region = Region(np.array([image.width - x, y]), side, -angle)
        mirrored = self.find_landmarks(ImageOps.mirror(image), region)
        if mirrored is None:
            return pose
        other = mirrored.landmarks[MIRRORED] * (-1, 1, 1) + (image.width, 0, 0)
        distances = np.linalg.norm((other - pose.landmarks)[:, :2], axis=1)
        agrees = distances < MAX_DISAGREEMENT * pose.region.side
        landmarks = np.where(agrees[:, None], (pose.landmarks + other) / 2, pose.landmarks)
        return Pose(landmarks, pose.region)

    def _detect(self, image: Image.Image, square: Square) -> list[Region]:
        """The regions of all people in a square, which may extend beyond the image."""
        left, top, side = square
        box = max(0, left), max(0, top), min(image.width, left + side), min(image.height, top + side)
        scale = DETECTOR_SIDE / side
        size = [max(1, round((high - low) * scale)) for low, high in zip(box[:2], box[2:], strict=True)]
        part = image.resize(size, Image.Resampling.BILINEAR, box)
        padded = Image.new("RGB", (DETECTOR_SIDE, DETECTOR_SIDE))
        padded.paste(part, (round((box[0] - left) * scale), round((box[1] - top) * scale)))
        outputs = self._detector(np.asarray(padded, np.float32)[None] / 127.5 - 1)
        boxes = next(output for output in outputs if output.shape[-1] == 12).reshape(-1, 12)
        scores = _sigmoid(next(output for output in outputs if output.shape[-1] == 1).reshape(-1))
        boxes = boxes / DETECTOR_SIDE
        selected: list[int] = []  # by non-maximum suppression
        for index in np.argsort(-scores):
            if scores[index] < MIN_SCORE:
                break
            if all(_iou(_box(boxes, index), _box(boxes, other)) < NMS_THRESHOLD for other in selected):
                selected.append(index)
        regions = []
        for index in selected:
            points = (boxes[index, 4:8].reshape(2, 2) + _ANCHOR_CENTERS[index]) * side + (left, top)
            regions.append(region_of(*points))
        return regions

    def find_landmarks(self, image: Image.Image, region: Region) -> Pose | None:
        """The landmarks in a region; None if no person is there."""
        scale = region.side / LANDMARK_SIDE
        cosine, sine = math.cos(region.angle) * scale, math.sin(region.angle) * scale
        rotation, half = np.array([[cosine, -sine], [sine, cosine]]), LANDMARK_SIDE / 2
        corner = region.center - rotation @ (half, half)
        matrix = (cosine, -sine, corner[0], sine, cosine, corner[1])
        size = (LANDMARK_SIDE, LANDMARK_SIDE)
        crop = image.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        outputs = self._landmarks(np.asarray(crop, np.float32)[None] / 255)
        score = next(output for output in outputs if output.size == 1).item()
        if not score >= MIN_SCORE:
            return None
        values = next(output for output in outputs if output.size == 39 * 5).reshape(39, 5)
        points, visibility = values[:, :2] @ rotation.T + corner, _sigmoid(values[:NUM_LANDMARKS, 3])
        landmarks = np.column_stack([points[:NUM_LANDMARKS], visibility])
        return Pose(landmarks, region_of(points[NUM_LANDMARKS], points[NUM_LANDMARKS + 1]))


def _squares(width: int, height: int) -> list[Square]:
    """The squares to search: one around the image, and overlapping ones inside, for small people."""
    long, short = max(width, height), min(width, height)
    squares = [Square((width - long) // 2, (height - long) // 2, long)]
    if long > short:
        count = 1 + math.ceil((long - short) / (short / 2))
        for offset in np.linspace(0, long - short, count).astype(int).tolist():
            squares.append(Square(offset, 0, short) if width > height else Square(0, offset, short))
    return squares


class _Network:
    def __init__(self, interpreter, path: Path):
        self._interpreter = interpreter(model_path=str(path))
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]

    def __call__(self, values: np.ndarray) -> list[np.ndarray]:
        self._interpreter.set_tensor(self._input, values)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def _anchors() -> np.ndarray:
    """Center of each anchor, as fractions of the image."""
    centers = []
    for stride, count in ANCHORS:
        steps = (np.arange(DETECTOR_SIDE // stride) + 0.5) * stride / DETECTOR_SIDE
        rows, columns = np.meshgrid(steps, steps, indexing="ij")
        centers.append(np.stack([columns, rows], axis=-1).reshape(-1, 2).repeat(count, axis=0))
    return np.concatenate(centers)


_ANCHOR_CENTERS = _anchors()


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -60, 60)))


def _box(boxes: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Upper left and lower right corner."""
    center, size = boxes[index, :2] + _ANCHOR_CENTERS[index], boxes[index, 2:4]
    return center - size / 2, center + size / 2


def _iou(box: tuple, other: tuple) -> float:
    """Intersection over union."""
    inside = np.prod(np.maximum(np.minimum(box[1], other[1]) - np.maximum(box[0], other[0]), 0))
    areas = [np.prod(high - low) for low, high in (box, other)]
    return float(inside / max(sum(areas) - inside, 1e-9))
