"""Files that are no good checkpoint: one line that names the file, before work is lost."""

import contextlib
import os
import pickle
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import Trainer
from runtime.cli import UserError
from tests.helpers import SMALL_UNET
from training import checkpoint, configuration, options
from training.checkpoint import load_for_inference

BIAS = "Generator.to_pixels.bias"
OF_VERSION_1 = {"format_version": 1, "args": {}, "state_dict": {"Decoder_Fusion.enter.0.0.weight": None}}


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
    for data in (flipped_bit, *cut, *arbitrary):
        path.write_bytes(data)
        assert_refused(checkpoint.read, path)
    path.write_text("version https://git-lfs.github.com/spec/v1")
    assert_refused(checkpoint.read, path, "not written by torch.save")
    torch.save({}, path, pickle_protocol=4)
    assert_refused(checkpoint.read, path, "pickle_protocol")


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
    assert_refused(checkpoint.read, tmp_path / "last.ckpt", r"may run code|not written by torch.save")
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
        (lambda content: content.pop("args"), "damaged: args is missing"),
        (lambda content: content.update(args=[1]), "damaged: args .* has the wrong type"),
        (lambda content: content.update(lr="fast"), "damaged: lr"),
        (lambda content: content.update(last_epoch=[3]), "damaged: last_epoch"),
        (lambda content: content.update(last_epoch=-7), "negative"),
        (lambda content: content.update(step="x"), "damaged: step"),
        (lambda content: content.update(history=[1]), "damaged: history"),
        (lambda content: content["history"].update(rows=5), "damaged: history"),
        (lambda content: content["history"].update(rows=[{"seconds": "long"}]), "damaged: history"),
        (lambda content: content["args"].update(F_dim="many"), "--F_dim many"),
        (lambda content: content["args"].update(tta=[3]), "--tta"),
        (lambda content: content["args"].update(frame_H=-8), "--frame_H -8"),
        (
            lambda content: content["args"].update(fill_poses=None),
            "--fill_poses None is not valid; give --fill_poses",
        ),
        (lambda content: content["args"].update(output=7), "--output 7"),
        (lambda content: content["args"].update(pose_background="paper"), "--pose_background paper"),
        (lambda content: content.update(OF_VERSION_1), "damaged"),
    ],
)
def test_entries_of_wrong_types_are_refused(unet_run, tmp_path, change, words):
    content = checkpoint.read(unet_run / "last.ckpt")
    change(content)
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=words):
        load_for_inference(tmp_path / "last.ckpt")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(
    args=st.dictionaries(
        st.sampled_from([*options.RECIPES["lab"], "recipe", "frame_H", "DR"]) | st.text(), VALUES
    )
)
def test_any_flags_of_a_checkpoint_are_used_or_refused(args):
    for groups in (options.TRAINER, options.TESTER):
        with contextlib.suppress(UserError):
            configuration.resolve(groups, {}, args)


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
