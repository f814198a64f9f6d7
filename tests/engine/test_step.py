import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.console import UserError
from engine.step import TrainingStep, kl_criterion, make_optimizer
from modules import VAE_Model
from tests.helpers import random_clips, small_model


def make_step(**flags):
    args = SimpleNamespace(
        **{"optim": "Adam", "lr": 0.001, "precision": "fp32", "kl_reduction": "sum"} | flags
    )
    torch.manual_seed(0)
    model = VAE_Model(small_model())
    return model, TrainingStep(model, make_optimizer(model, args), args)


@settings(max_examples=25, deadline=None)
@given(mu=st.floats(-3, 3), logvar=st.floats(-5, 3), batch=st.integers(1, 4))
def test_kl_is_that_of_torch_s_distributions(mu, logvar, batch):
    normal = torch.distributions.Normal
    mus, logvars = torch.full((batch, 3, 2, 2), mu), torch.full((batch, 3, 2, 2), logvar)
    expected = torch.distributions.kl_divergence(normal(mus, (logvars / 2).exp()), normal(0.0, 1.0))
    torch.testing.assert_close(
        kl_criterion(mus, logvars, batch), expected.sum() / batch, rtol=1e-4, atol=1e-4
    )


def test_loss_is_mse_summed_over_time_and_beta_times_kl():
    frames, poses = random_clips(batch=3, length=4)
    model, step = make_step()
    torch.manual_seed(5)
    predicted, mu, logvar = model.train()(frames, poses, False)
    mse = sum(torch.nn.functional.mse_loss(predicted[:, t], frames[:, t + 1]) for t in range(3))
    kl = kl_criterion(mu, logvar, 3)
    torch.manual_seed(5)
    stats = step(frames, poses, beta=0.3, teacher_forcing=False)
    assert stats["mse"] == pytest.approx(mse.item(), rel=1e-4)
    assert stats["kl"] == pytest.approx(kl.item(), rel=1e-4)
    assert stats["loss"] == pytest.approx((mse + 0.3 * kl).item(), rel=1e-4)


def test_mean_reduction_divides_by_the_latents_of_a_picture():
    frames, poses = random_clips()
    torch.manual_seed(0)
    _, summed = make_step()
    _, averaged = make_step(kl_reduction="mean")
    torch.manual_seed(1)
    kl_sum = summed(frames, poses, 1.0, False)["kl"]
    torch.manual_seed(1)
    kl_mean = averaged(frames, poses, 1.0, False)["kl"]
    assert kl_mean == pytest.approx(kl_sum / (4 * 8 * 16), rel=1e-4)


def test_elbo_reduction_is_the_bound_of_a_decoder_with_the_best_variance():
    """Its gradient is that of D / 2 * log MSE + KL for a frame, up to a factor."""
    frames, poses = random_clips(batch=3, length=4)
    model, step = make_step(kl_reduction="elbo")
    torch.manual_seed(1)
    predicted, mu, logvar = model.train()(frames, poses, False)
    mse = torch.nn.functional.mse_loss(predicted, frames[:, 1:])
    kl_of_a_frame = kl_criterion(mu, logvar, 3 * 3)
    values = frames[0, 0].numel()
    (values / 2 * mse.log() + kl_of_a_frame).backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    step.optimizer.step = lambda: None
    torch.manual_seed(1)
    step(frames, poses, 1.0, False)
    scale = 3 * 2 * mse.item() / values  # three frames, divided by D / (2 s^2)
    norm = torch.stack([gradient.norm() for gradient in expected]).norm() * scale
    clipped = min(1.0, 1.0 / norm.item())
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient * scale * clipped, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("optim", ["Adam", "AdamW"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_loss_falls(optim, precision):
    frames, poses = random_clips()
    model, step = make_step(optim=optim, precision=precision, lr=0.003)
    assert type(step.optimizer).__name__ == optim
    losses = [step(frames, poses, 0.001, False)["mse"] for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_update_that_is_not_finite_changes_nothing_and_is_counted(value):
    frames, poses = random_clips()
    model, step = make_step()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    assert step(frames * value, poses, 1.0, True) is None
    assert all(torch.equal(before[name], parameter) for name, parameter in model.named_parameters())
    assert step.skipped == 1
    assert step(frames, poses, 1.0, True) is not None


def test_ten_skipped_updates_in_a_row_end_the_run_nine_do_not():
    frames, poses = random_clips()
    _, step = make_step()
    for bad in [math.nan] * 9 + [1.0] + [math.nan] * 9:
        step(frames * bad, poses, 1.0, True)
    with pytest.raises(UserError, match="diverged"):
        step(frames * math.nan, poses, 1.0, True)
    assert step.skipped == 19


@pytest.mark.parametrize("output", ["linear", "sigmoid"])
def test_run_stays_finite_with_beta_zero_cyclical_annealing_and_teacher_forcing(output):
    """The setting in which the lab's loss became NaN: beta 0 leaves the posterior's variance free."""
    torch.manual_seed(0)
    args = SimpleNamespace(optim="Adam", lr=0.001, precision="fp32", kl_reduction="sum")
    model = VAE_Model(small_model(output=output))
    step = TrainingStep(model, make_optimizer(model, args), args)
    for index in range(120):
        frames, poses = random_clips(seed=index % 3)
        stats = step(frames, poses, beta=(index % 40) / 40, teacher_forcing=True)
        assert stats is not None and math.isfinite(stats["loss"])
