"""The joints of one person in the frames of a video, estimated with BlazePose."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from runtime.progress import Progress
from tools.pose_file import DECIMALS

from . import video
from .blazepose import BlazePose, Pose, Region
from .joints import BLAZEPOSE, no_person, to_joints
from .tracking import SAME_PERSON, Tracker, body_size, distance

SEARCH_SECONDS = 0.4  # between two searches for other people


class JointEstimator:
    """Estimates the joints of one person, frame by frame.

    Args:
        networks: of the pose.
        person: which one, if there are several: 1 is the largest when they are first seen.
    """

    def __init__(self, networks: BlazePose, person: int = 1):
        self._networks = networks
        self._person = person
        self.reset()

    def reset(self) -> None:
        """Forget everyone: the next frame is of another shot."""
        self._tracker = Tracker(self._person)
        self._region: Region | None = None  # of the person in the next frame
        self._next_search = 0.0

    def __call__(self, image: np.ndarray, time: float) -> np.ndarray:
        """The joints `(J, 3)` in the next image, uint8 `(H, W, 3)`; NaN if the person is not found.

        Args:
            time: of the image, in seconds.
        """
        image = Image.fromarray(image)
        poses: list[Pose] = []
        if self._region is not None and (pose := self._networks.find_landmarks(image, self._region)):
            poses.append(pose)
        chosen = None
        if poses and time < self._next_search:
            chosen = self._choose(poses, time)
        if chosen is None:
            self._next_search = time + SEARCH_SECONDS
            poses += self._networks.find_people(image)
            chosen = self._choose(poses, time)
        self._region = None if chosen is None else chosen.region
        return no_person() if chosen is None else _joints(self._networks.refine(image, chosen))

    def _choose(self, poses: list[Pose], time: float) -> Pose | None:
        people: dict[int, np.ndarray] = {}
        for index, joints in enumerate(map(_joints, poses)):
            threshold = SAME_PERSON * body_size(joints)
            if all(distance(joints, other) > threshold for other in people.values()):
                people[index] = joints
        chosen = self._tracker.update(list(people.values()), time)
        return None if chosen is None else poses[list(people)[chosen]]

    @property
    def state(self) -> list:
        """The tracking state as JSON-serializable values, to resume later."""
        region = self._region and [*map(float, self._region.center), self._region.side, self._region.angle]
        return [region, self._next_search, self._tracker.state]

    @state.setter
    def state(self, values: list) -> None:
        region, self._next_search, self._tracker.state = values
        self._region = region and Region(np.array(region[:2]), *region[2:])


def _joints(pose: Pose) -> np.ndarray:
    return to_joints(pose.landmarks, BLAZEPOSE)


def estimate_joints(
    estimator: JointEstimator, timeline: video.Timeline, indices: np.ndarray, known: Iterator[list]
) -> Iterator[tuple[np.ndarray, list | None]]:
    """The joints `(J, 3)` in some frames of a video, and the state of the estimator after each new one.

    Args:
        estimator: forgets everyone where a new shot begins.
        indices: of `timeline.times`, rising.
        known: joints and state of the first frames, as plain values, from an interrupted call.
    """
    shot = None
    images = video.frames(timeline, indices)
    bar = Progress(images, (f"poses of {timeline.path.name}",), total=len(indices), unit="frame")
    for index, image in zip(indices, bar, strict=True):
        if timeline.shots[index] != shot:
            shot = timeline.shots[index]
            estimator.reset()
        if entry := next(known, None):
            estimator.state = entry[1]
            yield np.array(entry[0], float), None
        else:
            joints = estimator(image, float(timeline.times[index]))
            yield joints.round(DECIMALS), estimator.state
