"""The rollouts against the plain reference, which predicts one frame at a time."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from modules import VAE_Model
from modules.rollout import Rollout
from tests.helpers import random_clips, small_model
from tools import plain_reference
from training import options

MODELS = [("lab", "linear"), ("lab", "sigmoid"), ("unet", "linear"), ("unet", "sigmoid")]


def make_model(arch="lab", **changes):
    torch.manual_seed(0)
    model = VAE_Model(small_model(arch=arch, **{"output": "linear"} | changes))
    if arch == "unet":  # z has no say before training, and the tests ask what it says
        torch.nn.init.normal_(model.Decoder_Fusion.inject.weight)
    return model


def z_size(arch):
    return (8, 16) if arch == "lab" else (2, 4)


def encode_poses_together(model, poses):
    """The features of all poses of clips, one step after the other: BatchNorm sees all poses of the call."""
    features = model.label_transformation(poses[:, 1:].transpose(0, 1).flatten(0, 1))
    return iter(features.split(len(poses)))


def gradients(model, outputs, frames):
    predicted, mu, logvar = outputs
    model.zero_grad()
    loss = (predicted - frames[:, 1:]).square().sum() + mu.square().sum() + logvar.exp().sum()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("arch", "output"), MODELS)
@pytest.mark.parametrize("teacher_forcing", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_training_rollout_equals_the_plain_loop_gradients_included(
    arch, output, teacher_forcing, training, monkeypatch
):
    model = make_model(arch, output=output).double().train(training)
    frames, poses = (clip.double() for clip in random_clips())
    torch.manual_seed(1)
    rollout = model(frames, poses, teacher_forcing)
    rollout_gradients = gradients(model, rollout, frames)
    torch.manual_seed(1)
    if arch == "lab":
        features = encode_poses_together(model, poses)
        monkeypatch.setattr(model.label_transformation, "forward", lambda pose: next(features))
    steps = plain_reference.training_rollout(model, frames, poses, teacher_forcing)
    plain = [torch.stack(tensors, dim=1) for tensors in steps]
    for computed, expected in zip(rollout, plain, strict=True):
        torch.testing.assert_close(computed, expected)
    for name, gradient in gradients(model, plain, frames).items():
        torch.testing.assert_close(rollout_gradients[name], gradient, msg=name)


def test_gradient_flows_through_the_frame_that_is_fed_back():
    model = make_model().eval()
    frames, poses = random_clips(batch=1, length=4)
    frames.requires_grad_()
    for teacher_forcing in (False, True):
        predicted, _, _ = model(frames, poses, teacher_forcing)
        (gradient,) = torch.autograd.grad(predicted[:, -1].sum(), frames)
        assert bool(gradient[:, 0].abs().sum() > 0) is not teacher_forcing


@pytest.mark.parametrize("arch", ["lab", "unet"])
def test_teacher_forced_clip_calls_each_network_once(arch):
    model = make_model(arch)
    calls = []
    for name, network in model.named_children():
        network.register_forward_hook(lambda *_, name=name: calls.append(name))
    model(*random_clips(length=9), teacher_forcing=True)
    expected = [name for name, _ in model.named_children()]
    if arch == "unet":  # the pose of the first frame, which BatchNorm of the lab's encoder must not see
        expected.append("label_transformation")
    assert sorted(calls) == sorted(expected)


@pytest.mark.parametrize(("arch", "output"), MODELS)
@pytest.mark.parametrize(("batch", "length"), [(1, 2), (3, 7), (2, 120), (100, 3)])
def test_generation_equals_the_plain_loop(arch, output, batch, length):
    model = make_model(arch, output=output)
    frames, poses = random_clips(batch, length)
    z = torch.randn(batch, length, 4, *z_size(arch))
    video = model.generate(frames[:, 0], poses, z=z)
    assert model.training
    model.eval()
    expected = [plain_reference.render(model, frames[i, 0], poses[i], z[i]) for i in range(batch)]
    torch.testing.assert_close(video, torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ["lab", "unet"])
def test_generation_uses_the_mean_of_the_prior_or_samples_it(arch):
    model = make_model(arch)
    frames, poses = random_clips(batch=1, length=4)
    zeros = torch.zeros(1, 4, 4, *z_size(arch))
    mean = model.generate(frames[:, 0], poses)
    torch.testing.assert_close(mean, model.generate(frames[:, 0], poses, z=zeros))
    draws = [
        model.generate(frames[:, 0], poses, sample=True, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], mean)


def test_generation_leaves_batchnorm_and_mode_alone():
    model = make_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    frames, poses = random_clips()
    model.generate(frames[:, 0], poses)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_generation_encodes_long_videos_in_pieces_of_bounded_size():
    model = make_model()
    most = []
    model.label_transformation.register_forward_hook(lambda _m, inputs, _o: most.append(len(inputs[0])))
    frames, poses = random_clips(batch=2, length=301)
    model.generate(frames[:, 0], poses)
    assert sum(most) == 600
    assert max(most) <= 96


@pytest.mark.parametrize("arch", ["lab", "unet"])
def test_sigmoid_output_is_bounded(arch):
    frames, poses = random_clips()
    model = make_model(arch, output="sigmoid")
    last = model.Generator[7] if arch == "lab" else model.Generator.paint
    last.bias.data.fill_(50.0)
    predicted, _, _ = model(frames, poses, teacher_forcing=False)
    assert predicted.min() >= 0 and predicted.max() <= 1


@pytest.mark.parametrize("arch", ["lab", "unet"])
def test_prediction_from_true_frames_is_generation_one_frame_at_a_time(arch):
    model = make_model(arch)
    frames, poses = random_clips(batch=2, length=5)
    predicted = model.predict(frames, poses)
    assert model.training
    z = torch.zeros(2, 4, *z_size(arch))
    with torch.no_grad():
        model.eval()
        first = plain_reference.first_frame_inputs(model, frames[:, 0], poses[:, 0])
        for t in range(1, 5):
            pose_feature = model.label_transformation(poses[:, t])
            expected = plain_reference.next_frame(model, frames[:, t - 1], pose_feature, z, first)
            torch.testing.assert_close(predicted[:, t - 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("fold", "scales"), [(2, 2), (3, 3), (2, 5), (1, 2)])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (7, 9), (10, 13), (32, 64)])
def test_unet_takes_pictures_of_any_size(height, width, fold, scales):
    model = make_model("unet", fold=fold, scales=scales)
    frames, poses = random_clips(1, 3, height, width)
    predicted, mu, _ = model(frames, poses, teacher_forcing=False)
    assert predicted.shape == frames[:, 1:].shape
    assert mu.shape[-2:] == model.Gaussian_Predictor.latent_size(height, width)
    assert model.generate(frames[:, 0], poses).shape == frames.shape


def test_scales_let_the_unet_see_farther():
    """A pixel of the last frame reaches farther in the next one, the more scales and pixels are folded."""
    reached = []
    for fold, scales in ((2, 2), (2, 3), (4, 3)):
        torch.manual_seed(0)
        model = make_model("unet", fold=fold, scales=scales).eval()
        for layer in model.modules():  # GroupNorm connects all pixels by their mean
            if isinstance(layer, torch.nn.GroupNorm):
                layer.forward = lambda x: x
        last = torch.rand(1, 3, 64, 256, requires_grad=True)
        feature = model.frame_transformation(last)
        pose_feature = model.label_transformation(torch.rand_like(last))
        z = torch.zeros(1, *model.latent_shape(64, 256))
        known = model.Decoder_Fusion.from_first_frame(feature.detach(), pose_feature)
        fused = model.Decoder_Fusion(feature, pose_feature, z, known)
        model.Generator(fused, torch.zeros_like(last))[..., 128].sum().backward()
        reached.append(int(last.grad.abs().sum(dim=(0, 1, 2)).count_nonzero()))
    assert reached[0] < reached[1] < reached[2] < 256


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cuda_generation_equals_the_cpu():
    model = make_model()
    frames, poses = random_clips(2, 6)
    expected = model.generate(frames[:, 0], poses)
    video = model.cuda().generate(frames[:, 0].cuda(), poses)
    torch.testing.assert_close(video, expected, rtol=1e-3, atol=1e-4)


def test_default_unet_is_within_its_budget():
    args = options.trainer_args(["--DR=d", "--save_root=r"])
    model = VAE_Model(args).eval()
    frames, poses = random_clips(1, 2, 32, 64)
    with FlopCounterMode(display=False) as counter:
        model.generate(frames[:, 0], poses)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 1_600_000
    # The first frame and its pose are encoded beside the predicted one: a little more than one frame.
    assert counter.get_total_flops() <= 1.0e9


@pytest.mark.parametrize("arch", ["lab", "unet"])
@pytest.mark.parametrize("sample", [False, True])
def test_video_in_pieces_is_that_of_one_call(arch, sample):
    model = make_model(arch).eval()
    frames, poses = random_clips(length=9)
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    video = model.generate(frames[:, 0], poses, sample, generators[0], shifts=3)
    rollout = Rollout(model, frames[:, 0], poses[:, 0], shifts=3)
    pieces = [
        rollout(poses[:, part], sample, generators[1]) for part in (slice(1, 2), slice(2, 6), slice(6, 9))
    ]
    torch.testing.assert_close(torch.cat(pieces, dim=1), video[:, 1:])
