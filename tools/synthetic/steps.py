"""Foot placement: the supporting foot stands still while the other swings to its next position."""

from dataclasses import dataclass

import numpy as np

from .curves import hill, ramp, smooth

HALF_STANCE = 0.085  # sideways distance from the middle of the pelvis to a foot, m
TOE_OUT = 0.12  # outward angle of the toes, rad
BALL_AHEAD = 0.07  # distance from the hip forward to the ball of a resting foot, m
HEEL_BEHIND = 0.20  # heel to ball of the foot, m


@dataclass
class Walk:
    """`count` alternate steps between `start` and `end` (seconds); foot `first` (0 left, 1 right) begins."""

    start: float
    end: float
    count: int
    first: int


@dataclass
class Hop:
    """Both feet in the air from `start` to `end` (seconds), up to `height` metres."""

    start: float
    end: float
    height: float


@dataclass
class Feet:
    """The feet over time, index 0 left and 1 right.

    ball: (T, 2, 3) balls of the feet, m; yaw, pitch: (T, 2) rad, a positive pitch lifts the heel;
    flight: (T,) height that a hop adds to both, m.
    """

    ball: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    flight: np.ndarray


class _Ground:
    """The path of the pelvis over the floor, and where a foot rests under it."""

    def __init__(self, t, position, yaw):
        self.t, self.position, self.yaw = t, position, yaw

    def rest(self, time, foot):
        """(x, z, yaw) of a foot that rests under the pelvis at `time`."""
        x = np.interp(time, self.t, self.position[:, 0])
        z = np.interp(time, self.t, self.position[:, 1])
        yaw = np.interp(time, self.t, self.yaw)
        side = 1.0 if foot == 0 else -1.0
        x += side * HALF_STANCE * np.cos(yaw) + BALL_AHEAD * np.sin(yaw)
        z += -side * HALF_STANCE * np.sin(yaw) + BALL_AHEAD * np.cos(yaw)
        return np.array([x, z, yaw + side * TOE_OUT])


def plan_feet(t, position, yaw, moves):
    """`Feet` that follow the pelvis without sliding.

    t: (T,) seconds; position: (T, 2), x and z of the pelvis in metres; yaw: (T,) of the pelvis, radians;
    moves: list of `Walk` and `Hop` in order of time, without overlap.
    """
    ground = _Ground(t, position, yaw)
    paths = np.stack([_foot_path(ground, foot, moves) for foot in (0, 1)], axis=1)
    pitch = smooth(paths[:, :, 4], 1.0)
    ball = paths[:, :, [0, 3, 1]]
    # With the toes up the foot stands on its heel, so the ball leaves the floor.
    ball[:, :, 1] += HEEL_BEHIND * np.sin(np.maximum(-pitch, 0.0))
    flight = np.zeros(len(t))
    for move in moves:
        if isinstance(move, Hop):
            u = np.clip((t - move.start) / (move.end - move.start), 0.0, 1.0)
            flight += move.height * (4 * u * (1 - u)) ** 1.3
    return Feet(ball, paths[:, :, 2], pitch, flight)


def _foot_path(ground, foot, moves):
    """(T, 5): x, z, yaw, height and pitch of one foot over time."""
    t = ground.t
    here = ground.rest(t[0], foot)
    path = np.tile(np.append(here, [0.0, 0.0]), (len(t), 1))
    for move in moves:
        for start, end, there in _swings(ground, foot, move):
            length = np.hypot(*(there - here)[:2])
            path[:, :3] += ramp(t, start, end)[:, None] * (there - here)
            here = there
            if isinstance(move, Hop):
                path[:, 4] += 0.75 * hill(t, start - 0.18, end + 0.12)
                continue
            path[:, 3] += (0.05 + 0.04 * min(length, 1.0)) * hill(t, start, end)
            duration, roll = end - start, min(length, 1.0)
            path[:, 4] += 0.62 * roll * hill(t, start - 0.75 * duration, start + 0.65 * duration)
            path[:, 4] -= 0.30 * roll * hill(t, end - 0.55 * duration, end + 0.35 * duration)
    return path


def _swings(ground, foot, move):
    """(start, end, landing position) of every swing of `foot` in `move`."""
    if isinstance(move, Hop):
        yield move.start, move.end, ground.rest(move.end, foot)
        return
    beat = (move.end - move.start) / move.count
    for k in range(move.count):
        if (move.first + k) % 2 != foot:
            continue
        start = move.start + k * beat
        # A foot lands where it will stand under the body in the middle of its own support.
        middle = move.end if k >= move.count - 2 else start + 1.5 * beat
        yield start, start + 0.88 * beat, ground.rest(min(middle, move.end), foot)
