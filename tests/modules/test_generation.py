"""Test-time augmentation, and generation in chunks."""

import pytest
import torch

from modules import VAE_Model
from modules.generation import StreamingRollout
from tests.helpers import random_clips, small_model


def make_model(arch):
    torch.manual_seed(0)
    return VAE_Model(small_model(arch=arch, output="linear")).eval()


@pytest.mark.parametrize("arch", ["lab", "unet"])
@pytest.mark.parametrize("offsets", [(0,), (0, 1, -1, 2)])
def test_generated_frame_is_the_mean_of_predictions_from_shifted_inputs(arch, offsets):
    model = make_model(arch)
    frames, poses = random_clips(batch=2, length=4)
    video = model.generate(frames[:, 0], poses, tta=len(offsets))
    width, columns = frames.shape[-1], torch.arange(frames.shape[-1])
    previous = frames[:, 0]
    for t in range(1, 4):
        total, count = torch.zeros_like(previous), torch.zeros(width)
        for offset in offsets:
            shifted = (columns - offset).clamp(0, width - 1)
            is_inside = (columns >= -offset) & (columns < width - offset)
            # Frame 0 of this clip is the reference frame, and its last prediction is that of frame t.
            clip = torch.stack([frames[:, 0], previous, previous], dim=1)[..., shifted]
            pose = torch.stack([poses[:, 0], poses[:, t], poses[:, t]], dim=1)[..., shifted]
            predicted = model.predict(clip, pose)[:, 1]
            total += predicted[..., (columns + offset).clamp(0, width - 1)] * is_inside
            count += is_inside
        previous = total / count
        torch.testing.assert_close(video[:, t], previous, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("has_z", [False, True])
@pytest.mark.parametrize("arch", ["lab", "unet"])
def test_teacher_forcing_with_the_frames_of_a_rollout_predicts_the_rollout(arch, has_z):
    model = make_model(arch)
    for name, parameter in model.named_parameters():
        if "z_proj" in name:  # 0 at the start
            parameter.data.fill_(0.1)
    frames, poses = random_clips()
    z = torch.randn(2, 5, *model.latent_shape(8, 16)) if has_z else None
    video = model.generate(frames[:, 0], poses, z=z, tta=3)
    predicted = model.predict(video, poses, z, tta=3)
    torch.testing.assert_close(predicted, video[:, 1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("arch", "has_z"), [("lab", True), ("unet", False)])
def test_generation_in_chunks_equals_one_call(arch, has_z):
    model = make_model(arch)
    frames, poses = random_clips(length=9)
    z = torch.randn(2, 9, *model.latent_shape(8, 16)) if has_z else None
    video = model.generate(frames[:, 0], poses, z=z, tta=3)
    rollout = StreamingRollout(model, frames[:, 0], poses[:, 0], tta=3)
    parts = slice(1, 2), slice(2, 6), slice(6, 9)
    chunks = [rollout(poses[:, part], z[:, part] if has_z else None) for part in parts]
    torch.testing.assert_close(torch.cat(chunks, dim=1), video[:, 1:])


def test_memory_of_generation_is_independent_of_the_length():
    model, num_encoded = make_model("lab"), []
    model.label_transformation.register_forward_hook(lambda _, inputs, _o: num_encoded.append(len(inputs[0])))
    frames, poses = random_clips(batch=2, length=121)
    model.generate(frames[:, 0], poses)
    assert sum(num_encoded) == 240 and max(num_encoded) < 120
