"""Smooth functions of time, the parts of all motion. The slope of each is continuous.

t: (T,) seconds; times such as `start` and `end` are seconds too.
"""

import numpy as np


def ramp(t, start, end):
    """An S-shaped rise from 0 at `start` to 1 at `end`."""
    u = np.clip((t - start) / (end - start), 0.0, 1.0)
    return u * u * u * (u * (6.0 * u - 15.0) + 10.0)


def window(t, start, end, fade):
    """1 between `start` and `end` and 0 outside, with a rise and a fall of `fade` seconds inside."""
    fade = min(fade, (end - start) / 2)
    return ramp(t, start, start + fade) * (1.0 - ramp(t, end - fade, end))


def hill(t, start, end):
    """A smooth hill of height 1 between `start` and `end`, 0 outside."""
    u = np.clip((t - start) / (end - start), 0.0, 1.0)
    return np.sin(np.pi * u) ** 2


def travel(t, start, end, ease):
    """A rise from 0 to 1 at constant speed, but for `ease` seconds of acceleration at either end."""
    grid = np.linspace(start, end, 257)
    covered = np.concatenate([[0.0], np.cumsum(window((grid[1:] + grid[:-1]) / 2, start, end, ease))])
    return np.interp(t, grid, covered / covered[-1])


def curve(t, times, values):
    """A cubic curve through `values` at `times`, with slopes estimated from the neighbouring values."""
    return through(t, np.stack([times, values, np.gradient(values, times)], -1))


def through(t, keys):
    """A cubic curve through `keys`, a list of (time, value, slope); it is constant outside them."""
    times, values, slopes = np.array(keys, dtype=float).T
    i = np.clip(np.searchsorted(times, t, side="right") - 1, 0, len(times) - 2)
    span = times[i + 1] - times[i]
    u = np.clip((t - times[i]) / span, 0.0, 1.0)
    rest = 1.0 - u
    ends = values[i] * (1 + 2 * u) * rest**2 + values[i + 1] * (3 - 2 * u) * u**2
    return ends + span * u * rest * (slopes[i] * rest - slopes[i + 1] * u)


def smooth(values, sigma):
    """`values` (T, ...) after a Gaussian filter over time; `sigma` in frames, the end values repeated."""
    radius = max(1, int(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    padded = np.concatenate([values[:1].repeat(radius, 0), values, values[-1:].repeat(radius, 0)])
    return sum(w * padded[k : k + len(values)] for k, w in enumerate(weights))
