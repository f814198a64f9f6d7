import csv

import pytest
import torch

import Trainer
from tests.helpers import SMALL_UNET
from training import loss_scale
from training.loss_scale import FIRST, LossScale


def test_gradients_are_those_of_the_loss():
    weight = torch.nn.Parameter(torch.tensor([1e-3, 2.0]))
    unused = torch.nn.Parameter(torch.zeros(1))
    LossScale(torch.device("cpu")).backward((weight.square()).sum(), [weight, unused])
    torch.testing.assert_close(weight.grad, 2 * weight.detach())


def test_small_gradients_survive_fp16():
    weight = torch.nn.Parameter(torch.ones(1))
    for scaled in (False, True):
        weight.grad = None
        loss = (weight.half() * 1e-3).float() * 1e-6
        LossScale(torch.device("cpu")).backward(loss, [weight]) if scaled else loss.backward()
        assert bool(weight.grad > 0) == scaled


def test_scale_halves_after_a_failure_and_doubles_after_many_successes(monkeypatch):
    monkeypatch.setattr(loss_scale, "STEPS_TO_GROW", 3)
    scale, seen = LossScale(torch.device("cpu")), []
    for finite in (True, True, False, True, True, True, True, True, True, False):
        scale.update(torch.tensor(finite))
        seen.append(scale.scale.item() / FIRST)
    assert seen == [1, 1, 0.5, 0.5, 0.5, 1, 1, 1, 2, 1]


def test_training_in_fp16_learns_as_in_fp32(dataset, tmp_path):
    losses = {}
    for precision in ("fp32", "fp16"):
        folder = tmp_path / precision
        flags = [*SMALL_UNET, "--num_epoch=2", "--train_vi_len=4", "--device=cpu", f"--precision={precision}"]
        Trainer.main(["--DR", str(dataset), "--save_root", str(folder), *flags])
        with (folder / "history.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["skipped_steps"] for row in rows] == ["0", "0"]
        losses[precision] = [float(row["loss"]) for row in rows]
    assert losses["fp16"] == pytest.approx(losses["fp32"], rel=0.02) and losses["fp16"] != losses["fp32"]
