from types import SimpleNamespace

import pytest
import torch

from engine.console import UserError
from engine.device import autocast, select_devices


def devices(monkeypatch, available, device=None, gpu=1):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: available)
    return [str(one) for one in select_devices(SimpleNamespace(device=device, gpu=gpu))]


def test_cuda_is_the_default_where_there_is_one(monkeypatch, capsys):
    assert devices(monkeypatch, 2) == ["cuda:0"]
    assert devices(monkeypatch, 0) == ["cpu"]
    assert "no CUDA device found: running on the CPU" in capsys.readouterr().out


def test_number_of_gpus_is_what_is_asked_for_and_at_most_what_there_is(monkeypatch, capsys):
    assert devices(monkeypatch, 4, gpu=3) == ["cuda:0", "cuda:1", "cuda:2"]
    assert capsys.readouterr().out == ""
    assert devices(monkeypatch, 2, gpu=3) == ["cuda:0", "cuda:1"]
    assert "--gpu 3: 2 found, using 2" in capsys.readouterr().out
    assert devices(monkeypatch, 2, gpu=0) == ["cpu"]


def test_named_device_is_used(monkeypatch):
    assert devices(monkeypatch, 2, "cpu") == ["cpu"]
    assert devices(monkeypatch, 2, "cuda:1", gpu=2) == ["cuda:1"]
    assert devices(monkeypatch, 2, "cuda", gpu=2) == ["cuda:0", "cuda:1"]


@pytest.mark.parametrize(("available", "device"), [(0, "cuda"), (1, "cuda:1"), (0, "tpu"), (0, "meta")])
def test_device_that_is_not_there_is_refused(monkeypatch, available, device):
    with pytest.raises(UserError, match=f"--device {device}"):
        devices(monkeypatch, available, device)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_that_of_the_products(precision, dtype):
    with autocast(precision, torch.device("cpu")):
        assert torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype
