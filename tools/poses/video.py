"""Frames of videos and of folders with numbered pictures, one after the other."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image

from image_cache import numbered_frames
from runtime.cli import UserError


def frames(path: Path, fps: float, start: float = 0.0, end: float | None = None) -> Iterator[np.ndarray]:
    """The frames to keep, uint8 `(H, W, 3)`, upright; never more than one in memory.

    Args:
        path: a video that PyAV reads, or a folder of numbered pictures, which are all kept.
        fps: frames per second to keep; all if the video has fewer.
        start, end: seconds.

    Raises:
        UserError: not a video, or damaged.
    """
    if path.is_dir():
        for entry in numbered_frames(path).values():
            with Image.open(entry.path) as picture:
                yield np.asarray(picture.convert("RGB"))
        return
    if not path.is_file():
        raise UserError(f"{path}: no such video")
    try:
        with av.open(str(path)) as container:
            yield from _kept(container, path, fps, start, end)
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be read as a video ({error.strerror})") from None


def _kept(container, path: Path, fps: float, start: float, end: float | None) -> Iterator[np.ndarray]:
    if not container.streams.video:
        raise UserError(f"{path}: holds no pictures")
    container.streams.video[0].thread_type = "AUTO"
    first, index = None, 0
    for frame in container.decode(video=0):
        if frame.time is None:
            time = index / fps
        else:
            first = frame.time if first is None else first
            time = frame.time - first
        if end is not None and time > end:
            break
        # Half of a frame's time, because the times of frames are rounded.
        if time < start or time - start < (index - 0.5) / fps:
            continue
        index += 1
        yield np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))


def frame_count(path: Path, fps: float, start: float, end: float | None) -> int | None:
    """About how many frames `frames` gives; None if that is not known."""
    if path.is_dir():
        return len(numbered_frames(path))
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            seconds = float(stream.duration * stream.time_base) if stream.duration else None
            rate = min(fps, float(stream.average_rate or fps))
    except (av.FFmpegError, IndexError, ValueError):
        return None
    return None if seconds is None else max(0, round((min(end or seconds, seconds) - start) * rate))
