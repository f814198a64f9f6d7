"""The rollouts against a plain loop that makes one frame at a time, as the lab's protocol reads."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from engine import options
from modules import VAE_Model
from tests.helpers import random_clips, small_model

MODELS = [("lab", "linear"), ("lab", "sigmoid"), ("unet", "linear"), ("unet", "sigmoid")]


def make_model(arch="lab", **changes):
    torch.manual_seed(0)
    model = VAE_Model(small_model(arch=arch, **{"output": "linear"} | changes))
    if arch == "unet":  # z has no say before training, and the tests ask what it says
        torch.nn.init.normal_(model.Decoder_Fusion.inject.weight)
    return model


def paint(model, arch, frame, pose_feature, z, first, first_pose):
    features = [model.frame_transformation(frame), pose_feature, z]
    if arch == "unet":
        features += [model.frame_transformation(first), model.label_transformation(first_pose)]
    return model.Generator(model.Decoder_Fusion(*features))


def z_size(arch):
    return (8, 16) if arch == "lab" else (2, 4)


def plain_training_loop(model, arch, frames, poses, teacher_forcing):
    """One step at a time. The lab's poses are encoded together, for BatchNorm sees all of a clip's."""
    batch, length = frames.shape[:2]
    if arch == "lab":
        all_poses = poses[:, 1:].transpose(0, 1).flatten(0, 1)
        pose_features = model.label_transformation(all_poses).split(batch)
    else:
        pose_features = [model.label_transformation(poses[:, t]) for t in range(1, length)]
    current, predicted, mus, logvars = frames[:, 0], [], [], []
    for t in range(1, length):
        pose_feature = pose_features[t - 1]
        true_feature = model.frame_transformation(frames[:, t])
        z, mu, logvar = model.Gaussian_Predictor(true_feature, pose_feature)
        predicted.append(paint(model, arch, current, pose_feature, z, frames[:, 0], poses[:, 0]))
        mus.append(mu)
        logvars.append(logvar)
        current = frames[:, t] if teacher_forcing else predicted[-1]
    return torch.stack(predicted, 1), torch.stack(mus, 1), torch.stack(logvars, 1)


def gradients(model, outputs, frames):
    predicted, mu, logvar = outputs
    model.zero_grad()
    loss = (predicted - frames[:, 1:]).square().sum() + mu.square().sum() + logvar.exp().sum()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("arch", "output"), MODELS)
@pytest.mark.parametrize("teacher_forcing", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_training_rollout_equals_the_plain_loop_gradients_included(arch, output, teacher_forcing, training):
    model = make_model(arch, output=output).double().train(training)
    frames, poses = (clip.double() for clip in random_clips())
    torch.manual_seed(1)
    ours = model(frames, poses, teacher_forcing)
    our_gradients = gradients(model, ours, frames)
    torch.manual_seed(1)
    plain = plain_training_loop(model, arch, frames, poses, teacher_forcing)
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs)
    for name, gradient in gradients(model, plain, frames).items():
        torch.testing.assert_close(our_gradients[name], gradient, msg=name)


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


def plain_generation(model, arch, first, poses, z):
    frame, video = first, [first]
    for t in range(1, poses.shape[1]):
        pose_feature = model.label_transformation(poses[:, t])
        frame = paint(model, arch, frame, pose_feature, z[:, t], first, poses[:, 0])
        video.append(frame)
    return torch.stack(video, 1)


@pytest.mark.parametrize(("arch", "output"), MODELS)
@pytest.mark.parametrize(("batch", "length"), [(1, 2), (3, 7), (2, 120), (100, 3)])
def test_generation_equals_the_plain_loop(arch, output, batch, length):
    model = make_model(arch, output=output)
    frames, poses = random_clips(batch, length)
    z = torch.randn(batch, length, 4, *z_size(arch))
    video = model.generate(frames[:, 0], poses, z=z)
    assert model.training
    with torch.no_grad():
        expected = plain_generation(model.eval(), arch, frames[:, 0], poses, z)
    torch.testing.assert_close(video, expected, rtol=1e-4, atol=1e-5)


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
        for t in range(1, 5):
            pose_feature = model.label_transformation(poses[:, t])
            expected = paint(model, arch, frames[:, t - 1], pose_feature, z, frames[:, 0], poses[:, 0])
            torch.testing.assert_close(predicted[:, t - 1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (7, 9), (10, 13), (32, 64)])
def test_unet_takes_pictures_of_any_size(height, width):
    model = make_model("unet")
    frames, poses = random_clips(1, 3, height, width)
    predicted, mu, _ = model(frames, poses, teacher_forcing=False)
    assert predicted.shape == frames[:, 1:].shape
    assert mu.shape[-2:] == model.Gaussian_Predictor.latent_size(height, width)
    assert model.generate(frames[:, 0], poses).shape == frames.shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cuda_generation_equals_the_cpu():
    model = make_model()
    frames, poses = random_clips(2, 6)
    expected = model.generate(frames[:, 0], poses)
    video = model.cuda().generate(frames[:, 0].cuda(), poses)
    torch.testing.assert_close(video, expected, rtol=1e-3, atol=1e-4)


def test_default_unet_is_within_its_budget():
    args = options.resolve(options.trainer_parser(), ["--DR=d", "--save_root=r"])
    model = VAE_Model(args).eval()
    frames, poses = random_clips(1, 2, 32, 64)
    with FlopCounterMode(display=False) as counter:
        model.generate(frames[:, 0], poses)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 1_600_000
    # The first frame and its pose are encoded beside the predicted one: a little more than one frame.
    assert counter.get_total_flops() <= 1.0e9
