"""BlazePose (Bazarevsky et al. 2020): the landmarks of one person, tracked from frame to frame.

A detector finds people in the whole image. A second network finds 33 landmarks of the tracked person in a
square region, and two points that give the region in the next frame, so the detector runs again only when
the person is lost. Constants are those of MediaPipe's graphs pose_detection and pose_landmark.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tools.optional import require

from .models import DETECTOR, LANDMARKS

NAME = "BlazePose full"
DETECTOR_SIDE, LANDMARK_SIDE = 224, 256  # of the networks' inputs, pixels
ANCHORS = ((8, 2), (16, 2), (32, 6))  # strides of the detector, and anchors per position
MIN_SCORE = 0.5  # of a detection, and of a person in a region
NMS_THRESHOLD = 0.3  # intersection over union, from which two boxes are of one person
REGION_SCALE = 1.25  # side of a region, in diameters of the circle around a body
MAX_MOVE = 1.5  # of a person while they were lost, in sides of their region
NUM_LANDMARKS = 33


class Region(NamedTuple):
    """A square around a person: center and side in pixels, rotation in radians."""

    center: np.ndarray
    side: float
    angle: float


class Pose(NamedTuple):
    """Landmarks `(33, 3)`: x, y (pixels), visibility in [0, 1]; and the region in the next frame."""

    landmarks: np.ndarray
    region: Region


def region_of(center: np.ndarray, edge: np.ndarray) -> Region:
    """The region of a body, from the center of its hips and the head's point on the circle around it."""
    x, y = edge - center
    return Region(center, 2 * REGION_SCALE * math.hypot(x, y), math.pi / 2 - math.atan2(-y, x))


class BlazePose:
    """Detects and tracks one person.

    Args:
        folder: with the two networks.
        person: which one, if there are several: 1 is the largest when they are first seen.

    Raises:
        UserError: the library that runs the networks is missing.
    """

    def __init__(self, folder: Path, person: int = 1):
        interpreter = require("ai_edge_litert.interpreter", "requirements-video.txt").Interpreter
        self._detector = _Network(interpreter, folder / DETECTOR)
        self._landmarks = _Network(interpreter, folder / LANDMARKS)
        self._person = person
        self._region: Region | None = None
        self._last: Region | None = None  # where the person was last seen

    def __call__(self, image: np.ndarray) -> Pose | None:
        """The person in the next image, uint8 `(H, W, 3)`; None if nobody is there."""
        for region in (self._region, None):
            region = region or self._choose(self._detect(image))
            if region is None:
                break
            if (pose := self._find_landmarks(image, region)) is not None:
                self._region = self._last = pose.region
                return pose
        self._region = None
        return None

    @property
    def state(self) -> list:
        """Where the person is and was last seen, as plain values, to continue tracking later."""
        regions = self._region, self._last
        return [None if region is None else [*map(float, region.center), region.side, region.angle]
                for region in regions]  # fmt: skip

    @state.setter
    def state(self, values: list) -> None:
        self._region, self._last = (
            None if region is None else Region(np.array(region[:2]), *region[2:]) for region in values
        )

    def _choose(self, regions: list[Region]) -> Region | None:
        """The region of the tracked person."""
        if not regions:
            return None
        if self._last is None:
            regions = sorted(regions, key=lambda region: -region.side)
            return regions[self._person - 1] if self._person <= len(regions) else None
        nearest = min(regions, key=self._distance)
        return nearest if self._distance(nearest) < MAX_MOVE * self._last.side else None

    def _distance(self, region: Region) -> float:
        return float(np.linalg.norm(region.center - self._last.center))

    def _detect(self, image: np.ndarray) -> list[Region]:
        """The regions of all people."""
        height, width = image.shape[:2]
        side = max(height, width)
        left, top = (side - width) // 2, (side - height) // 2
        square = Image.new("RGB", (side, side))
        square.paste(Image.fromarray(image), (left, top))
        small = square.resize((DETECTOR_SIDE, DETECTOR_SIDE), Image.Resampling.BILINEAR)
        outputs = self._detector(np.asarray(small, np.float32)[None] / 127.5 - 1)
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
            points = (boxes[index, 4:8].reshape(2, 2) + _ANCHOR_CENTERS[index]) * side - (left, top)
            regions.append(region_of(*points))
        return regions

    def _find_landmarks(self, image: np.ndarray, region: Region) -> Pose | None:
        """The landmarks in a region; None if no person is there."""
        scale = region.side / LANDMARK_SIDE
        cosine, sine = math.cos(region.angle) * scale, math.sin(region.angle) * scale
        rotation, half = np.array([[cosine, -sine], [sine, cosine]]), LANDMARK_SIDE / 2
        corner = region.center - rotation @ (half, half)
        matrix = (cosine, -sine, corner[0], sine, cosine, corner[1])
        size = (LANDMARK_SIDE, LANDMARK_SIDE)
        crop = Image.fromarray(image).transform(
            size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        )
        outputs = self._landmarks(np.asarray(crop, np.float32)[None] / 255)
        score = next(output for output in outputs if output.size == 1).item()
        if not score >= MIN_SCORE:
            return None
        values = next(output for output in outputs if output.size == 39 * 5).reshape(39, 5)
        points, visibility = values[:, :2] @ rotation.T + corner, _sigmoid(values[:NUM_LANDMARKS, 3])
        landmarks = np.column_stack([points[:NUM_LANDMARKS], visibility])
        return Pose(landmarks, region_of(points[NUM_LANDMARKS], points[NUM_LANDMARKS + 1]))


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
