import pytest
import torch

import modules.cvae
from modules import VAE_Model
from modules.shared_weights import Conv2d, shared_gradients
from tests.helpers import random_clips, small_model
from tools.benchmarking.measure import count_operators

SHARED = shared_gradients


@pytest.fixture
def share(monkeypatch):
    """Have the free-running chain share gradients on the CPU, too, or not at all."""

    def switch(on):
        monkeypatch.setattr(
            modules.cvae,
            "shared_gradients",
            lambda *_: SHARED(*(networks if on else ())),
        )

    networks = []

    def model(arch, dtype):
        torch.manual_seed(0)
        built = VAE_Model(small_model(arch=arch)).to(dtype)
        networks[:] = built.frame_transformation, built.Decoder_Fusion, built.Generator
        return built, switch

    return model


def gradients(model, precision=None, length=6):
    frames, poses = (clip.to(next(model.parameters()).dtype) for clip in random_clips(length=length))
    noise = torch.zeros(2, length - 1, *model.latent_shape(8, 16), dtype=frames.dtype)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        predicted, mu, _ = model(frames, poses, False, noise)
    (predicted.float().square().sum() + mu.float().square().sum()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("arch", ["lab", "unet"])
def test_gradients_are_those_of_the_plain_backward_pass(share, arch):
    model, switch = share(arch, torch.float64)
    switch(False)
    plain = gradients(model)
    switch(True)
    shared = gradients(model)
    assert plain.keys() == shared.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(shared[name], gradient, rtol=1e-10, atol=1e-13, msg=name)
    assert not any(module.uses for module in model.modules() if isinstance(module, Conv2d))


@pytest.mark.parametrize("arch", ["lab", "unet"])
def test_gradients_in_bf16_differ_by_rounding_alone(share, arch):
    model, switch = share(arch, torch.float32)
    exact = gradients(model)
    errors = {}
    for on in (False, True):
        switch(on)
        found = gradients(model, "bf16")
        errors[on] = sum((found[name] - exact[name]).square().sum() for name in exact)
    assert errors[True] < 1.5 * errors[False]


@pytest.mark.parametrize(("arch", "most"), [("lab", 0.75), ("unet", 0.9)])
def test_operators_are_fewer(share, arch, most):
    model, switch = share(arch, torch.float32)
    counts = []
    for on in (False, True):
        switch(on)
        counts.append(count_operators(lambda: gradients(model, length=16)))
    assert counts[1] < most * counts[0]


def test_nothing_is_shared_without_gradients_or_after_the_block():
    conv = Conv2d(3, 4, 3)
    with torch.no_grad(), shared_gradients(conv):
        assert conv.uses is None
    with pytest.raises(ZeroDivisionError), shared_gradients(conv):
        assert conv.uses is not None
        1 / 0  # noqa: B018
    assert conv.uses is None


def test_first_layer_of_the_decoder_is_that_of_all_inputs():
    fusion = VAE_Model(small_model(arch="unet")).double().Decoder_Fusion
    frame, first, pose, first_pose = (torch.rand(2, n, 6, 8, dtype=torch.float64) for n in (8, 8, 4, 4))
    conv, norm, act = fusion.enter[0]
    whole = act(norm(conv(torch.cat([frame, first, first_pose, pose], dim=1))))
    seen = []
    fusion.enter[1].register_forward_hook(lambda module, inputs, _: seen.append(inputs[0]))
    fusion(
        frame, pose, torch.zeros(2, 4, 3, 4, dtype=torch.float64), fusion.from_first_frame(first, first_pose)
    )
    torch.testing.assert_close(seen[0], whole)
