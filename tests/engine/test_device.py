from types import SimpleNamespace

import pytest
import torch

from engine.console import UserError
from engine.device import autocast, gpu_count, on_device, select_device
from modules import VAE_Model
from tests.helpers import small_model


@pytest.fixture
def machine(monkeypatch):
    """A machine with a number of GPUs, seen by the process of a rank."""

    def with_gpus(available, local_rank=0):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: available > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: available)
        monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
        monkeypatch.setenv("LOCAL_RANK", str(local_rank))

    return with_gpus


def asked(device=None, gpu=1):
    return SimpleNamespace(device=device, gpu=gpu)


def test_cuda_is_the_default_where_there_is_one(machine, capsys):
    machine(2)
    assert str(select_device(asked())) == "cuda:0"
    assert str(select_device(asked(gpu=0))) == "cpu"
    machine(0)
    assert str(select_device(asked())) == "cpu"
    assert "no CUDA device found: running on the CPU" in capsys.readouterr().out


def test_number_of_gpus_is_what_is_asked_for_and_at_most_what_there_is(machine, capsys):
    machine(4)
    assert gpu_count(asked(gpu=3)) == 3
    assert capsys.readouterr().out == ""
    machine(2)
    assert gpu_count(asked(gpu=3)) == 2
    assert "--gpu 3: 2 found, using 2" in capsys.readouterr().out
    assert gpu_count(asked("cuda", gpu=2)) == 2
    assert gpu_count(asked("cuda:1", gpu=2)) == gpu_count(asked("cpu", gpu=2)) == 1
    machine(0)
    assert gpu_count(asked(gpu=2)) == 1


def test_named_device_is_used_else_each_process_has_its_own(machine):
    machine(2, local_rank=1)
    assert str(select_device(asked())) == str(select_device(asked("cuda"))) == "cuda:1"
    assert str(select_device(asked("cpu"))) == "cpu"
    assert str(select_device(asked("cuda:0"))) == "cuda:0"
    machine(1, local_rank=1)
    with pytest.raises(UserError, match="process 1 of this machine"):
        select_device(asked())


@pytest.mark.parametrize(("available", "device"), [(0, "cuda"), (1, "cuda:1"), (0, "tpu"), (0, "meta")])
def test_device_that_is_not_there_is_refused(machine, available, device):
    machine(available)
    with pytest.raises(UserError, match=f"--device {device}"):
        select_device(asked(device))


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_is_that_of_the_products(precision, dtype):
    with autocast(precision, torch.device("cpu")):
        assert torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype


@pytest.mark.parametrize(("arch", "channels_last"), [("lab", True), ("unet", False)])
def test_weights_on_the_cpu_are_in_the_order_that_is_fast_for_the_architecture(arch, channels_last):
    args = small_model(arch=arch)
    model = on_device(VAE_Model(args), args, torch.device("cpu"))
    weights = [w for w in model.parameters() if w.ndim == 4 and min(w.shape[1:]) > 1]
    assert all(w.is_contiguous(memory_format=torch.channels_last) == channels_last for w in weights)
    assert all(w.is_contiguous() != channels_last for w in weights)
