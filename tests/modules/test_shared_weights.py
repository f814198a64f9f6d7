"""One weight gradient for all steps of a rollout, against the plain backward pass."""

import gc
import weakref

import pytest
import torch

from modules import VAE_Model
from modules.shared_weights import Conv2d, shared_gradients
from tests.helpers import random_clips, small_model


def make_model(arch, dtype=torch.float32):
    torch.manual_seed(0)
    return VAE_Model(small_model(arch=arch)).to(dtype)


def gradients(model, share_gradients, is_bf16=False):
    frames, poses = (clip.to(next(model.parameters()).dtype) for clip in random_clips(length=6))
    noise = torch.zeros(2, 5, *model.latent_shape(8, 16), dtype=frames.dtype)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
        predicted, mu, _ = model(frames, poses, False, noise, share_gradients=share_gradients)
    (predicted.float().square().sum() + mu.float().square().sum()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("arch", ["lab", "unet"])
def test_gradients_equal_those_of_the_plain_backward_pass(arch):
    model = make_model(arch, torch.float64)
    plain, shared = gradients(model, False), gradients(model, True)
    assert plain.keys() == shared.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(shared[name], gradient, rtol=1e-10, atol=1e-13, msg=name)


@pytest.mark.parametrize("arch", ["lab", "unet"])
def test_gradients_in_bf16_are_as_exact_as_plain_ones(arch):
    model = make_model(arch)
    exact = gradients(model, False)
    plain, shared = (
        sum((gradient - exact[name]).square().sum() for name, gradient in found.items())
        for found in (gradients(model, False, is_bf16=True), gradients(model, True, is_bf16=True))
    )
    assert shared < 1.5 * plain


def test_convolution_has_one_weight_gradient_within_the_block_only():
    conv, x, counts = Conv2d(3, 4, 3), torch.rand(2, 3, 5, 5), []
    for networks in ([], [conv]):
        with shared_gradients(*networks), torch.profiler.profile() as profile:
            (conv(x) + conv(x) + conv(x)).sum().backward()
        events = profile.key_averages()
        counts.append(sum(event.count for event in events if event.key == "aten::convolution_backward"))
    assert counts == [3, 1]
    with torch.no_grad(), shared_gradients(conv):
        assert conv(x).shape == (2, 4, 3, 3)


def test_nothing_of_a_step_is_left_after_it():
    """Otherwise AccumulateGrad nodes outlive it, and torch warns of a stream mismatch on CUDA."""
    conv, x = Conv2d(3, 4, 3), torch.rand(2, 3, 5, 5)
    gc.collect()
    gc.disable()
    try:
        with shared_gradients(conv):
            uses = weakref.ref(conv.uses)
            conv(x).sum().backward()
        assert uses() is None
    finally:
        gc.enable()


def test_share_of_the_reference_frame_in_the_first_layer_is_exact():
    fusion = make_model("unet", torch.float64).Decoder_Fusion
    frame, reference, pose, reference_pose = (
        torch.rand(2, channels, 6, 8, dtype=torch.float64) for channels in (8, 8, 4, 4)
    )
    weight = torch.cat([fusion.in_conv.weight, fusion.reference_conv.weight], dim=1)
    inputs = torch.cat([frame, pose, reference, reference_pose], dim=1)
    expected = torch.nn.functional.conv2d(inputs, weight, fusion.in_conv.bias, padding=1)
    first_layer = []
    fusion.in_block.register_forward_hook(lambda _m, inputs, _o: first_layer.append(inputs[0]))
    z = torch.zeros(2, 4, 3, 4, dtype=torch.float64)
    fusion(frame, pose, z, fusion.reference_features(reference, reference_pose))
    torch.testing.assert_close(first_layer[0], expected)
