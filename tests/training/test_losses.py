import math

import pytest
import torch

from training import losses
from training.meter import Meter


def make_posterior(batch=4, seed=0):
    """mu and logvar, `(B, 3, 4, 2, 2)`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, batch, 3, 4, 2, 2, generator=generator).unbind()


def test_kl_equals_that_of_torch_distributions():
    mu, logvar = make_posterior()
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(mu, (logvar / 2).exp()), normal(0.0, 1.0))
    torch.testing.assert_close(losses.kl_criterion(mu, logvar, 4), expected.sum() / 4)


def test_kl_is_the_mean_over_the_clips_with_z_from_the_posterior():
    mu, logvar = make_posterior()
    mask = torch.tensor([1.0, 0.0, 0.0, 1.0])
    kl = losses.kl(mu, logvar, mask, mask.mean(), 2.0)
    torch.testing.assert_close(kl, 2 * losses.kl_criterion(mu[[0, 3]], logvar[[0, 3]], 2))


def test_beta_1_on_the_elbo_scale_is_the_evidence_lower_bound():
    """The gradient is that of D / 2 * log MSE + KL per frame, with the optimal variance, up to a factor."""
    num_values, ones = 384, torch.ones(4)
    offset = torch.rand(4, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    mu, logvar = (tensor.requires_grad_() for tensor in make_posterior())
    inputs, frame_mse = (offset, mu, logvar), offset.square()
    scale = losses.kl_scale("elbo", frame_mse.detach(), num_values)
    loss = losses.reconstruction(frame_mse, frame_mse.detach(), "mse")
    loss = loss + losses.kl(mu, logvar, ones, ones.mean(), scale)
    mse = offset.square().mean()
    bound = num_values / 2 * mse.log() + losses.kl_criterion(mu, logvar, 4 * 3)
    factor = 3 * 2 * mse.item() / num_values  # three frames, divided by D / (2 MSE)
    found, expected = torch.autograd.grad(loss, inputs), torch.autograd.grad(bound, inputs)
    torch.testing.assert_close(found, tuple(factor * gradient for gradient in expected))


def test_log_mse_has_the_gradient_of_the_mean_psnr():
    frame_mse = torch.tensor([[0.004, 0.01, 0.02], [0.01, 0.03, 0.01]], requires_grad=True)
    loss = losses.reconstruction(frame_mse, frame_mse.detach(), "log_mse")
    (found,) = torch.autograd.grad(loss, frame_mse)
    (expected,) = torch.autograd.grad((10 * frame_mse.log10()).mean(), frame_mse)
    torch.testing.assert_close(found / found.norm(), expected / expected.norm(), rtol=1e-2, atol=0)


def test_log_mse_of_frames_without_an_error_is_bounded():
    frame_mse = torch.tensor([[0.0, 1e-9, 0.01]])
    loss = losses.reconstruction(frame_mse, frame_mse, "log_mse").item()
    assert 0 < loss <= losses.reconstruction(frame_mse, frame_mse, "mse").item()


@pytest.mark.parametrize("kind", ["mse", "log_mse"])
def test_losses_of_two_ranks_average_to_that_of_the_whole_batch(kind):
    frame_mse = 0.1 * torch.rand(4, 3, generator=torch.Generator().manual_seed(1))
    mu, logvar = make_posterior()
    mask = torch.tensor([1.0, 1.0, 0.0, 1.0])
    scale = losses.kl_scale("elbo", frame_mse, 384)

    def loss(part: slice) -> torch.Tensor:
        reconstruction = losses.reconstruction(frame_mse[part], frame_mse, kind)
        kl = losses.kl(mu[part], logvar[part], mask[part], mask.mean(), scale)
        return torch.stack([reconstruction, kl])

    halves = loss(slice(0, 2)), loss(slice(2, 4))
    torch.testing.assert_close(sum(halves) / 2, loss(slice(0, 4)))


def test_meter_sums_finite_updates_and_counts_the_others():
    meter = Meter(torch.device("cpu"))
    yes, no = torch.tensor(True), torch.tensor(False)
    for _ in range(3):
        meter.update(yes, *torch.tensor([2.0, 1.0, 0.5]))
    for num_skipped in (2, 4, 1):
        for _ in range(num_skipped):
            meter.update(no, *torch.tensor([math.nan, math.inf, 1.0]))
        meter.update(yes, *torch.zeros(3))
    expected = {"loss": 6, "mse": 3, "kl": 1.5, "steps": 6, "skipped": 7, "skipped_in_a_row": 4}
    assert meter.read() == expected
    assert meter.read() == dict.fromkeys(expected, 0) | {"skipped_in_a_row": 4}
