import os
import pickle

import pytest
import torch

from modules import VAE_Model
from runtime.cli import UserError
from tests.helpers import small_model
from training import checkpoint


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "a.ckpt"
    content = {"state_dict": {"w": torch.randn(3)}, "history": {"rows": [{"a": 1.5}]}}
    checkpoint.write(path, content)
    loaded = checkpoint.read(path)
    assert torch.equal(loaded["state_dict"]["w"], content["state_dict"]["w"])
    assert loaded["history"] == content["history"]
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]


def test_failed_save_keeps_the_old_checkpoint_and_leaves_no_debris(tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    checkpoint.write(path, {"state_dict": {}, "last_epoch": 1})

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError, match="No space left"):
        checkpoint.write(path, {"state_dict": {}, "last_epoch": 2})
    assert checkpoint.read(path)["last_epoch"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.ckpt"]


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_never_run(tmp_path, writer):
    path, trap = tmp_path / "evil.ckpt", tmp_path / "trap"
    content = {"state_dict": Payload(str(trap))}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match="not loaded"):
        checkpoint.read(path)
    assert not trap.exists()


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated", "folder", "tensor", "newer"])
def test_what_is_no_checkpoint_is_refused(tmp_path, damage):
    path = tmp_path / "a.ckpt"
    if damage == "folder":
        path.mkdir()
    elif damage == "tensor":
        torch.save(torch.zeros(3), path)
    elif damage == "newer":
        torch.save({"state_dict": {}, "format_version": 99}, path)
    elif damage != "missing":
        torch.save({"state_dict": {"w": torch.zeros(999)}}, path)
        whole = path.read_bytes()
        path.write_bytes({"empty": b"", "text": b"hello", "truncated": whole[: len(whole) // 2]}[damage])
    with pytest.raises(UserError, match=r"a\.ckpt"):
        checkpoint.read(path)


def test_weights_of_other_sizes_are_named(tmp_path):
    content = {"state_dict": VAE_Model(small_model(F_dim=16)).state_dict()}
    with pytest.raises(UserError, match=r"frame_transformation.*--F_dim"):
        checkpoint.load_weights(VAE_Model(small_model()), tmp_path / "a.ckpt", content)


def test_weights_with_other_names_are_named(tmp_path):
    weights = VAE_Model(small_model()).state_dict()
    del weights["Generator.7.bias"]
    with pytest.raises(UserError, match=r"lacks Generator.7.bias"):
        checkpoint.load_weights(VAE_Model(small_model()), tmp_path / "a.ckpt", {"state_dict": weights})


def test_flags_that_contradict_the_checkpoint_are_refused(tmp_path):
    content = {"state_dict": {}, "args": {"F_dim": 16}}
    checkpoint.check_model_flags(tmp_path, content, {"F_dim": 16, "lr": 3})
    with pytest.raises(UserError, match="--F_dim 16"):
        checkpoint.check_model_flags(tmp_path, content, {"F_dim": 8})


def test_random_generators_are_restored():
    device = torch.device("cpu")
    state = checkpoint.rng_state(device)
    first = torch.randn(5)
    checkpoint.restore_rng(state, device)
    assert torch.equal(first, torch.randn(5))
