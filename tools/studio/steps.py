"""Where the feet go: planted on the floor while they carry, swung to the next place while they do not."""

from dataclasses import dataclass

import numpy as np

from .curves import hill, ramp, smooth

HALF_STANCE = 0.085  # sideways distance from the middle of the pelvis to a foot, m
TOE_OUT = 0.12  # how far the toes point outwards, rad
BALL_AHEAD = 0.07  # the ball of a resting foot lies this far in front of the hip, m
HEEL_BEHIND = 0.20  # heel to ball of the foot, m


@dataclass
class Walk:
    """Alternate steps from `start` to `end` (seconds), `count` of them, `first` foot (0 left) first."""

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
    """The feet over time, index 0 left and 1 right: `ball` (T, 2, 3) m, `yaw` and `pitch` (T, 2) rad
    (a positive pitch lifts the heel), `flight` (T,) m: how far a hop has lifted both."""

    ball: np.ndarray
    yaw: np.ndarray
    pitch: np.ndarray
    flight: np.ndarray


class _Ground:
    """The path of the pelvis over the floor, and the place of a resting foot under it."""

    def __init__(self, t, place, yaw):
        self.t, self.place, self.yaw = t, place, yaw

    def rest(self, time, foot):
        """(x, z, yaw) of a foot that rests under the pelvis at `time`."""
        x = np.interp(time, self.t, self.place[:, 0])
        z = np.interp(time, self.t, self.place[:, 1])
        yaw = np.interp(time, self.t, self.yaw)
        side = 1.0 if foot == 0 else -1.0
        x += side * HALF_STANCE * np.cos(yaw) + BALL_AHEAD * np.sin(yaw)
        z += -side * HALF_STANCE * np.sin(yaw) + BALL_AHEAD * np.cos(yaw)
        return np.array([x, z, yaw + side * TOE_OUT])


def plan_feet(t, place, yaw, moves):
    """Feet that follow the pelvis without sliding.

    t: (T,) seconds; place: (T, 2), the pelvis' x and z in metres; yaw: (T,) radians; moves: `Walk` and
    `Hop` in order of time, without overlap. Returns `Feet`.
    """
    ground = _Ground(t, place, yaw)
    feet = Feet(np.zeros((len(t), 2, 3)), np.zeros((len(t), 2)), np.zeros((len(t), 2)), np.zeros(len(t)))
    for foot in (0, 1):
        path = _follow(ground, foot, moves)
        feet.ball[:, foot] = path[:, [0, 3, 1]]
        feet.yaw[:, foot] = path[:, 2]
        feet.pitch[:, foot] = smooth(path[:, 4], 1.0)
    for move in moves:
        if isinstance(move, Hop):
            u = np.clip((t - move.start) / (move.end - move.start), 0.0, 1.0)
            feet.flight += move.height * (4 * u * (1 - u)) ** 1.3
    # With the toes up the foot stands on its heel, so the ball leaves the floor.
    feet.ball[:, :, 1] += HEEL_BEHIND * np.sin(np.maximum(-feet.pitch, 0.0))
    return feet


def _follow(ground, foot, moves):
    """(T, 5): x, z, yaw, height and pitch of one foot over time."""
    t = ground.t
    here = ground.rest(t[0], foot)
    path = np.tile(np.append(here, [0.0, 0.0]), (len(t), 1))
    for move in moves:
        for start, end, there in _swings(ground, foot, move):
            way = np.hypot(*(there - here)[:2])
            path[:, :3] += ramp(t, start, end)[:, None] * (there - here)
            here = there
            pause = end - start
            if isinstance(move, Hop):
                path[:, 4] += 0.75 * hill(t, start - 0.18, end + 0.12)
                continue
            path[:, 3] += (0.05 + 0.04 * min(way, 1.0)) * hill(t, start, end)
            roll = min(way / 1.0, 1.0)
            path[:, 4] += 0.62 * roll * hill(t, start - 0.75 * pause, start + 0.65 * pause)
            path[:, 4] -= 0.30 * roll * hill(t, end - 0.55 * pause, end + 0.35 * pause)
    return path


def _swings(ground, foot, move):
    """(start, end, landing place) of every swing that `foot` makes in `move`."""
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
