"""Smooth curves over time, the material of all motion here: every one has a continuous slope."""

import numpy as np


def ramp(t, start, end):
    """0 before `start`, 1 after `end`, an S-curve without jerks at its ends between. t: (T,) seconds."""
    u = np.clip((t - start) / (end - start), 0.0, 1.0)
    return u * u * u * (u * (6.0 * u - 15.0) + 10.0)


def window(t, start, end, fade):
    """0 outside `start..end`, 1 inside, with a fade of `fade` seconds at either end. t: (T,) seconds."""
    fade = min(fade, (end - start) / 2)
    return ramp(t, start, start + fade) * (1.0 - ramp(t, end - fade, end))


def hill(t, start, end):
    """0 outside `start..end`, one smooth hill of height 1 between. t: (T,) seconds."""
    u = np.clip((t - start) / (end - start), 0.0, 1.0)
    return np.sin(np.pi * u) ** 2


def travel(t, start, end, ease):
    """From 0 to 1 at a steady speed, speeding up and slowing down over `ease` seconds at the ends."""
    grid = np.linspace(start, end, 257)
    covered = np.concatenate([[0.0], np.cumsum(window((grid[1:] + grid[:-1]) / 2, start, end, ease))])
    return np.interp(t, grid, covered / covered[-1])


def curve(t, times, values):
    """Smooth curve through `values` at `times`, with the slopes that its neighbours suggest."""
    return through(t, np.stack([times, values, np.gradient(values, times)], -1))


def through(t, keys):
    """Cubic curve through `keys`, rows of (time, value, slope); it stays level outside them."""
    times, values, slopes = np.array(keys, dtype=float).T
    i = np.clip(np.searchsorted(times, t, side="right") - 1, 0, len(times) - 2)
    span = times[i + 1] - times[i]
    u = np.clip((t - times[i]) / span, 0.0, 1.0)
    rest = 1.0 - u
    ends = values[i] * (1 + 2 * u) * rest**2 + values[i + 1] * (3 - 2 * u) * u**2
    return ends + span * u * rest * (slopes[i] * rest - slopes[i + 1] * u)


def smooth(values, sigma):
    """Gaussian average over time (axis 0), `sigma` frames wide, the ends held. values: (T, ...)."""
    radius = max(1, int(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    padded = np.concatenate([values[:1].repeat(radius, 0), values, values[-1:].repeat(radius, 0)])
    return sum(w * padded[k : k + len(values)] for k, w in enumerate(weights))
