"""BlazePose (Bazarevsky et al. 2020): the landmarks of one person, followed from frame to frame.

A detector finds people in the whole picture. Of the person that is followed, a second network finds 33
landmarks in a square region, and two more points from which the region in the next frame follows, so the
detector runs again only where the person was lost. Numbers of both networks are those of MediaPipe's graphs
pose_detection and pose_landmark.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from runtime.cli import UserError

from .models import DETECTOR, LANDMARKS

NAME = "BlazePose full"
DETECTOR_SIDE, LANDMARK_SIDE = 224, 256  # of the networks' inputs, pixels
ANCHORS = ((8, 2), (16, 2), (32, 6))  # strides of the detector, and anchors at each place
LEAST_SCORE = 0.5  # of a detection, and of a person in a region
SAME_PERSON = 0.3  # overlap of two boxes (intersection over union) from which they show one person
REGION = 1.25  # side of a region, in diameters of the circle around a body
FARTHEST = 1.5  # that a person may have moved while they were not seen, in sides of their region
COUNT = 33


class Region(NamedTuple):
    """A square around a person: its middle and side in pixels, and how the body is turned, in radians."""

    middle: np.ndarray
    side: float
    angle: float


class Pose(NamedTuple):
    """Landmarks `(33, 3)`: column, row (pixels), visibility in [0, 1]; and the region in the next frame."""

    landmarks: np.ndarray
    region: Region


def region_of(center: np.ndarray, edge: np.ndarray) -> Region:
    """The region of a body, from the middle of its hips and the point of the circle around it at its head."""
    across, down = edge - center
    return Region(center, 2 * REGION * math.hypot(across, down), math.pi / 2 - math.atan2(-down, across))


class BlazePose:
    """Finds and follows one person.

    Args:
        folder: with the two networks.
        person: which one, if there are several: 1 is the largest when they are first seen.

    Raises:
        UserError: the library that runs the networks is missing.
    """

    def __init__(self, folder: Path, person: int = 1):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise UserError("ai-edge-litert is missing: pip install -r requirements-video.txt") from None
        self._detector = _Network(Interpreter, folder / DETECTOR)
        self._landmarks = _Network(Interpreter, folder / LANDMARKS)
        self._person = person
        self._region: Region | None = None
        self._last: Region | None = None  # where the person was last seen

    def __call__(self, picture: np.ndarray) -> Pose | None:
        """The person in the next picture, uint8 `(H, W, 3)`; None if nobody is there."""
        for region in (self._region, None):
            region = region or self._choose(self._detect(picture))
            if region is None:
                break
            if (pose := self._find(picture, region)) is not None:
                self._region = self._last = pose.region
                return pose
        self._region = None
        return None

    @property
    def state(self) -> list:
        """Where the person is and was, as plain values; who gets it follows the same person."""
        regions = self._region, self._last
        return [None if region is None else [*map(float, region.middle), region.side, region.angle]
                for region in regions]  # fmt: skip

    @state.setter
    def state(self, values: list) -> None:
        self._region, self._last = (
            None if region is None else Region(np.array(region[:2]), *region[2:]) for region in values
        )

    def _choose(self, regions: list[Region]) -> Region | None:
        """The region of the person that is followed."""
        if not regions:
            return None
        if self._last is None:
            regions = sorted(regions, key=lambda region: -region.side)
            return regions[self._person - 1] if self._person <= len(regions) else None
        nearest = min(regions, key=self._distance)
        return nearest if self._distance(nearest) < FARTHEST * self._last.side else None

    def _distance(self, region: Region) -> float:
        return float(np.linalg.norm(region.middle - self._last.middle))

    def _detect(self, picture: np.ndarray) -> list[Region]:
        """The regions of all people, one for each."""
        height, width = picture.shape[:2]
        side = max(height, width)
        left, top = (side - width) // 2, (side - height) // 2
        square = Image.new("RGB", (side, side))
        square.paste(Image.fromarray(picture), (left, top))
        small = square.resize((DETECTOR_SIDE, DETECTOR_SIDE), Image.Resampling.BILINEAR)
        outputs = self._detector(np.asarray(small, np.float32)[None] / 127.5 - 1)
        boxes = next(output for output in outputs if output.shape[-1] == 12).reshape(-1, 12)
        scores = _sigmoid(next(output for output in outputs if output.shape[-1] == 1).reshape(-1))
        boxes = boxes / DETECTOR_SIDE
        kept: list[int] = []
        for index in np.argsort(-scores):
            if scores[index] < LEAST_SCORE:
                break
            if all(_overlap(_box(boxes, index), _box(boxes, other)) < SAME_PERSON for other in kept):
                kept.append(index)
        regions = []
        for index in kept:
            points = (boxes[index, 4:8].reshape(2, 2) + _PLACES[index]) * side - (left, top)
            regions.append(region_of(*points))
        return regions

    def _find(self, picture: np.ndarray, region: Region) -> Pose | None:
        """The landmarks in a region; None if no person is there."""
        scale = region.side / LANDMARK_SIDE
        cosine, sine = math.cos(region.angle) * scale, math.sin(region.angle) * scale
        turn, half = np.array([[cosine, -sine], [sine, cosine]]), LANDMARK_SIDE / 2
        corner = region.middle - turn @ (half, half)
        matrix = (cosine, -sine, corner[0], sine, cosine, corner[1])
        size = (LANDMARK_SIDE, LANDMARK_SIDE)
        crop = Image.fromarray(picture).transform(
            size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        )
        outputs = self._landmarks(np.asarray(crop, np.float32)[None] / 255)
        score = next(output for output in outputs if output.size == 1).item()
        if not score >= LEAST_SCORE:
            return None
        values = next(output for output in outputs if output.size == 39 * 5).reshape(39, 5)
        places = values[:, :2] @ turn.T + corner
        landmarks = np.column_stack([places[:COUNT], _sigmoid(values[:COUNT, 3])])
        return Pose(landmarks, region_of(places[COUNT], places[COUNT + 1]))


@contextlib.contextmanager
def _without_messages() -> Iterator[None]:
    """Hide what the library prints from compiled code about the processor."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


class _Network:
    def __init__(self, interpreter, path: Path):
        with _without_messages():
            self._interpreter = interpreter(model_path=str(path))
            self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]

    def __call__(self, values: np.ndarray) -> list[np.ndarray]:
        self._interpreter.set_tensor(self._input, values)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def _anchors() -> np.ndarray:
    """Middle of each anchor, as fractions of the picture."""
    places = []
    for stride, count in ANCHORS:
        steps = (np.arange(DETECTOR_SIDE // stride) + 0.5) * stride / DETECTOR_SIDE
        rows, columns = np.meshgrid(steps, steps, indexing="ij")
        places.append(np.stack([columns, rows], axis=-1).reshape(-1, 2).repeat(count, axis=0))
    return np.concatenate(places)


_PLACES = _anchors()


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(values, -60, 60)))


def _box(boxes: np.ndarray, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Upper left and lower right corner."""
    middle, size = boxes[index, :2] + _PLACES[index], boxes[index, 2:4]
    return middle - size / 2, middle + size / 2


def _overlap(box: tuple, other: tuple) -> float:
    """Intersection over union."""
    inside = np.prod(np.maximum(np.minimum(box[1], other[1]) - np.maximum(box[0], other[0]), 0))
    areas = [np.prod(high - low) for low, high in (box, other)]
    return float(inside / max(sum(areas) - inside, 1e-9))
