import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules import VAE_Model
from modules.rollout import Shifts
from tests.helpers import random_clips, small_model


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 9), width=st.integers(5, 20), seed=st.integers(0, 99))
def test_mean_of_the_copies_of_pictures_is_the_pictures(count, width, seed):
    pictures = torch.rand(2, 3, 4, width, generator=torch.Generator().manual_seed(seed))
    shifts = Shifts(count, width, "cpu")
    copies = shifts.copies(pictures)
    assert copies.shape == (2 * count, 3, 4, width)
    torch.testing.assert_close(shifts.mean(copies), pictures)


def test_copies_are_shifted_to_the_right_and_to_the_left_and_repeat_the_edge():
    picture = torch.arange(6.0).expand(1, 1, 1, 6)
    copies = Shifts(3, 6, "cpu").copies(picture)[:, 0, 0].tolist()
    assert copies == [[0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 5]]


def test_pixels_that_leave_a_copy_do_not_count_in_the_mean():
    shifts = Shifts(3, 6, "cpu")
    copies = torch.zeros(3, 1, 1, 6)
    copies[1] = 3.0  # shifted to the right, so it knows nothing of the last column
    assert shifts.mean(copies)[0, 0, 0].tolist() == [1.5, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("arch", ["lab", "unet"])
def test_frame_of_generation_is_the_mean_of_predictions_from_shifted_inputs(arch):
    torch.manual_seed(0)
    model = VAE_Model(small_model(arch=arch, output="linear"))
    frames, poses = random_clips(batch=2, length=4)
    video = model.generate(frames[:, 0], poses, shifts=3)
    assert (video - model.generate(frames[:, 0], poses)).abs().max() > 1e-4
    width = frames.shape[-1]
    places = torch.arange(width)
    last = frames[:, 0]
    for t in range(1, 4):
        total, count = torch.zeros_like(last), torch.zeros(width)
        for offset in (-1, 0, 1):
            columns = (places - offset).clamp(0, width - 1)
            kept = (places >= -offset) & (places < width - offset)
            # The pair's first frame is the given one: a prediction of the frame after the last.
            clip = torch.stack([frames[:, 0], last, last], dim=1)[..., columns]
            pose = torch.stack([poses[:, 0], poses[:, t], poses[:, t]], dim=1)[..., columns]
            predicted = model.predict(clip, pose)[:, 1]
            total += predicted[..., (places + offset).clamp(0, width - 1)] * kept
            count += kept
        last = total / count
        torch.testing.assert_close(video[:, t], last, rtol=1e-4, atol=1e-5)


def test_prediction_from_true_frames_is_shifted_as_generation_is():
    torch.manual_seed(0)
    model = VAE_Model(small_model(arch="unet", output="linear"))
    frames, poses = random_clips(batch=2, length=2)
    predicted = model.predict(frames, poses, shifts=5)
    video = model.generate(frames[:, 0], poses, shifts=5)
    torch.testing.assert_close(predicted[:, 0], video[:, 1], rtol=1e-4, atol=1e-5)
