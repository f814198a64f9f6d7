"""What the arms do: each gesture says where upper arm and forearm point, as the time goes on.

Directions are unit vectors (out, up, forward) in the frame of the chest, `out` being away from the
body's middle, so that the same numbers serve both arms.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .curves import smooth, window

FADE = 0.45  # seconds to raise or lower an arm

HANGING = ((0.16, -1.0, -0.02), (0.04, -1.0, 0.16))


@dataclass
class Gesture:
    """`shape(time)` gives the two directions for (T,) seconds since `start`; `arm` 0 left, 1 right."""

    arm: int
    start: float
    end: float
    shape: Callable
    fade: float = FADE


def still(upper, fore):
    """The shape of an arm that is held."""
    return lambda time: (_over(time, *upper), _over(time, *fore))


def waving(tempo, height=0.15):
    """The forearm swings like a pendulum upside down, `tempo` times a second."""

    def shape(time):
        swing = 0.12 + 0.55 * np.sin(2 * np.pi * tempo * time)
        upper = _over(time, 0.85, height, 0.25)
        return upper, _over(time, np.sin(swing), np.cos(swing), 0.15)

    return shape


def clapping(tempo):
    """The hands meet in front of the chest, `tempo` times a second."""

    def shape(time):
        apart = 0.5 - 0.5 * np.cos(2 * np.pi * tempo * time)
        upper = _over(time, 0.25 + 0.35 * apart, -0.75, 0.55)
        return upper, _over(time, -0.62 + 0.75 * apart, 0.35, 0.80)

    return shape


def pumping(tempo, lag):
    """Bent arms that dance up and down; `lag` is a phase in turns."""

    def shape(time):
        beat = np.sin(2 * np.pi * (tempo * time + lag))
        upper = _over(time, 0.55, -0.55 + 0.35 * beat, 0.30)
        return upper, _over(time, 0.05, 0.55 + 0.5 * beat, 0.80)

    return shape


def sweeping(tempo):
    """A long arm that draws slow arcs in the air beside the body."""

    def shape(time):
        angle = 0.1 + 0.75 * np.sin(2 * np.pi * tempo * time)
        upper = _over(time, np.cos(angle), np.sin(angle), 0.30)
        bent = angle + 0.25 * np.cos(2 * np.pi * tempo * time)
        return upper, _over(time, np.cos(bent), np.sin(bent), 0.35)

    return shape


ON_HIP = still((0.68, -0.68, -0.30), (-0.72, -0.52, 0.46))
THINKING = still((0.05, -0.85, 0.50), (-0.42, 0.85, 0.30))
POINTING = still((0.80, 0.12, 0.58), (0.80, 0.16, 0.58))
OPEN_WIDE = still((0.95, 0.12, 0.28), (0.90, 0.30, 0.32))
UP = still((0.62, 0.74, 0.10), (0.30, 0.92, 0.15))
FORWARD = still((0.20, -0.55, 0.80), (-0.10, 0.05, 1.0))
BACKWARD = still((0.24, -0.80, -0.55), (0.12, -0.95, -0.25))
FLYING = still((0.95, 0.15, 0.25), (0.80, 0.40, 0.28))


def arm_directions(t, flex, gestures):
    """Where the arms point.

    t: (T,) seconds; flex: (T, 2), the forward swing of the hanging arms in radians; gestures: a list of
    `Gesture`, the later over the earlier. Returns the unit vectors (out, up, forward) of the upper arms
    (T, 2, 3) and of the forearms (T, 2, 3).
    """
    uppers, fores = np.empty((len(t), 2, 3)), np.empty((len(t), 2, 3))
    for arm in (0, 1):
        # A swinging arm bends more on its way forwards.
        upper = _swung(HANGING[0], flex[:, arm])
        fore = _swung(HANGING[1], 1.25 * flex[:, arm] + 0.12)
        for gesture in gestures:
            if gesture.arm == arm:
                weight = window(t, gesture.start, gesture.end, gesture.fade)[:, None]
                goal_upper, goal_fore = gesture.shape(t - gesture.start)
                upper = _blend(upper, goal_upper, weight, detour=(0.9, 0.0, 0.3))
                fore = _blend(fore, goal_fore, weight, detour=(0.3, 0.0, 1.2))
        uppers[:, arm], fores[:, arm] = _unit(smooth(upper, 1.5)), _unit(smooth(fore, 1.5))
    return uppers, fores


def _blend(old, new, weight, detour):
    """From one direction to another by way of `detour`: an arm is raised around the body, not through."""
    mixed = (1 - weight) * old + weight * _unit(new)
    return _unit(mixed + 2 * weight * (1 - weight) * np.array(detour))


def _over(time, *parts):
    """(T, 3) from three numbers or (T,) arrays."""
    return np.stack([np.broadcast_to(part, time.shape) for part in parts], axis=-1).astype(float)


def _unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _swung(direction, angle):
    """`direction` turned forwards about the axis through both shoulders by `angle` (T,)."""
    out, up, forward = _unit(np.array(direction))
    turned_up = up * np.cos(angle) + forward * np.sin(angle)
    turned_forward = forward * np.cos(angle) - up * np.sin(angle)
    return _over(angle, out, turned_up, turned_forward)
