"""Track one person among all people in a video, by joint positions."""

from dataclasses import dataclass

import numpy as np

MIN_VISIBILITY = 0.2  # low, because estimates of joints that the body hides are good
# Maximum joint movement in body heights: a constant for noisy estimates, plus an amount per second.
MAX_JUMP, MAX_SPEED = 0.4, 2.0
MAX_GROWTH = 2.0  # of a person's size in the image
MAX_ABSENCE = 2.0  # seconds after which another person, not seen beside the followed one, is forgotten
MIN_COMMON_JOINTS = 3
SAME_PERSON = 0.25  # distance of two poses of one person in one frame, in body heights


@dataclass
class Track:
    """Where a person was last seen: joints `(J, 3)` as x, y, visibility; size in pixels; time in seconds."""

    joints: np.ndarray
    size: float
    time: float

    def update(self, joints: np.ndarray, time: float) -> None:
        """The person is seen again."""
        # A body that bends or is partly hidden is as large as before.
        self.joints, self.size, self.time = joints, max(body_size(joints), 0.98 * self.size), time

    def cost(self, joints: np.ndarray, time: float) -> float:
        """How far a person is from this one, in body heights; infinite if a body cannot have moved there."""
        shared = is_visible(self.joints) & is_visible(joints)
        if shared.sum() >= MIN_COMMON_JOINTS:
            growth = body_size(joints[shared]) / max(body_size(self.joints[shared]), 1e-6)
            if not 1 / MAX_GROWTH < growth < MAX_GROWTH:
                return np.inf
        moved = distance(self.joints, joints) / max(self.size, 1e-6)
        return moved if moved < MAX_JUMP + MAX_SPEED * (time - self.time) else np.inf


class Tracker:
    """Follows one person.

    Other visible people are tracked too, to avoid identity switches.

    Args:
        person: which one: 1 is the largest when they are first seen.
    """

    def __init__(self, person: int = 1):
        self._person = person
        self._target: Track | None = None
        self._others: list[Track] = []

    def update(self, people: list[np.ndarray], time: float) -> int | None:
        """Index of the tracked person in `people`, the next frame; None if not found.

        Args:
            people: joints `(J, 3)` of each.
            time: seconds.
        """
        if self._target is None:
            return self._start(people, time)
        matches = self._match(people, time)
        if 0 in matches:
            self._others = [other for other in self._others if time - other.time <= MAX_ABSENCE]
            new = [joints for index, joints in enumerate(people) if index not in matches.values()]
            self._others += [Track(joints, body_size(joints), time) for joints in new]
        return matches.get(0)

    def _start(self, people: list[np.ndarray], time: float) -> int | None:
        if len(people) < self._person:
            return None
        order = sorted(range(len(people)), key=lambda index: -body_size(people[index]))
        tracks = {index: Track(people[index], body_size(people[index]), time) for index in order}
        followed = order[self._person - 1]
        self._target = tracks.pop(followed)
        self._others = list(tracks.values())
        return followed

    def _match(self, people: list[np.ndarray], time: float) -> dict[int, int]:
        """Greedy matching, nearest first: track (0 is the target) -> index in `people`."""
        tracks = [self._target, *self._others]
        costs = np.array([[track.cost(joints, time) for joints in people] for track in tracks])
        matches = {}
        while costs.size and costs.min() < np.inf:
            track, person = map(int, np.unravel_index(costs.argmin(), costs.shape))
            matches[track] = person
            tracks[track].update(people[person], time)
            costs[track], costs[:, person] = np.inf, np.inf
        return matches

    @property
    def state(self) -> list:
        """The tracking state as JSON-serializable values, to resume later."""
        tracks = [] if self._target is None else [self._target, *self._others]
        return [[track.joints.tolist(), track.size, track.time] for track in tracks]

    @state.setter
    def state(self, values: list) -> None:
        tracks = [Track(np.array(joints), size, time) for joints, size, time in values]
        self._target, self._others = (tracks[0], tracks[1:]) if tracks else (None, [])


def is_visible(joints: np.ndarray) -> np.ndarray:
    """Which joints `(J, 3)` are seen: `(J,)`."""
    return joints[:, 2] >= MIN_VISIBILITY


def body_size(joints: np.ndarray) -> float:
    """The diagonal of the box around the joints `(J, 3)` that are seen, in pixels; about their height."""
    seen = joints[is_visible(joints), :2]
    return float(np.linalg.norm(np.ptp(seen, axis=0))) if len(seen) else 0.0


def distance(joints: np.ndarray, other: np.ndarray) -> float:
    """The median distance of joints `(J, 3)` that are seen in two poses, in pixels."""
    shared = is_visible(joints) & is_visible(other)
    if shared.sum() >= MIN_COMMON_JOINTS:
        return float(np.median(np.linalg.norm(joints[shared, :2] - other[shared, :2], axis=1)))
    centers = [pose[is_visible(pose), :2] for pose in (joints, other)]
    return (
        float(np.linalg.norm(centers[0].mean(axis=0) - centers[1].mean(axis=0)))
        if all(map(len, centers))
        else np.inf
    )
