"""Videos as people record them: times, shots, damage, and pictures as a player shows them."""

import itertools
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runtime.cli import UserError
from tests.tools.videos import bar_columns, bars, write_video
from tools.poses import video

SIXTY = [round(k * 1000 / 60) for k in range(60)]


def sampled(path, fps=30):
    timeline = video.scan(path)
    indices = video.sample(timeline, fps)
    return timeline, indices, bar_columns(video.frames(timeline, indices))


@pytest.mark.parametrize("name", ["60.mp4", "60.mkv", "60.webm"])
def test_every_second_frame_of_60_per_second_is_used_at_30(tmp_path, name):
    timeline, indices, columns = sampled(write_video(tmp_path / name, bars(80), fps=60))
    assert indices.tolist() == list(range(0, 80, 2)) and timeline.fps == 60
    assert np.abs(np.array(columns) - indices).max() <= 1
    assert video.sampled_fps(timeline, 30) == 30


@pytest.mark.parametrize(
    ("fps", "rate", "step"), [(29.97, 30, 1), (59.94, 30, 2), (25, 30, 1), (24, 12, 2), (5, 30, 1)]
)
def test_near_and_slower_rates_are_kept(tmp_path, fps, rate, step):
    timeline, indices, _ = sampled(write_video(tmp_path / "a.mkv", bars(60), fps=fps), rate)
    assert set(np.diff(indices)) == {step}
    assert video.sampled_fps(timeline, rate) == pytest.approx(fps / step, rel=1e-4)


def test_pause_begins_a_new_shot(tmp_path, capsys):
    times = [*SIXTY, *(10_000 + time for time in SIXTY)]
    timeline, indices, _ = sampled(write_video(tmp_path / "a.mp4", bars(120), times=times))
    assert (
        len(indices) == 60
        and set(timeline.shots[indices[:30]]) == {0}
        and set(timeline.shots[indices[30:]]) == {1}
    )
    assert video.sampled_fps(timeline, 30) == pytest.approx(30, rel=1e-3)
    assert "new shots start at frame 60 (10.0 s)" in capsys.readouterr().out


def test_joined_recordings_lose_nothing(tmp_path):
    parts = [write_video(tmp_path / f"{begin}.ts", bars(40, begin)).read_bytes() for begin in (0, 40)]
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    timeline, indices, columns = sampled(tmp_path / "joined.ts")
    assert timeline.shots.tolist() == [0] * 40 + [1] * 40 and len(indices) == 80
    assert np.abs(np.array(columns) - np.arange(80)).max() <= 1
    assert np.allclose(np.diff(timeline.times), 1 / 30)


def test_frames_of_a_variable_rate_are_sampled_by_their_times(tmp_path):
    """30 frames a second, then 10: at 10 a second, each third of the first, and all others."""
    times = [*range(0, 400, 33), *range(496, 1700, 100)]
    _, indices, _ = sampled(write_video(tmp_path / "a.mp4", bars(len(times)), times=times), 10)
    assert indices.tolist() == [0, 3, 6, 9, 12, *range(13, len(times))]


@given(
    source=st.sampled_from([5, 12.5, 24, 25, 29.97, 30, 50, 60]),
    wanted=st.sampled_from([5, 10, 20, 24, 25, 30, 60]),
    count=st.integers(1, 300), start=st.sampled_from([0, 0.5]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_driver_keeps_its_length_and_speed(source, wanted, count, start):
    timeline = video.uniform(count, (64, 32), source)
    fps = video.sampled_fps(timeline, wanted)
    shown = video.resample(timeline, fps, start)
    assert fps <= max(wanted, source) and (np.diff(shown) >= 0).all()
    assert len(shown) / fps == pytest.approx(max(0, count / source - start), abs=1 / fps)
    if len(shown):
        assert np.abs(timeline.times[shown] - start - np.arange(len(shown)) / fps).max() <= 1.01 / fps


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, (0, 59)),
        ({"start": 1.0}, (30, 59)),
        ({"end": 0.5}, (0, 15)),
        ({"start": 0.5, "end": 1.0}, (15, 30)),
    ],
)
def test_start_and_end(tmp_path, flags, expected):
    timeline = video.scan(write_video(tmp_path / "a.mp4", bars(60)))
    indices = video.sample(timeline, 30, **flags)
    assert (indices[0], indices[-1]) == expected and len(indices) == expected[1] - expected[0] + 1


def damage(path, number):
    """Overwrite the data of a frame that is no keyframe."""
    import av

    with av.open(str(path)) as container:
        place, size = sorted((packet.pos, packet.size) for packet in container.demux(video=0) if packet.size)[
            number
        ]
    data = bytearray(path.read_bytes())
    data[place : place + size] = bytes(size)
    path.write_bytes(data)


def test_damaged_frames_are_counted_and_the_rest_is_used(tmp_path, capsys):
    path = write_video(tmp_path / "a.mp4", bars(90))
    damage(path, 40)
    timeline, indices, columns = sampled(path)
    lost = sorted({*range(90)} - {*timeline.numbers.tolist()})
    assert 40 in lost and len(timeline.numbers) == len(indices) == 90 - len(lost) >= 75
    assert f"damaged, {len(lost)} frame" in capsys.readouterr().out
    assert np.abs(np.array(columns) - timeline.numbers).max() <= 1
    assert np.allclose(timeline.times, timeline.numbers / 30, atol=0.01)


def test_file_that_ends_early_is_used(tmp_path):
    path = write_video(tmp_path / "a.mkv", bars(90))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert 20 < len(video.scan(path).times) < 90


def test_size_that_changes_is_refused(tmp_path):
    parts = [write_video(tmp_path / f"{w}.ts", bars(20, width=w)).read_bytes() for w in (160, 320)]
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    with pytest.raises(UserError, match="frame size changes from 160x120 to 320x120 at frame 20"):
        video.scan(tmp_path / "joined.ts")
    for number, width in ((1, 20), (2, 30)):
        Image.new("RGB", (width, 10)).save(tmp_path / f"{number}.png")
    with pytest.raises(UserError, match="frame size changes from 20x10 to 30x10 at frame 2"):
        video.scan(tmp_path)


def test_wide_pixels_are_shown_square(tmp_path):
    path = write_video(tmp_path / "a.mp4", bars(4, width=144), sample_aspect_ratio=Fraction(64, 45))
    timeline = video.scan(path)
    assert timeline.size == (205, 120)
    assert [image.shape for image in video.frames(timeline, [0])] == [(120, 205, 3)]


def set_matrix(path, matrix):
    """Change the display matrix (ISO/IEC 14496-12, track header) of an MP4."""
    movie = path.read_bytes()
    offset = movie.index(b"tkhd") + 44
    assert movie[offset : offset + 36] == struct.pack(">9i", 2**16, 0, 0, 0, 2**16, 0, 0, 0, 2**30)
    a, b, c, d = (value * 2**16 for value in matrix)
    path.write_bytes(
        movie[:offset] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 2**30) + movie[offset + 36 :]
    )


# What a player does with the stored image, by the matrix that a recorder writes.
@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((0, 1, -1, 0), lambda image: np.rot90(image, -1)), ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)), ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud), ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
    ],
)  # fmt: skip
def test_turned_and_mirrored_videos_are_shown_as_players_do(tmp_path, matrix, shown):
    image = np.full((64, 96, 3), 40, np.uint8)
    image[:20, :30], image[44:, :30] = (250, 20, 20), (20, 20, 250)
    path = write_video(tmp_path / "a.mp4", [image])
    set_matrix(path, matrix)
    timeline = video.scan(path)
    (found,) = video.frames(timeline, [0])
    assert timeline.size == found.shape[1::-1]
    assert np.abs(found.astype(int) - shown(image)).mean() < 4


def test_hdr_is_said(tmp_path, capsys):
    video.scan(write_video(tmp_path / "a.mp4", bars(3), color_trc=18))
    assert "HDR (HLG)" in capsys.readouterr().out


def test_images_of_a_folder_have_the_numbers_of_their_names(tmp_path):
    for number in (*range(10, 40, 2), *range(60, 70, 2)):
        Image.new("RGB", (20, 10)).save(tmp_path / f"frame_{number:04d}.png")
    timeline = video.scan(tmp_path, image_fps=25)
    assert timeline.fps == 25 and timeline.numbers[0] == 10 and np.unique(timeline.shots).tolist() == [0, 1]
    pairs = itertools.pairwise(timeline.times[:15])
    assert all(after - before == pytest.approx(0.04) for before, after in pairs)
    assert len(list(video.frames(timeline, np.arange(20)))) == 20
