import copy
import math

import pytest
import torch

import Trainer
from dataloader import ClipBatch
from tests.helpers import SMALL_RUN, random_uint8_clips
from tests.recorder import OnCPU
from training import configuration
from training.losses import kl_criterion
from utils import to_float


@pytest.fixture
def make_run(dataset, tmp_path):
    """A function that builds a `Run` of small networks, with flags."""

    def make(*flags):
        argv = ["--DR", str(dataset), "--save_root", str(tmp_path), *SMALL_RUN, "--threads=1", *flags]
        return Trainer.Run(configuration.trainer_args(argv), None)

    return make


def random_batch(**settings):
    return ClipBatch(*random_uint8_clips(**settings))


def step(run, batch, beta=1.0, teacher_forcing=False):
    """The statistics of one update."""
    run.update(batch, torch.tensor(beta), teacher_forcing=teacher_forcing)
    return run.meter.read()


@pytest.mark.parametrize("z_dropout", [0.0, 0.5])
def test_loss_is_mse_summed_over_time_plus_beta_times_kl(make_run, z_dropout):
    run, batch = make_run(f"--z_dropout={z_dropout}"), random_batch(batch=3, length=4)
    frames, poses = to_float(batch.frames), to_float(batch.poses)
    torch.manual_seed(5)
    noise, mask = torch.randn(3, 3, 4, 8, 16), (torch.rand(3) >= z_dropout).float()
    predicted, mu, logvar = run.model(frames, poses, False, noise, mask)
    mse = 3 * torch.nn.functional.mse_loss(predicted, frames[:, 1:])
    kl = kl_criterion(mu[mask > 0], logvar[mask > 0], 3)  # 0 in the other clips
    torch.manual_seed(5)
    stats = step(run, batch, beta=0.3)
    assert stats["mse"] == pytest.approx(mse.item(), rel=1e-4)
    assert stats["kl"] == pytest.approx((kl / mask.mean()).item(), rel=1e-4)
    assert stats["loss"] == pytest.approx((mse + 0.3 * kl).item(), rel=1e-4)


def test_clips_with_z_0_are_predicted_as_in_generation_and_have_no_kl(make_run):
    run, batch = make_run("--z_dropout=1"), random_batch(batch=3, length=4)
    frames, poses = to_float(batch.frames), to_float(batch.poses)
    video = run.model.generate(frames[:, 0], poses)
    run.model.eval()  # BatchNorm differs between training and generation
    stats = step(run, batch)
    mse = 3 * torch.nn.functional.mse_loss(video[:, 1:], frames[:, 1:])
    assert stats["loss"] == stats["mse"] == pytest.approx(mse.item(), rel=1e-4)
    assert stats["kl"] == 0
    assert all(not parameter.grad.any() for parameter in run.model.Gaussian_Predictor.parameters())


@pytest.mark.parametrize(("optim", "precision"), [("Adam", "fp32"), ("AdamW", "bf16"), ("Muon", "bf16")])
def test_loss_falls(make_run, optim, precision):
    run, batch = make_run(f"--optim={optim}", f"--precision={precision}", "--lr=0.003"), random_batch()
    values = [step(run, batch, beta=0.001)["mse"] for _ in range(20)]
    assert values[-1] < 0.7 * values[0]
    assert all(parameter.dtype == torch.float32 for parameter in run.model.parameters())


@pytest.mark.parametrize(("optim", "value"), [("Adam", math.nan), ("Muon", math.inf)])
def test_update_that_is_not_finite_changes_nothing_and_is_counted(make_run, optim, value):
    run, batch = make_run(f"--optim={optim}"), random_batch()
    step(run, batch)
    before = copy.deepcopy([list(run.model.parameters()), run.optimizer.state_dict()["state"]])
    handle = run.model.Generator.register_forward_hook(lambda _module, _inputs, output: output * value)
    stats = step(run, batch)
    handle.remove()
    assert (stats["steps"], stats["skipped"], stats["loss"]) == (0, 1, 0)
    after = [list(run.model.parameters()), run.optimizer.state_dict()["state"]]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    stats = step(run, batch)
    assert (stats["steps"], stats["skipped"]) == (1, 0) and math.isfinite(stats["loss"])


def test_graph_of_the_step_trains_as_the_step_does(make_run):
    """The bookkeeping of graphs; what CUDA would replay is called instead."""
    values, num_steps = [], 4
    background = torch.full((2, 8, 16, 4), 255, dtype=torch.uint8)
    batches = [random_batch(seed=seed)._replace(background=background) for seed in range(num_steps)]
    for is_graphed in (False, True):
        run = make_run("--augment=affine,copy_paste")
        if is_graphed:
            run.update = OnCPU(run.training_step)
        torch.manual_seed(2)
        values.append([step(run, batch, 0.1, forced) for batch in batches for forced in (True, False)])
    assert values[0] == values[1]
    assert run.update.replayed == 2 * (num_steps - 1)
