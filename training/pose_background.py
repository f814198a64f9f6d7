"""The background of pose images: the colour where nothing is drawn."""

from pathlib import Path

import numpy as np

from runtime.cli import log
from utils import colour_name, to_rgb

from .pose_filling import MIN_INTENSITY, is_drawn

MAX_POSES, MAX_PIXELS = 32, 2**20  # to look at, evenly spaced
TOLERANCE = 8  # of 255


def find_pose_background(poses: np.ndarray) -> str:
    """The most frequent colour of poses `(N, H, W, 3)` uint8, as `#rrggbb`.

    A colour that is nearly black or white is black or white.
    """
    indices = np.linspace(0, len(poses) - 1, min(len(poses), MAX_POSES)).round().astype(int)
    pixels = poses[indices].reshape(-1, 3)
    pixels = pixels[:: 1 + len(pixels) // MAX_PIXELS]
    codes, counts = np.unique(pixels @ np.array([1 << 16, 1 << 8, 1]), return_counts=True)
    colour = f"#{codes[counts.argmax()]:06x}"
    near = (extreme for extreme in ("#000000", "#ffffff") if _distance(colour, extreme) < TOLERANCE)
    return next(near, colour)


def resolve_pose_background(poses: np.ndarray, given: str | None, source: Path) -> str:
    """The background of poses `(N, H, W, 3)`: `given`, or the measured one.

    Prints a line if these are different, or if all poses are blank.
    """
    found = find_pose_background(poses)
    if given is not None and _distance(found, given) > TOLERANCE:
        colours = f"{colour_name(found)}, but --pose_background is {colour_name(given)}"
        log(f"{source}: the poses' most frequent colour is {colours}")
    background = given or found
    chunks = range(0, len(poses), MAX_POSES)  # the first usually settles it
    if not any(is_drawn(poses[start : start + MAX_POSES], background).any() for start in chunks):
        log(f"{source}: all poses are blank: within {MIN_INTENSITY} of 255 of {colour_name(background)}")
    return background


def _distance(one: str, other: str) -> int:
    return int(np.abs(to_rgb(one).astype(int) - to_rgb(other)).max())
