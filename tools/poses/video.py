"""Videos and folders of numbered images: the times of their frames, and the pixels that a player shows."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from images import numbered_images, read_rgb
from runtime.cli import UserError, log
from runtime.progress import Progress
from tools.optional import require

REQUIREMENTS = "requirements-video.txt"
# An interval between frames longer than both is a pause: in seconds, and in frame intervals.
MIN_PAUSE, MIN_PAUSE_INTERVALS = 0.25, 4
SAMPLING_TOLERANCE = 0.25  # of the interval, because the times of frames are rounded
RATE_TOLERANCE = 0.02  # within which the rate of a video is a multiple of another
HDR_CURVES = {16: "PQ", 18: "HLG"}  # transfer characteristics (ITU-T H.273, table 3)


class Timeline(NamedTuple):
    """The frames of a video that can be decoded.

    Attributes:
        path: of the video, or of the folder with images; unused if there are no images.
        size: width and height in pixels, as a player shows them.
        numbers: `(N,)`, index of each frame in the video, from 0; for images, the number in the file name.
        times: `(N,)` in seconds after the first frame.
        shots: `(N,)`, of each frame. A new shot begins after a pause, and where recordings are joined.
        fps: usual number of frames per second.
    """

    path: Path
    size: tuple[int, int]
    numbers: np.ndarray
    times: np.ndarray
    shots: np.ndarray
    fps: float


def scan(path: Path, image_fps: float = 30.0) -> Timeline:
    """Index the frames of a video, and log anything unusual.

    Args:
        path: a video that PyAV reads, or a folder of numbered images.
        image_fps: frames per second of a folder of images.

    Raises:
        UserError: not a video, or its frames differ in size.
    """
    if path.is_dir():
        return _scan_images(path, image_fps)
    sizes, times, after_damage = [], [], []
    was_damaged = False
    with opened(path) as container:
        stream = container.streams.video[0]
        found = decoded(container, stream)
        for frame in Progress(found, (f"reading {path.name}",), unit="frame", leave=False):
            if frame is None:
                was_damaged = True
                continue
            sizes.append(_shown_size(frame, stream))
            times.append(np.nan if frame.time is None else frame.time)
            after_damage.append(was_damaged)
            was_damaged = False
        curve = HDR_CURVES.get(stream.codec_context.color_trc)
        rate = float(stream.average_rate or image_fps)
    if not times:
        raise UserError(f"{path}: cannot be read as a video (no frame can be decoded)")
    if curve:
        log(f"{path}: HDR ({curve}), so colours will look pale; convert it to SDR first")
    times = np.arange(len(times)) / rate if np.isnan(times).any() else np.array(times)
    seconds, shots, fps = _clock(times, rate)
    # Frames lost to file damage appear only as gaps in the timestamps.
    steps = np.where(after_damage, np.diff(seconds, prepend=-1 / fps) * fps, 1).round().clip(min=1)
    numbers = steps.cumsum().astype(int) - 1
    num_lost = int(steps.sum()) - len(steps) + was_damaged
    if num_lost:
        log(f"{path}: damaged, {num_lost} frame{'s' * (num_lost > 1)} cannot be decoded")
    return _checked(path, sizes, numbers, seconds, shots, fps)


def _scan_images(path: Path, fps: float) -> Timeline:
    entries = numbered_images(path)
    bar = Progress(entries.values(), (f"reading {path.name}",), total=len(entries), unit="image", leave=False)
    sizes = [read_rgb(entry.path).size for entry in bar]
    numbers = np.array(list(entries))
    step = np.median(np.diff(numbers)) if len(numbers) > 1 else 1
    seconds, shots, _ = _clock((numbers - numbers[0]) / (step * fps), fps)
    return _checked(path, sizes, numbers, seconds, shots, fps)


def _clock(times: np.ndarray, average_fps: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Times that never go back, `(N,)`; the shot of each frame, `(N,)`; usual number of frames per second."""
    intervals = np.diff(times)
    forward = intervals[intervals > 0]
    median = np.median(forward) if len(forward) else 1 / average_fps
    usual = forward[np.abs(forward - median) < median / 2]  # averaged, because times are rounded
    interval = 1 / _nominal(1 / float(usual.mean()) if len(usual) else 1 / float(median), average_fps)
    goes_back = intervals < -interval / 2
    is_cut = goes_back | (intervals > max(MIN_PAUSE, MIN_PAUSE_INTERVALS * interval))
    intervals = np.where(goes_back, interval, intervals.clip(min=0))
    return np.append(0, intervals.cumsum()), np.append(0, is_cut.cumsum()), 1 / interval


def _nominal(measured: float, average: float) -> float:
    """The rate that a measurement from rounded times stands for."""
    candidates = (average, 0.01), (round(measured), 0.0005)
    near = [rate for rate, tolerance in candidates if abs(measured - rate) < tolerance * measured]
    return float(near[0]) if near else measured


def _checked(path: Path, sizes: list[tuple[int, int]], numbers, times, shots, fps) -> Timeline:
    for number, size in zip(numbers, sizes, strict=True):
        if size != sizes[0]:
            before, after = ("x".join(map(str, s)) for s in (sizes[0], size))
            raise UserError(
                f"{path}: the frame size changes from {before} to {after} at frame {number}; use one size"
            )
    is_cut = (np.diff(shots) > 0) & (np.diff(numbers) == 1)  # others are damaged parts, or missing images
    if cuts := np.flatnonzero(is_cut).tolist():
        first_cuts = ", ".join(f"{numbers[cut + 1]} ({times[cut + 1]:.1f} s)" for cut in cuts[:3])
        log(f"{path}: paused or joined; new shots start at frame {first_cuts}{', ..' * (len(cuts) > 3)}")
    return Timeline(path, sizes[0], numbers, times, shots, fps)


def uniform(count: int, size: tuple[int, int], fps: float) -> Timeline:
    """The timeline of `count` frames at a constant rate."""
    numbers = np.arange(count)
    return Timeline(Path(), size, numbers, numbers / fps, np.zeros_like(numbers), fps)


def sampled_fps(timeline: Timeline, fps: float) -> float:
    """The frame rate after sampling at most `fps`: a whole fraction of the video's, if one is near."""
    step = max(1, round(timeline.fps / fps))
    is_near = abs(timeline.fps / (step * fps) - 1) < RATE_TOLERANCE
    return timeline.fps / step if is_near else min(fps, timeline.fps)


def sample(timeline: Timeline, fps: float, start: float = 0.0, end: float | None = None) -> np.ndarray:
    """The frames to use, as indices of `timeline.times`, at most `fps` per second.

    Args:
        start, end: seconds.
    """
    interval = 1 / sampled_fps(timeline, fps)
    tolerance = SAMPLING_TOLERANCE * interval
    indices, shot, due = [], None, 0.0
    for index, time in enumerate(timeline.times):
        if time < start - tolerance or (end is not None and time > end):
            continue
        if timeline.shots[index] != shot:
            shot, due = timeline.shots[index], time
        if time >= due - tolerance:
            indices.append(index)
            due += interval * (np.floor((time - due + tolerance) / interval) + 1)
    return np.array(indices, int)


def resample(timeline: Timeline, fps: float, start: float = 0.0, end: float | None = None) -> np.ndarray:
    """The frame that a player shows at each time `start + k / fps`, as an index of `timeline.times`."""
    stop = timeline.times[-1] + 1 / timeline.fps
    count = round((min(end or stop, stop) - start) * fps)
    times = start + (np.arange(max(0, count)) + SAMPLING_TOLERANCE) / fps
    return (np.searchsorted(timeline.times, times, side="right") - 1).clip(min=0)


def frames(timeline: Timeline, indices: np.ndarray) -> Iterator[np.ndarray]:
    """The given frames, in ascending order, uint8 `(H, W, 3)`, upright; one at a time in memory."""
    if timeline.path.is_dir():
        entries = list(numbered_images(timeline.path).values())
        yield from (np.asarray(read_rgb(entries[index].path)) for index in indices)
        return
    wanted = set(map(int, indices))
    with opened(timeline.path) as container:
        stream = container.streams.video[0]
        whole = (frame for frame in decoded(container, stream) if frame is not None)
        for index, frame in enumerate(whole):
            if index in wanted:
                yield _to_image(frame, stream)
                wanted.remove(index)
            if not wanted:
                return


def opened(path: Path):
    """A video as a PyAV container, which decodes in several threads."""
    if not path.is_file():
        raise UserError(f"{path}: no such video")
    av = require("av", REQUIREMENTS)
    try:
        container = av.open(str(path))
    except av.FFmpegError as error:
        raise UserError(f"{path}: cannot be read as a video ({error.strerror})") from None
    if not container.streams.video:
        raise UserError(f"{path}: has no video stream")
    container.streams.video[0].thread_type = "AUTO"
    return container


def decoded(container, stream) -> Iterator:
    """The frames of a stream as PyAV decodes them; None where the file is damaged."""
    av = require("av", REQUIREMENTS)
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            yield from packet.decode()
        except av.FFmpegError:
            yield None


def _stretched(frame, stream) -> tuple[int, int]:
    """Width and height of a frame with square pixels."""
    ratio = stream.sample_aspect_ratio or Fraction(1)
    return max(1, round(frame.width * ratio)), frame.height


def _orientation(frame) -> tuple[bool, bool, bool]:
    """Whether a player transposes a frame, and then mirrors its columns and its rows."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y
    return (True, c < 0, b < 0) if abs(b) > abs(a) else (False, a < 0, d < 0)


def _shown_size(frame, stream) -> tuple[int, int]:
    width, height = _stretched(frame, stream)
    return (height, width) if _orientation(frame)[0] else (width, height)


def _to_image(frame, stream) -> np.ndarray:
    width, height = _stretched(frame, stream)
    image = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    transposes, mirrors_columns, mirrors_rows = _orientation(frame)
    if transposes:
        image = image.swapaxes(0, 1)
    image = image[:: -1 if mirrors_rows else 1, :: -1 if mirrors_columns else 1]
    return np.ascontiguousarray(image)
