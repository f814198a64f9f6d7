from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from modules import VAE_Model
from runtime import device
from runtime.cli import UserError
from runtime.device import autocast, gpu_count, on_device, resolved_precision, select_device
from tests.helpers import small_model


@pytest.fixture
def machine(monkeypatch):
    """A machine with a number of GPUs that torch can use, seen by the process of a rank."""

    def with_gpus(available, local_rank=None, capability=(9, 0), ranks=2):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: available > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: available)
        monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _=None: "A GPU")
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_90a", "compute_120"])
        monkeypatch.setattr(device, "_has_nvidia_gpu", lambda: available > 0)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if local_rank is not None:
            monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
            monkeypatch.setenv("LOCAL_RANK", str(local_rank))
            monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))

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
    with pytest.raises(UserError, match="--device cuda:0: each process has a GPU of its own"):
        select_device(asked("cuda:0"))
    machine(2, local_rank=0, ranks=1)
    assert str(select_device(asked("cuda:1"))) == "cuda:1"
    machine(1, local_rank=1)
    with pytest.raises(UserError, match="process 1 of this machine"):
        select_device(asked())


@pytest.mark.parametrize(("available", "device"), [(0, "cuda"), (1, "cuda:1"), (0, "tpu"), (0, "meta")])
def test_device_that_is_not_there_is_refused(machine, available, device):
    machine(available)
    with pytest.raises(UserError, match=f"--device {device}"):
        select_device(asked(device))


def test_rank_of_another_program_than_torchrun_does_not_count(machine, monkeypatch):
    machine(1)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert str(select_device(asked())) == "cuda:0"


def test_process_that_sees_one_gpu_alone_uses_it(machine, monkeypatch):
    machine(1, local_rank=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert str(select_device(asked())) == "cuda:0"


@pytest.mark.parametrize("flag", [None, "cuda"])
def test_gpu_that_torch_cannot_use_is_not_passed_over(machine, monkeypatch, flag):
    machine(0)
    monkeypatch.setattr(device, "_has_nvidia_gpu", lambda: True)

    def refuse():
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040).\nUpdate it")

    monkeypatch.setattr(torch.cuda, "init", refuse)
    with pytest.raises(UserError, match=r"driver on your system is too old .*--device cpu") as refusal:
        select_device(asked(flag))
    assert "\n" not in str(refusal.value)
    assert str(select_device(asked("cpu"))) == str(select_device(asked(gpu=0))) == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the user hides it
    assert flag or str(select_device(asked(flag))) == "cpu"


def test_nvidia_gpu_is_found_by_its_tool(monkeypatch, tmp_path):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU 0: A GPU (UUID: 1)'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert device._has_nvidia_gpu() == Path("/dev/nvidia0").exists()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert device._has_nvidia_gpu()


@pytest.mark.parametrize(
    ("capability", "usable"),
    [((7, 5), True), ((8, 6), True), ((9, 0), True), ((12, 1), True), ((7, 0), False), ((6, 1), False),
     ((10, 0), False)],
)  # fmt: skip
def test_gpu_that_torch_has_no_code_for_is_refused(machine, capability, usable):
    machine(1, capability=capability)
    if usable:
        assert str(select_device(asked())) == "cuda:0"
        return
    words = rf"A GPU has compute capability {capability[0]}\.{capability[1]}.*sm_75.*--device cpu"
    with pytest.raises(UserError, match=words):
        select_device(asked())


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_precision_is_that_of_the_products(precision, dtype):
    with autocast(precision, torch.device("cpu")):
        assert torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype


def test_gpu_without_bf16_computes_in_fp16(machine, monkeypatch):
    machine(1)
    for has_bf16, precision in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has_bf16, **_: has)
        assert resolved_precision("auto", torch.device("cuda", 0)) == precision
    assert resolved_precision("fp32", torch.device("cuda", 0)) == "fp32"


@pytest.mark.parametrize(("capability", "order"), [((7, 5), "contiguous"), ((8, 0), "channels last")])
def test_old_gpus_have_no_channels_last(machine, capability, order):
    machine(1, capability=capability)
    orders = {torch.contiguous_format: "contiguous", torch.channels_last: "channels last"}
    moved = []
    model = SimpleNamespace(to=lambda device, memory_format: moved.append(orders[memory_format]))
    on_device(model, small_model(), torch.device("cuda", 0))
    assert moved == [order]


@pytest.mark.parametrize(("arch", "channels_last"), [("lab", True), ("unet", False)])
def test_weights_on_the_cpu_are_in_the_order_that_is_fast_for_the_architecture(arch, channels_last):
    args = small_model(arch=arch)
    model = on_device(VAE_Model(args), args, torch.device("cpu"))
    weights = [w for w in model.parameters() if w.ndim == 4 and min(w.shape[1:]) > 1]
    assert all(w.is_contiguous(memory_format=torch.channels_last) == channels_last for w in weights)
    assert all(w.is_contiguous() != channels_last for w in weights)
