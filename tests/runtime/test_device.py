import os
from types import SimpleNamespace

import pytest
import torch

from modules import VAE_Model
from runtime import device
from runtime.cli import UserError
from runtime.device import num_gpus, resolve_precision, select_device, set_threads, to_device
from tests.helpers import small_model

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def machine(monkeypatch):
    """A machine with a number of GPUs that torch can use, seen by the process of a rank."""

    def with_gpus(available, local_rank=None, ranks=2, has_driver=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: available > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: available)
        monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _=None: "A GPU")
        monkeypatch.setattr(torch, "ones", lambda *_, **__: None)
        monkeypatch.setattr(device, "Path", lambda _: SimpleNamespace(exists=lambda: has_driver))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if local_rank is not None:
            monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
            monkeypatch.setenv("LOCAL_RANK", str(local_rank))
            monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))

    return with_gpus


def test_cuda_is_the_default_where_there_is_one(machine, capsys):
    machine(2)
    assert select_device(None, gpu=1) == GPU
    assert select_device(None, gpu=0) == CPU, "--gpu 0"
    machine(0)
    assert select_device(None, gpu=1) == CPU
    assert "no CUDA devices: running on the CPU" in capsys.readouterr().out


def test_number_of_gpus_is_what_is_asked_for_and_at_most_what_there_is(machine, capsys):
    machine(4)
    assert num_gpus(None, 3) == 3
    assert capsys.readouterr().out == ""
    machine(2)
    assert num_gpus(None, 3) == 2
    assert "--gpu 3: 2 found, using 2" in capsys.readouterr().out
    assert num_gpus("cuda", 2) == 2
    assert num_gpus("cuda:1", 1) == num_gpus("cpu", 2) == 1
    with pytest.raises(UserError, match="--device cuda:1 is one GPU; use --device cuda with --gpu 2"):
        num_gpus("cuda:1", 2)
    machine(0)
    assert num_gpus(None, 2) == 1


def test_named_device_is_used_else_each_process_has_its_own(machine):
    machine(2, local_rank=1)
    assert select_device(None, 1) == select_device("cuda", 1) == torch.device("cuda", 1)
    assert select_device("cpu", 1) == CPU
    with pytest.raises(UserError, match="--device cuda:0: each process uses its own GPU"):
        select_device("cuda:0", 1)
    machine(2, local_rank=0, ranks=1)
    assert select_device("cuda:1", 1) == torch.device("cuda", 1)
    machine(1, local_rank=1)
    with pytest.raises(UserError, match="no GPU for local rank 1"):
        select_device(None, 1)


@pytest.mark.parametrize(("available", "name"), [(0, "cuda"), (1, "cuda:1"), (0, "tpu"), (0, "meta")])
def test_device_that_is_not_there_is_refused(machine, available, name):
    machine(available)
    with pytest.raises(UserError, match=f"--device {name}"):
        select_device(name, 1)


def test_apple_gpu_is_used_only_if_it_is_named_and_in_fp32(machine, monkeypatch):
    machine(0)
    with pytest.raises(UserError, match="--device mps: torch reports no Apple GPU"):
        select_device("mps", 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    mps = torch.device("mps")
    assert select_device("mps", 1) == mps and select_device(None, 1) == CPU
    assert num_gpus("mps", 2) == 1
    assert resolve_precision("auto", mps) == "fp32"
    with device.autocast("auto", mps):
        assert not torch.is_autocast_enabled("mps")


def test_process_that_sees_only_one_gpu_uses_it(machine, monkeypatch):
    machine(1, local_rank=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert select_device(None, 1) == GPU
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")  # LOCAL_RANK is of another program than torchrun
    assert select_device(None, 1) == GPU


@pytest.mark.parametrize("name", [None, "cuda"])
def test_gpu_that_torch_cannot_use_is_not_passed_over(machine, monkeypatch, name):
    machine(0, has_driver=True)

    def refuse(*_, **__):
        raise RuntimeError("The NVIDIA driver on your system is too old.\nUpdate it")

    monkeypatch.setattr(torch.cuda, "init", refuse)
    with pytest.raises(UserError, match=r"driver on your system is too old\.\).*--device cpu"):
        select_device(name, 1)
    assert select_device("cpu", 1) == select_device(None, 0) == CPU
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the user hides it
    assert name or select_device(name, 1) == CPU
    machine(1)
    monkeypatch.setattr(torch, "ones", refuse)  # torch has no code for this GPU
    with pytest.raises(UserError, match=r"cannot use the A GPU \(.* too old\.\).*--device cpu"):
        select_device(name, 1)


def test_precision_is_bf16_where_the_gpu_has_it(monkeypatch):
    for has_bf16, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has_bf16, **_: has)
        assert resolve_precision("auto", GPU) == precision


@pytest.mark.parametrize(
    ("arch", "capability", "memory_format"),
    [
        ("lab", (7, 5), torch.contiguous_format),
        ("lab", (8, 0), torch.channels_last),
        ("unet", (8, 0), torch.contiguous_format),
    ],
)
def test_lab_is_channels_last_except_on_old_gpus(monkeypatch, arch, capability, memory_format):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    model = SimpleNamespace(to=lambda device, memory_format: memory_format)
    assert to_device(model, arch, GPU) == memory_format


@pytest.mark.parametrize(("arch", "is_channels_last"), [("lab", True), ("unet", False)])
def test_weights_on_the_cpu_are_in_the_format_that_is_fast_for_the_architecture(arch, is_channels_last):
    model = to_device(VAE_Model(small_model(arch=arch)), arch, CPU)
    weights = [w for w in model.parameters() if w.ndim == 4 and min(w.shape[1:]) > 1]
    assert all(w.is_contiguous(memory_format=torch.channels_last) == is_channels_last for w in weights)
    assert all(w.is_contiguous() != is_channels_last for w in weights)


@pytest.mark.parametrize(
    ("wanted", "load", "expected"),
    [(None, 0.9, 4), (None, 1.2, 3), (None, 9.0, 1), (3, 9.0, 3), (6, 0.0, 6)],
)
def test_threads_are_the_cores_that_are_free_unless_a_number_is_given(monkeypatch, wanted, load, expected):
    monkeypatch.setattr(device, "num_cores", lambda: 4)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    torch.set_num_threads(4)
    try:
        set_threads(wanted)
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(1)
