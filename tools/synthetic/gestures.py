"""What the arms do: a gesture says where the upper arm and the forearm point over time.

Directions are unit vectors (out, up, forward) relative to the chest. `out` points away from the middle of
the body, so the same numbers serve both arms.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .curves import smooth, window
from .geometry import unit

FADE = 0.45  # time to raise or lower an arm, s

# The upper arm and the forearm of an arm at rest.
HANGING = ((0.16, -1.0, -0.02), (0.04, -1.0, 0.16))


@dataclass
class Gesture:
    """One arm (0 left, 1 right) in motion from `start` to `end` (seconds).

    shape: takes (T,) seconds since `start`, returns the (T, 3) directions of upper arm and forearm;
    fade: seconds to raise the arm and to lower it.
    """

    arm: int
    start: float
    end: float
    shape: Callable
    fade: float = FADE


def still(upper, fore):
    """The shape of an arm that does not move."""
    return lambda time: (_directions(time, *upper), _directions(time, *fore))


def waving(tempo, height=0.15):
    """The raised forearm swings from side to side, `tempo` times a second."""

    def shape(time):
        swing = 0.12 + 0.55 * np.sin(2 * np.pi * tempo * time)
        upper = _directions(time, 0.85, height, 0.25)
        return upper, _directions(time, np.sin(swing), np.cos(swing), 0.15)

    return shape


def clapping(tempo):
    """The hands meet in front of the chest, `tempo` times a second."""

    def shape(time):
        apart = 0.5 - 0.5 * np.cos(2 * np.pi * tempo * time)
        upper = _directions(time, 0.25 + 0.35 * apart, -0.75, 0.55)
        return upper, _directions(time, -0.62 + 0.75 * apart, 0.35, 0.80)

    return shape


def pumping(tempo, phase):
    """The bent arm moves up and down, `tempo` times a second; `phase` is in turns."""

    def shape(time):
        beat = np.sin(2 * np.pi * (tempo * time + phase))
        upper = _directions(time, 0.55, -0.55 + 0.35 * beat, 0.30)
        return upper, _directions(time, 0.05, 0.55 + 0.5 * beat, 0.80)

    return shape


def sweeping(tempo):
    """The stretched arm draws slow arcs beside the body, `tempo` times a second."""

    def shape(time):
        angle = 0.1 + 0.75 * np.sin(2 * np.pi * tempo * time)
        upper = _directions(time, np.cos(angle), np.sin(angle), 0.30)
        bent = angle + 0.25 * np.cos(2 * np.pi * tempo * time)
        return upper, _directions(time, np.cos(bent), np.sin(bent), 0.35)

    return shape


ON_HIP = still((0.68, -0.68, -0.30), (-0.72, -0.52, 0.46))
THINKING = still((0.05, -0.85, 0.50), (-0.42, 0.85, 0.30))
POINTING = still((0.80, 0.12, 0.58), (0.80, 0.16, 0.58))
OPEN_WIDE = still((0.95, 0.12, 0.28), (0.90, 0.30, 0.32))
UP = still((0.62, 0.74, 0.10), (0.30, 0.92, 0.15))
FORWARD = still((0.20, -0.55, 0.80), (-0.10, 0.05, 1.0))
BACKWARD = still((0.24, -0.80, -0.55), (0.12, -0.95, -0.25))
FLYING = still((0.95, 0.15, 0.25), (0.80, 0.40, 0.28))


def arm_directions(t, swing, gestures):
    """The unit vectors (out, up, forward) of the upper arms (T, 2, 3) and of the forearms (T, 2, 3).

    t: (T,) seconds; swing: (T, 2), forward swing of the hanging arms in radians; gestures: list of
    `Gesture`; later ones cover earlier ones.
    """
    uppers, fores = np.empty((len(t), 2, 3)), np.empty((len(t), 2, 3))
    for arm in (0, 1):
        # A swinging arm bends more on its way forwards.
        upper = _swung(HANGING[0], swing[:, arm])
        fore = _swung(HANGING[1], 1.25 * swing[:, arm] + 0.12)
        for gesture in gestures:
            if gesture.arm == arm:
                weight = window(t, gesture.start, gesture.end, gesture.fade)[:, None]
                goal_upper, goal_fore = gesture.shape(t - gesture.start)
                upper = _blend(upper, goal_upper, weight, detour=(0.9, 0.0, 0.3))
                fore = _blend(fore, goal_fore, weight, detour=(0.3, 0.0, 1.2))
        uppers[:, arm], fores[:, arm] = unit(smooth(upper, 1.5)), unit(smooth(fore, 1.5))
    return uppers, fores


def _blend(old, new, weight, detour):
    """From direction `old` to `new`, by way of `detour` so that the arm moves around the body."""
    mixed = (1 - weight) * old + weight * unit(new)
    return unit(mixed + 2 * weight * (1 - weight) * np.array(detour))


def _directions(time, *parts):
    """(T, 3) from three numbers or (T,) arrays, for (T,) times."""
    return np.stack([np.broadcast_to(part, time.shape) for part in parts], axis=-1).astype(float)


def _swung(direction, angle):
    """(T, 3) `direction` turned forwards by `angle` (T,) about the axis through both shoulders."""
    out, up, forward = unit(np.array(direction))
    turned_up = up * np.cos(angle) + forward * np.sin(angle)
    turned_forward = forward * np.cos(angle) - up * np.sin(angle)
    return _directions(angle, out, turned_up, turned_forward)
