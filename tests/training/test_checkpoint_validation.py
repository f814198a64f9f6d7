"""Files that are no good checkpoint: one line that names the file, before work is lost."""

import os
import pickle
import random

import pytest
import torch

import Trainer
from runtime.cli import UserError
from tests.helpers import SMALL_UNET
from training import checkpoint
from training.checkpoint import load_for_inference

BIAS = "Generator.to_pixels.bias"


def assert_refused(function, path, words=None):
    with pytest.raises(UserError, match=words) as refusal:
        function(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_damaged_file_is_refused(unet_run, tmp_path):
    path, whole = tmp_path / "last.ckpt", (unet_run / "last.ckpt").read_bytes()
    bias = checkpoint.read(unet_run / "last.ckpt")["state_dict"][BIAS]
    flipped_bit = bytearray(whole)
    flipped_bit[whole.index(bias.numpy().tobytes())] ^= 1
    cut = [whole[:length] for length in range(0, len(whole), len(whole) // 8)]
    arbitrary = [random.Random(seed).randbytes(200) for seed in range(20)]
    for data in (flipped_bit, *cut, *arbitrary, b"hello"):
        path.write_bytes(data)
        assert_refused(checkpoint.read, path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.zeros(3), "not a checkpoint"),
        ({}, "not a checkpoint"),
        ({"state_dict": {}, "format_version": 99}, "newer"),
    ],
)
def test_foreign_file_is_refused(tmp_path, content, words):
    assert_refused(checkpoint.read, tmp_path / "missing.ckpt", "no such")
    torch.save(content, tmp_path / "last.ckpt")
    assert_refused(checkpoint.read, tmp_path / "last.ckpt", words)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize(
    "writer", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))]
)
def test_code_in_a_checkpoint_is_never_run(tmp_path, writer):
    writer({"state_dict": Payload(str(tmp_path / "trap"))}, tmp_path / "last.ckpt")
    assert_refused(checkpoint.read, tmp_path / "last.ckpt", "may run code")
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.pop(BIAS), f"lacks {BIAS}"),
        (lambda weights: weights.update(other=torch.zeros(1)), "unknown other"),
        (lambda weights: weights.update({BIAS: torch.zeros(3)}), f"{BIAS}.*sizes of the networks"),
        (lambda weights: weights.update({BIAS: weights[BIAS].int()}), f"{BIAS}.*float32"),
        (lambda weights: weights[BIAS].fill_(float("nan")), f"{BIAS}.*diverged"),
        (lambda weights: weights[BIAS].fill_(3e5), f"{BIAS}.*diverged"),
    ],
)
def test_weights_that_do_not_fit_or_have_diverged_are_refused(unet_run, tmp_path, change, words):
    content = checkpoint.read(unet_run / "last.ckpt")
    change(content["state_dict"])
    torch.save(content, tmp_path / "last.ckpt")
    assert_refused(load_for_inference, tmp_path / "last.ckpt", words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content["optimizer"]["state"][0].update(momentum=torch.zeros(1)), "parameter 0 "),
        (lambda content: content["optimizer"]["state"][1].pop("exp_avg_sq"), "parameter 1 "),
        (lambda content: content["optimizer"].update(param_groups=[]), "param_groups"),
        (lambda content: content.pop("optimizer"), "optimizer"),
        (lambda content: content.pop("history"), "history"),
        (lambda content: content.pop("step"), "step"),
        (lambda content: content["rng"].update(cpu=torch.zeros(3, dtype=torch.uint8)), "cannot be restored"),
    ],
)
def test_state_of_a_run_that_cannot_be_restored_is_refused(unet_run, dataset, tmp_path, change, words):
    content = checkpoint.read(unet_run / "last.ckpt")
    change(content)
    torch.save(content, tmp_path / "last.ckpt")

    def resume(path):
        args = ["--DR", str(dataset), "--save_root", str(path.parent), "--resume", "--num_epoch=3"]
        Trainer.main([*args, "--device=cpu"])

    assert_refused(resume, tmp_path / "last.ckpt", words)


def test_diverged_run_says_so_and_writes_no_checkpoint(dataset, tmp_path, no_images):
    flags = [*SMALL_UNET, "--device=cpu", "--lr=1e38", "--lr_warmup=0", "--num_epoch=2"]
    with pytest.raises(UserError, match="diverged"):
        Trainer.main(["--DR", str(dataset), "--save_root", str(tmp_path), *flags])
    assert not list(tmp_path.glob("*.ckpt"))
