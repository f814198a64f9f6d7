import copy
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules import VAE_Model
from runtime.cuda_graph import Graphed
from tests.helpers import random_clips, random_uint8_clips, small_model
from tests.recorder import OnCPU
from tools.benchmarking.measure import count_operators
from training.step import TrainingStep, clip_loss, kl_criterion, load_optimizer, make_optimizer
from utils import to_float

FLAGS = {
    "optim": "Adam", "lr": 0.001, "weight_decay": 0.0, "precision": "fp32", "kl_reduction": "sum",
    "augment": "none", "mse_weights": "even", "z_dropout": 0.0, "pose_dropout": 0.0, "first_frame": "clip",
}  # fmt: skip


class Step:
    """A TrainingStep that is read after each update."""

    def __init__(self, model, args):
        self.inner = TrainingStep(model, make_optimizer(model, args), args)
        self.model, self.optimizer, self.lr = model, self.inner.optimizer, args.lr

    def __call__(self, frames, poses, beta, teacher_forcing):
        self.inner(frames, poses, lr=self.lr, beta=beta, teacher_forcing=teacher_forcing)
        return self.inner.read()

    def without_finite_gradient(self, frames, poses, value=math.nan):
        """An update whose loss and gradient are `value`."""
        handle = self.model.Generator.register_forward_hook(lambda _module, _inputs, output: output * value)
        self.inner(frames, poses, lr=self.lr, beta=1.0, teacher_forcing=True)
        handle.remove()


def make_step(model_flags=None, **flags):
    torch.manual_seed(0)
    model = VAE_Model(small_model(**(model_flags or {})))
    return model, Step(model, SimpleNamespace(**FLAGS | flags))


def noise_of_a_step(seed, batch=3, length=4):
    """What a step draws after torch.manual_seed."""
    torch.manual_seed(seed)
    return torch.randn(batch, length - 1, 4, 8, 16)


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
    clips = random_uint8_clips(batch=3, length=4)
    frames, poses = map(to_float, clips)
    model, step = make_step()
    predicted, mu, logvar = model.train()(frames, poses, False, noise_of_a_step(5))
    mse = sum(torch.nn.functional.mse_loss(predicted[:, t], frames[:, t + 1]) for t in range(3))
    kl = kl_criterion(mu, logvar, 3)
    torch.manual_seed(5)
    stats = step(*clips, beta=0.3, teacher_forcing=False)
    assert stats["mse"] == pytest.approx(mse.item(), rel=1e-4)
    assert stats["kl"] == pytest.approx(kl.item(), rel=1e-4)
    assert stats["loss"] == pytest.approx((mse + 0.3 * kl).item(), rel=1e-4)


def test_mean_reduction_divides_by_the_latents_of_a_picture():
    frames, poses = random_uint8_clips()
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
    clips = random_uint8_clips(batch=3, length=4)
    frames, poses = map(to_float, clips)
    model, step = make_step(kl_reduction="elbo")
    predicted, mu, logvar = model.train()(frames, poses, False, noise_of_a_step(1))
    mse = torch.nn.functional.mse_loss(predicted, frames[:, 1:])
    kl_of_a_frame = kl_criterion(mu, logvar, 3 * 3)
    values = frames[0, 0].numel()
    (values / 2 * mse.log() + kl_of_a_frame).backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    step.optimizer.step = lambda: None
    torch.manual_seed(1)
    step(*clips, 1.0, False)
    scale = 3 * 2 * mse.item() / values  # three frames, divided by D / (2 s^2)
    norm = torch.stack([gradient.norm() for gradient in expected]).norm() * scale
    clipped = min(1.0, 1.0 / norm.item())
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient * scale * clipped, rtol=1e-3, atol=1e-6)


def test_psnr_weights_give_the_gradient_of_the_mean_psnr():
    frames, _ = random_clips(batch=3, length=4)
    truth = frames[:, 1:]
    offsets = torch.tensor([0.06, 0.1, 0.16])[:, None, None, None, None] * torch.ones_like(truth)
    predicted = (truth + offsets).requires_grad_()
    zeros = torch.zeros(3, 3, 4, 8, 16)
    loss, mse, _ = clip_loss(predicted, truth, zeros, zeros, 0.0, "sum", "psnr")
    (gradient,) = torch.autograd.grad(loss, predicted)
    by_frame = (predicted - truth).square().mean(dim=(2, 3, 4))
    psnr = (-10 * by_frame.log10()).mean()
    (expected,) = torch.autograd.grad(-psnr, predicted)
    torch.testing.assert_close(gradient / gradient.norm(), expected / expected.norm(), rtol=1e-2, atol=1e-5)
    assert mse.item() == pytest.approx(3 * by_frame.mean().item(), rel=1e-5)


def test_a_frame_without_an_error_has_a_weight_of_five_at_most():
    truth = random_clips(batch=2, length=3)[0][:, 1:]
    offsets = torch.tensor([0.0, 0.1])[:, None, None, None, None]
    zeros = torch.zeros(2, 2, 4, 8, 16)
    loss, mse, _ = clip_loss(truth + offsets, truth, zeros, zeros, 0.0, "sum", "psnr")
    assert loss.item() < 5 * mse.item()
    loss, *_ = clip_loss(truth + 1e-4 * offsets, truth, zeros, zeros, 0.0, "sum", "psnr")
    assert math.isfinite(loss.item())


def test_clips_with_z_0_are_painted_as_in_generation_and_have_no_kl():
    clips = random_uint8_clips(batch=3, length=4)
    frames, poses = map(to_float, clips)
    model, step = make_step(z_dropout=1.0)
    painted = copy.deepcopy(model).generate(frames[:, 0], poses)
    # BatchNorm and its statistics differ between training and generation.
    model.eval()
    stats = step(*clips, beta=1.0, teacher_forcing=False)
    mse = sum(torch.nn.functional.mse_loss(painted[:, t], frames[:, t]) for t in range(1, 4))
    assert stats["loss"] == stats["mse"] == pytest.approx(mse.item(), rel=1e-4)
    assert stats["kl"] == 0
    assert all(not parameter.grad.any() for parameter in model.Gaussian_Predictor.parameters())


def test_kl_counts_for_the_clips_with_z_from_the_posterior():
    frames, poses = random_clips(batch=4, length=3)
    model, _ = make_step()
    noise = noise_of_a_step(0, batch=4, length=3)
    chosen = torch.tensor([1.0, 0.0, 0.0, 1.0])
    predicted, mu, logvar = model(frames, poses, True, noise, chosen)
    loss, mse, kl = clip_loss(predicted, frames[:, 1:], mu, logvar, 0.5, "sum", from_posterior=chosen)
    assert kl.item() == pytest.approx(kl_criterion(mu[[0, 3]], logvar[[0, 3]], 2).item(), rel=1e-5)
    assert loss.item() == pytest.approx((mse + 0.5 * kl / 2).item(), rel=1e-5)
    whole, *_ = model(frames, poses, True, noise)
    assert torch.equal(predicted[[0, 3]], whole[[0, 3]]) and not torch.equal(predicted, whole)


@pytest.mark.parametrize("optim", ["Adam", "AdamW", "Muon"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_loss_falls(optim, precision):
    frames, poses = random_uint8_clips()
    model, step = make_step(optim=optim, precision=precision, lr=0.003)
    assert type(step.optimizer).__name__ == optim
    losses = [step(frames, poses, 0.001, False)["mse"] for _ in range(40)]
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("optim", ["Adam", "Muon"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_update_that_is_not_finite_changes_nothing_and_is_counted(value, optim):
    frames, poses = random_uint8_clips()
    model, step = make_step(optim=optim)
    step(frames, poses, 1.0, True)
    before = copy.deepcopy([list(model.parameters()), step.optimizer.state_dict()["state"]])
    step.without_finite_gradient(frames, poses, value)
    stats = step.inner.read()
    assert (stats["steps"], stats["skipped"], stats["loss"]) == (0, 1, 0)
    after = [list(model.parameters()), step.optimizer.state_dict()["state"]]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    stats = step(frames, poses, 1.0, True)
    assert (stats["steps"], stats["skipped"]) == (1, 0) and math.isfinite(stats["loss"])
    assert step.inner.updates == 3


def test_read_returns_the_sums_since_the_last_read_without_skipped_updates():
    frames, poses = random_uint8_clips()
    _, read_each_time = make_step()
    _, read_once = make_step()
    torch.manual_seed(3)
    losses = [read_each_time(frames, poses, 0.5, False)["loss"] for _ in range(3)]
    torch.manual_seed(3)
    for _ in range(3):
        read_once.inner(frames, poses, lr=0.001, beta=0.5, teacher_forcing=False)
    read_once.without_finite_gradient(frames, poses)
    stats = read_once.inner.read()
    assert stats["loss"] == pytest.approx(sum(losses), rel=1e-5)
    assert (stats["steps"], stats["skipped"]) == (3, 1)


def test_longest_row_of_skipped_updates_is_reported():
    frames, poses = random_uint8_clips()
    _, step = make_step()
    for count in (2, 9, 1):
        for _ in range(count):
            step.without_finite_gradient(frames, poses)
        step.inner(frames, poses, lr=0.001, beta=1.0, teacher_forcing=True)
    stats = step.inner.read()
    assert (stats["skipped"], stats["skipped_in_a_row"]) == (12, 9)
    assert step.inner.read()["skipped_in_a_row"] == 9


def test_learning_rate_and_beta_are_those_of_the_step():
    frames, poses = random_uint8_clips()
    model, step = make_step()
    before = [parameter.clone() for parameter in model.parameters()]
    step.inner(frames, poses, lr=0.0, beta=1.0, teacher_forcing=False)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    step.inner.read()
    step.inner(frames, poses, lr=0.01, beta=0.0, teacher_forcing=False)
    stats = step.inner.read()
    assert stats["loss"] == stats["mse"]
    assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("augment", ["none", "turn,mirror"])
def test_graph_of_the_step_trains_as_the_step_does(augment):
    """The bookkeeping of graphs; what CUDA would replay is called instead."""
    losses, recorder = [], OnCPU()
    for graphed in (False, True):
        _, step = make_step(augment=augment)
        if graphed:
            step.inner._update = Graphed(step.inner._compute, recorder)
        torch.manual_seed(2)
        clips = [random_uint8_clips(seed=i % 3) for i in range(8)]
        losses.append([step(*clip, 0.1, forced)["loss"] for clip in clips for forced in (True, False)])
    assert losses[0] == losses[1]
    assert recorder.replayed == 2 * (8 - 3)


@pytest.mark.parametrize("optim", ["Adam", "AdamW"])
def test_optimizer_goes_on_from_one_that_was_not_fused(optim):
    """Checkpoints of former versions, and those of the other kind of device."""
    clips = random_uint8_clips()
    frames, poses = map(to_float, clips)
    model, step = make_step(optim=optim)
    plain = getattr(torch.optim, optim)(model.parameters(), lr=0.002, foreach=False)
    model(frames, poses, True, noise_of_a_step(0, 2, 5))[0].sum().backward()
    plain.step()
    load_optimizer(step.optimizer, copy.deepcopy(plain.state_dict()))
    (group,) = step.optimizer.param_groups
    assert group["fused"] and group["lr"] == 0.001
    assert math.isfinite(step(*clips, 1.0, False)["loss"])
    assert {state["step"].item() for state in step.optimizer.state.values()} == {2.0}


@pytest.mark.parametrize(("teacher_forcing", "most"), [(False, 7400), (True, 700)])
def test_step_of_16_frames_of_the_lab_architecture_is_few_operators(teacher_forcing, most):
    """Every time step of a teacher-forced clip is one; encoders of true frames and poses always are."""
    _, step = make_step()
    clips = random_uint8_clips(length=16)
    step(*clips, 1.0, teacher_forcing)
    assert 100 < count_operators(lambda: step(*clips, 1.0, teacher_forcing)) < most


@pytest.mark.parametrize("output", ["linear", "sigmoid"])
def test_run_stays_finite_with_beta_zero_cyclical_annealing_and_teacher_forcing(output):
    """The setting in which the loss of the course lab became NaN: beta 0 leaves the variance free."""
    _, step = make_step({"output": output})
    for index in range(120):
        frames, poses = random_uint8_clips(seed=index % 3)
        stats = step(frames, poses, beta=(index % 40) / 40, teacher_forcing=True)
        assert math.isfinite(stats["loss"]) and not stats["skipped"]
