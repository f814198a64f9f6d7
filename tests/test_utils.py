import imageio.v3 as iio
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import utils
from Trainer import Generate_PSNR
from training.history import COLUMNS, STEP_COLUMNS


@given(mse=st.floats(1e-6, 1.0))
def test_psnr_is_its_definition(mse):
    truth = torch.zeros(2, 3, 4, 4)
    predicted = truth + mse**0.5
    expected = 10 * np.log10(1 / mse)
    assert utils.psnr_by_frame(predicted, truth).tolist() == pytest.approx([expected] * 2, abs=1e-3)
    assert Generate_PSNR(predicted, truth).item() == pytest.approx(expected, abs=1e-3)
    assert Generate_PSNR(predicted * 255, truth, 255.0).item() == pytest.approx(expected, abs=1e-3)


def test_psnr_by_frame_clamps_and_is_always_finite():
    truth = torch.ones(4, 3, 2, 2)
    predicted = torch.stack([truth[0], truth[0] * 7, truth[0] * float("inf"), truth[0] * float("nan")])
    assert utils.psnr_by_frame(predicted, truth).tolist() == pytest.approx([100, 100, 100, 0])


def test_ssim_is_one_for_equal_frames_and_less_for_others():
    truth = torch.rand(3, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    predicted = truth.clone()
    predicted[1] += 0.3 * torch.rand(3, 32, 64)
    ssim = utils.ssim_by_frame(predicted, truth)
    assert ssim.shape == (3,)
    assert ssim[0].item() == pytest.approx(1.0) and ssim[1] < 0.97


def some_video(length=4, height=8, width=16):
    return np.random.default_rng(0).integers(0, 256, (length, height, width, 3), dtype=np.uint8)


def test_comparison_shows_its_columns_side_by_side():
    poses, predicted, truth = (some_video() // scale for scale in (1, 2, 3))
    shown = utils.comparison(poses, predicted, truth)
    assert shown.frames.shape == (4, 8, 4 * 16 + 3, 3) and shown.scale == 12
    assert np.array_equal(shown.frames[:, :, :16], poses)
    assert np.array_equal(shown.frames[:, :, 34:50], truth)
    assert list(shown.headings) == ["pose", "prediction", "truth", "error x2"]
    assert list(utils.comparison(poses, predicted, None).headings) == ["pose", "prediction"]


def test_gif_has_all_frames_enlarged_under_their_headings_and_plays_for_ever(tmp_path):
    video = np.zeros((4, 8, 16, 3), np.uint8)
    video[:, :, :8] = (200, 30, 10)
    for t in range(4):
        video[t, t, 12] = 255
    utils.save_gif(tmp_path / "a.gif", utils.side_by_side({"left": video, "right": video}))
    with Image.open(tmp_path / "a.gif") as gif:
        assert (gif.n_frames, gif.info["duration"], gif.info["loop"]) == (4, 50, 0)
        assert gif.size == (33 * 12, 8 * 12 + 18)
        gif.seek(2)
        page = np.asarray(gif.convert("RGB"))
    assert np.abs(page[18::12, 0 : 16 * 12 : 12].astype(int) - video[2]).max() <= 2
    assert (page[:18] < 60).any() and (page[:18] > 200).any()


@pytest.mark.parametrize("fps", [5, 12.5, 24, 30, 59.94, 120])
def test_gif_plays_at_the_rate_of_the_video(tmp_path, fps):
    video = np.arange(60, dtype=np.uint8)[:, None, None, None].repeat(8, 1).repeat(16, 2).repeat(3, 3) * 4
    utils.save_gif(tmp_path / "a.gif", utils.side_by_side({"a": video}, fps=fps))
    with Image.open(tmp_path / "a.gif") as gif:
        durations = [(gif.seek(frame), gif.info["duration"])[1] for frame in range(gif.n_frames)]
    assert min(durations) >= 20  # milliseconds, below which browsers slow down
    assert sum(durations) / 1000 == pytest.approx(60 / fps, abs=0.03)


def test_mp4_is_read_back(tmp_path):
    video = np.broadcast_to(np.arange(0, 200, 40, dtype=np.uint8)[:, None, None, None], (5, 33, 65, 3))
    utils.save_mp4(tmp_path / "a.mp4", [utils.side_by_side({"a": video}, has_headings=False)])
    read = iio.imread(tmp_path / "a.mp4", plugin="pyav")
    assert read.shape == (5, 98, 194, 3)
    assert np.abs(read.astype(int) - video[:, :1, :1]).max() < 12


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_to_float_is_channel_first_in_zero_to_one(kind):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 3), dtype=np.uint8)
    images.flags.writeable = kind is torch.from_numpy
    floats = utils.to_float(kind(images))
    assert floats.shape == (2, 3, 3, 4, 5) and floats.dtype == torch.float32
    np.testing.assert_allclose(floats.numpy() * 255, images.transpose(0, 1, 4, 2, 3), atol=1e-4)
    assert np.array_equal(utils.to_uint8(floats[0]), images[0])


def test_to_uint8_rounds_and_clamps():
    video = torch.tensor([-1.0, 0.5, 2.0]).reshape(1, 3, 1, 1)
    assert utils.to_uint8(video).tolist() == [[[[0, 128, 255]]]]


@pytest.mark.parametrize(("num_epochs", "num_steps"), [(1, 1), (30, 3000)])
def test_plots_are_drawn(tmp_path, num_epochs, num_steps):
    rows = [dict.fromkeys(COLUMNS, 0.5) | {"epoch": epoch} for epoch in range(num_epochs)]
    steps = dict.fromkeys(STEP_COLUMNS, np.linspace(0, 1, num_steps))
    curves = {"last": [20.0] * num_epochs, "best": [21.0] * num_epochs}
    plots = {utils.plot_losses: (rows, "Cyclical"), utils.plot_schedules: (steps,),
             utils.plot_psnr_by_epoch: (rows,), utils.plot_psnr_by_frame: (curves,)}  # fmt: skip
    for plot, values in plots.items():
        plot(tmp_path / "a.png", *values)
        with Image.open(tmp_path / "a.png") as image:
            assert image.width > 600 and len(image.convert("L").getcolors()) > 10
        (tmp_path / "a.png").unlink()


def test_sheet_shows_frames_below_each_other(tmp_path):
    video = np.repeat(np.arange(0, 200, 10, dtype=np.uint8), 8 * 16 * 3).reshape(20, 8, 16, 3)
    utils.save_sheet(tmp_path / "a.png", utils.side_by_side({"a": video}), count=5)
    with Image.open(tmp_path / "a.png") as image:
        column = np.asarray(image.convert("L"))[utils.HEADING_HEIGHT :, -1]
    shades = [int(shade) for shade in dict.fromkeys(column.tolist()) if shade != 255]
    assert shades == [0, 40, 90, 140, 190]
