"""The sound of a video, for another video made from it."""

import heapq
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tools.optional import require

from .video import REQUIREMENTS, decoded, opened

RATE, LAYOUT, NUM_CHANNELS = 48_000, "stereo", 2
MAX_SHIFT = 0.05  # seconds of audio offset above which silence is inserted


def has_sound(source: Path) -> bool:
    """Whether a video has sound."""
    with opened(source) as container:
        return bool(container.streams.audio)


def add_sound(path: Path, silent: Path, source: Path, start: float) -> None:
    """Write an MP4 with the frames of one video and the sound of another, cut to the same length.

    Args:
        path: to write.
        silent: has the frames.
        source: has the sound.
        start: in `source`, in seconds after its first frame.
    """
    av = require("av", REQUIREMENTS)
    with av.open(str(silent)) as images, opened(source) as sounds, av.open(str(path), "w") as output:
        stream = images.streams.video[0]
        video = output.add_stream_from_template(stream)
        audio = output.add_stream("aac", rate=RATE, layout=LAYOUT)
        seconds = float(stream.duration * stream.time_base)
        packets = _encoded(audio, _samples(sounds, start, round(seconds * RATE)))
        by_time = heapq.merge(
            _copied(images, video), packets, key=lambda packet: packet.dts * packet.time_base
        )
        for packet in by_time:
            output.mux(packet)


def _copied(container, stream) -> Iterator:
    for packet in container.demux(video=0):
        if packet.dts is not None:
            packet.stream = stream
            yield packet


def _encoded(stream, samples: Iterator[np.ndarray]) -> Iterator:
    av = require("av", REQUIREMENTS)
    position = 0
    for part in samples:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), "fltp", LAYOUT)
        frame.sample_rate, frame.pts = RATE, position
        position += part.shape[1]
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _samples(container, start: float, count: int) -> Iterator[np.ndarray]:
    """`count` samples from `start`, in parts `(NUM_CHANNELS, N)`, float; silence where the video has none."""
    av = require("av", REQUIREMENTS)
    resampler = av.AudioResampler("fltp", LAYOUT, RATE)
    first = container.streams.video[0].start_time
    origin = start + float((first or 0) * container.streams.video[0].time_base)
    position = 0
    for frame in decoded(container, container.streams.audio[0]):
        if position >= count:
            return
        if frame is None:
            continue
        parts = [part.to_ndarray() for part in resampler.resample(frame)]
        if not parts:
            continue
        samples = np.concatenate(parts, axis=1)
        begin = position if frame.time is None else round((frame.time - origin) * RATE)
        if begin > position + MAX_SHIFT * RATE:
            samples = np.concatenate(
                [np.zeros((NUM_CHANNELS, begin - position), np.float32), samples], axis=1
            )
        elif position == 0:
            samples = samples[:, max(0, -begin) :]
        samples = samples[:, : count - position]
        position += samples.shape[1]
        if samples.shape[1]:
            yield samples
    if position < count:
        yield np.zeros((NUM_CHANNELS, count - position), np.float32)
