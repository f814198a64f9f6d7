"""Frames of videos and of folders with numbered images, one at a time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from images import numbered_images, read_rgb
from runtime.cli import UserError
from tools.optional import require


def frames(path: Path, fps: float, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
    """The frames of a video, uint8 `(H, W, 3)`, upright; one at a time in memory.

    Args:
        path: a video that PyAV reads, or a folder of numbered images, which are all used.
        fps: frames per second to sample; all if the video has fewer.
        start, end: seconds.

    Raises:
        UserError: not a video, or damaged.
    """
    if path.is_dir():
        for entry in numbered_images(path).values():
            yield np.asarray(read_rgb(entry.path))
        return
    if not path.is_file():
        raise UserError(f"{path}: no such video")
    av = require("av", "requirements-video.txt")
    try:
        with av.open(str(path)) as container:
            yield from _sampled(container, path, fps, start, end)
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be read as a video ({error.strerror})") from None


def _sampled(container, path: Path, fps: float, start: float, end: float | None) -> Iterator[np.ndarray]:
    if not container.streams.video:
        raise UserError(f"{path}: has no video stream")
    container.streams.video[0].thread_type = "AUTO"
    first, count = None, 0
    for frame in container.decode(video=0):
        if frame.time is None:
            time = count / fps
        else:
            first = frame.time if first is None else first
            time = frame.time - first
        if end is not None and time > end:
            break
        # Half of a frame's time, because the times of frames are rounded.
        if time < start or time - start < (count - 0.5) / fps:
            continue
        count += 1
        yield np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))


def num_frames(path: Path, fps: float, start: float, end: float | None) -> int | None:
    """About how many frames `frames` yields; None if unknown."""
    if path.is_dir():
        return len(numbered_images(path))
    av = require("av", "requirements-video.txt")
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            seconds = float(stream.duration * stream.time_base) if stream.duration else None
            rate = min(fps, float(stream.average_rate or fps))
    except (av.FFmpegError, IndexError, ValueError):
        return None
    return None if seconds is None else max(0, round((min(end or seconds, seconds) - start) * rate))
