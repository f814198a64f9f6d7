"""Videos for tests, written with PyAV."""

from fractions import Fraction

import av
import numpy as np


def write_video(path, images, fps=30, times=None, sound=None, **settings):
    """Write a video.

    Args:
        images: uint8 `(H, W, 3)` each.
        times: of the frames, in milliseconds, instead of `fps`.
        sound: samples of one channel, float, 48,000 per second.
        settings: of the codec's context.
    """
    with av.open(str(path), "w") as container:
        codec = "libvpx" if path.suffix == ".webm" else "libx264"
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "12", "bf": "0", "g": "15"}
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream("aac", rate=48_000, layout="mono") if sound is not None else None
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image))
            if times is not None:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            part = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), "fltp", "mono")
            part.sample_rate = 48_000
            container.mux([*audio.encode(part), *audio.encode(None)])
    return path


def bars(count, begin=0, width=160, height=120):
    """Images with a red bar, whose left edge is at column `begin + k` in frame k."""
    images = np.full((count, height, width, 3), 90, np.uint8)
    for k in range(count):
        images[k, 20:100, begin + k : begin + k + 8] = 220, 30, 30
    return list(images)


def bar_columns(images):
    """The column of the bar in each image."""
    return [int(np.argmax(image[image.shape[0] // 2, :, 0] > 180)) for image in images]
