"""Training rollout and generation, against the plain loop that predicts one frame at a time."""

import copy

import pytest
import torch

from modules import VAE_Model
from modules.cvae import fold_time
from tests.helpers import random_clips, small_model
from tools import plain_reference

ARCHITECTURES = ["lab", "unet"]


def make_model(arch="lab", **changes):
    torch.manual_seed(0)
    model = VAE_Model(small_model(arch=arch, **{"output": "linear"} | changes))
    if arch == "unet":  # its weights for z are 0 at first
        torch.nn.init.normal_(model.Decoder_Fusion.z_proj.weight)
    return model


def gradients(model, outputs, frames):
    predicted, mu, logvar = outputs
    model.zero_grad()
    loss = (predicted - frames[:, 1:]).square().sum() + mu.square().sum() + logvar.exp().sum()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("teacher_forcing", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_training_rollout_and_gradients_equal_the_plain_loop(arch, teacher_forcing, training, monkeypatch):
    model = make_model(arch).double().train(training)
    frames, poses = (clip.double() for clip in random_clips())
    torch.manual_seed(1)
    rollout = model(frames, poses, teacher_forcing)
    rollout_gradients = gradients(model, rollout, frames)
    torch.manual_seed(1)
    if arch == "lab":  # BatchNorm normalizes over all poses of the call
        features = iter(model.label_transformation(fold_time(poses[:, 1:])).split(len(poses)))
        monkeypatch.setattr(model.label_transformation, "forward", lambda pose: next(features))
    steps = plain_reference.training_rollout(model, frames, poses, teacher_forcing)
    plain = [torch.stack(tensors, dim=1) for tensors in steps]
    for computed, expected in zip(rollout, plain, strict=True):
        torch.testing.assert_close(computed, expected)
    for name, gradient in gradients(model, plain, frames).items():
        torch.testing.assert_close(rollout_gradients[name], gradient, msg=name)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_teacher_forced_clip_calls_each_network_once(arch):
    model = make_model(arch)
    calls = []
    for name, network in model.named_children():
        network.register_forward_hook(lambda *_, name=name: calls.append(name))
    model(*random_clips(length=9), teacher_forcing=True)
    expected = [name for name, _ in model.named_children()]
    if arch == "unet":  # once more, for the pose of the reference frame
        expected.append("label_transformation")
    assert sorted(calls) == sorted(expected)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize(("batch", "length"), [(1, 2), (2, 60), (100, 3)])
def test_generation_equals_the_plain_loop(arch, batch, length):
    """It changes neither the mode nor the statistics of BatchNorm."""
    model = make_model(arch)
    before = copy.deepcopy(model.state_dict())
    frames, poses = random_clips(batch, length)
    z = torch.randn(batch, length, *model.latent_shape(8, 16))
    video = model.generate(frames[:, 0], poses, z=z)
    assert model.training
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    model.eval()
    expected = [plain_reference.render(model, frames[i, 0], poses[i], z[i]) for i in range(batch)]
    torch.testing.assert_close(video, torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_generation_uses_the_mean_of_the_prior_or_samples_it(arch):
    model = make_model(arch)
    frames, poses = random_clips(batch=1, length=4)
    zeros = torch.zeros(1, 4, *model.latent_shape(8, 16))
    mean = model.generate(frames[:, 0], poses)
    assert torch.equal(mean, model.generate(frames[:, 0], poses, z=zeros))
    first, again, other = (
        model.generate(frames[:, 0], poses, sample=True, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other) and not torch.equal(first, mean)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_sigmoid_output_is_bounded(arch):
    model = make_model(arch, output="sigmoid")
    last = model.Generator[7] if arch == "lab" else model.Generator.to_pixels
    last.bias.data.fill_(50.0)
    predicted, _, _ = model(*random_clips(), teacher_forcing=False)
    assert predicted.min() >= 0 and predicted.max() <= 1


@pytest.mark.parametrize(("patch_size", "levels", "size"), [(3, 3, (10, 13)), (2, 5, (4, 4)), (1, 2, (9, 6))])
def test_unet_takes_frames_of_any_size(patch_size, levels, size):
    model = make_model("unet", patch_size=patch_size, unet_levels=levels)
    frames, poses = random_clips(1, 3, *size)
    predicted, mu, _ = model(frames, poses, teacher_forcing=False)
    assert predicted.shape == frames[:, 1:].shape
    assert mu.shape[2:] == model.latent_shape(*size)
    assert model.generate(frames[:, 0], poses).shape == frames.shape


def test_pose_encoder_gets_the_same_drawing_on_black_inverted():
    on_white, on_black = (make_model("unet", pose_background=colour) for colour in ("#ffffff", "#000000"))
    pose = random_clips()[1][:, 0]
    pose[..., :4, :] = 1  # background
    given = []
    for encoder in (on_white.label_transformation, on_black.label_transformation):
        encoder.block.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    on_white.label_transformation(pose)
    on_black.label_transformation(1 - pose)
    torch.testing.assert_close(given[1], -given[0])
    assert not given[0][..., :2, :].any() and given[0].abs().max() > 1
