"""Checkpoints of the course as students save them: they load and render as the model that was saved."""

import argparse
import collections
import copy
import datetime
import pathlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import Trainer
from modules import VAE_Model
from runtime.cli import UserError
from tests.helpers import SIZES, random_clips, small_model
from training import course_checkpoint
from training.checkpoint import load_for_inference

FLAGS = SIZES | {"DR": "data", "save_root": pathlib.Path("ckpt"), "lr": 0.001, "frame_H": 8, "frame_W": 16}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return VAE_Model(small_model()).eval()


def plain(model):
    weights = model.state_dict()
    return {"state_dict": weights, "optimizer": weights, "lr": 0.001, "tfr": 0.5, "last_epoch": 3}


def prefixed(prefix, weights, network=""):
    return {prefix + key if key.startswith(network) else key: value for key, value in weights.items()}


def by_network(weights):
    return {
        name: {key.removeprefix(f"{name}."): weights[key] for key in weights if key.startswith(name)}
        for name in course_checkpoint.NETWORKS
    }


def on_one_network(wrapper, weights):
    return {key.replace("Generator.", f"Generator.{wrapper}."): value for key, value in weights.items()}


def is_video_of(model, path):
    loaded, config = load_for_inference(path)
    assert (config.arch, config.z, config.tta, config.precision) == ("lab", "mean", 1, "fp32")
    assert {name: getattr(config, name) for name in SIZES} == SIZES
    frames, poses = random_clips(batch=1, length=3)
    videos = [network.generate(frames[:, 0], poses) for network in (loaded, model)]
    torch.testing.assert_close(*videos, rtol=0.02, atol=0.02)
    return config


def zero(weights):
    return {key: 0 * value for key, value in weights.items()}


NORM = "label_transformation.2"
LOG = [
    collections.defaultdict(float, a=1.0), collections.deque([1]), datetime.datetime(2026, 1, 2, 3),
    datetime.timedelta(1), np.array(["a"]), np.datetime64("2026-01-02"), {1, 2}, frozenset([1]),
]  # fmt: skip
EXTRA = sorted(f"extra{i}" for i in range(12))
BARE = "weights without a prefix"
OTHER = {"lpips.net.0.weight": torch.zeros(3)}


@pytest.mark.parametrize(
    "change",
    [
        lambda c, w: c | {"args": argparse.Namespace(**FLAGS)},
        lambda c, w: c | {"args": FLAGS},
        lambda c, w: c | {"args": SimpleNamespace(**FLAGS)},
        lambda c, w: c | {"lr": [0.002, 0.001], "last_epoch": np.int64(3), "tfr": np.float32(0.5)},
        lambda c, w: c | {"lr": torch.tensor(0.001), "last_epoch": torch.tensor(3)},
        lambda c, w: c | {"lr": (np.array([0.001]),), "last_epoch": [1, 2, 3]},
        lambda c, w: c | {"state_dict": prefixed("module.", w)},
        lambda c, w: c | {"state_dict": prefixed("_orig_mod.module.", w)},
        lambda c, w: c | {"state_dict": prefixed("model.", w)},
        lambda c, w: c | {"state_dict": on_one_network("module", w)},
        lambda c, w: c | {"state_dict": on_one_network("_orig_mod", w)},
        lambda c, w: c | {"state_dict": {key: value.half() for key, value in w.items()}},
        lambda c, w: c | {"state_dict": {key: value.double() for key, value in w.items()}},
        lambda c, w: c | {"state_dict": {key: value.numpy() for key, value in w.items()}},
        lambda c, w: c | {"state_dict": {k: v for k, v in w.items() if k != f"{NORM}.num_batches_tracked"}},
        lambda c, w: c | {"state_dict": by_network(w)},
        lambda c, w: w | {"args": FLAGS, "lr": 0.001, "last_epoch": 3},
        lambda c, w: (
            c | {"state_dict": {name: prefixed("module.", part) for name, part in by_network(w).items()}}
        ),
    ],
)
def test_course_checkpoint_renders_what_its_model_renders(model, tmp_path, capsys, change):
    content = change(plain(model), dict(model.state_dict()))
    torch.save(content, tmp_path / "a.ckpt")
    config = is_video_of(model, tmp_path / "a.ckpt")
    assert (config.last_epoch, config.last_lr) == (3, pytest.approx(0.001))
    assert "ignoring" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "left_out"),
    [
        (lambda w: w, None),
        (lambda w: collections.OrderedDict(prefixed("module.", w)), None),
        (lambda w: w | OTHER, "lpips"),
        (lambda w: by_network(w) | {"epoch": 3}, "epoch"),
        (lambda w: {"Generator": {"state_dict": w}}, None),
        (lambda w: {"model_state_dict": w, "epoch": 3}, "epoch"),
        (lambda w: {"model": {"net": prefixed("module.", w)}, "best": np.float64(1.5)}, "best"),
        (lambda w: {"state_dict": w | OTHER, "train_loss": [np.float64(1.5)]}, "lpips, train_loss"),
        (lambda w: {"state_dict": w | prefixed("ema.", zero(w))}, "ema"),
        (lambda w: {"state_dict": {"ema": zero(w), "model": w}}, "ema"),
        (lambda w: {"state_dict": prefixed("model.", w) | prefixed("ema.", zero(w))}, "ema"),
        (lambda w: {"optimizer": zero(w), "weights": w, "lr": "1" * 5000}, None),
        (lambda w: {"ema_state_dict": zero(w), "model_state_dict": w}, "ema_state_dict"),
        (lambda w: {"state_dict": w | prefixed("module.", zero(w))}, "module"),
        (lambda w: {"state_dict": prefixed("model.", w) | {"Generator.9.weight": torch.zeros(1)}}, BARE),
        (lambda w: {"state_dict": w, "log": LOG}, "log"),
        (lambda w: w | {f"extra{i}": 0 for i in range(12)}, f"{', '.join(EXTRA[:8])} and 4 more"),
        (lambda w: {"state_dict": w, "losses": collections.defaultdict(list, mse=[1.0])}, "losses"),
        (
            lambda w: {"state_dict": w, "curve": np.zeros(3), "folder": pathlib.PosixPath("a")},
            "curve, folder",
        ),
    ],
)
def test_weights_are_found_and_what_is_left_out_is_said(model, tmp_path, capsys, change, left_out):
    path = tmp_path / "a.ckpt"
    torch.save(change(dict(model.state_dict())), path)
    is_video_of(model, path)
    line = f"{path}: course checkpoint; ignoring {left_out}\n" if left_out else ""
    assert capsys.readouterr().out == line


def test_frame_size_is_that_of_the_flags(model, tmp_path):
    for entry, value in zip(
        ("args", "opt", "config", "args", "hparams"),
        (24, "24", 24.0, np.int64(24), torch.tensor(24)),
        strict=True,
    ):
        content = plain(model) | {"hyper_parameters": {"frame_W": 32}, entry: FLAGS | {"frame_W": value}}
        for nested in (content, {"checkpoint": content}):
            torch.save(nested, tmp_path / "a.ckpt")
            _, config = load_for_inference(tmp_path / "a.ckpt")
            assert (config.frame_H, config.frame_W, config.last_epoch) == (8, 24, 3)


@pytest.mark.parametrize("value", [-8, 0, 2, None, "wide", 10**400, True])
def test_impossible_frame_size_is_left_out(model, tmp_path, capsys, value):
    torch.save(plain(model) | {"args": {"frame_W": value}, "last_epoch": -5}, tmp_path / "a.ckpt")
    _, config = load_for_inference(tmp_path / "a.ckpt")
    assert config.frame_W == 64 and config.last_epoch is None
    assert f"ignoring frame_W {value}" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--test"], ["--num_epoch=5", "--train_vi_len=4", "--val_vi_len=6"]])
def test_trainer_validates_and_continues_it(model, dataset, tmp_path, capsys, no_images, flags):
    path = tmp_path / "epoch=3.ckpt"
    torch.save(plain(model) | {"lr": [0.001], "args": argparse.Namespace(**FLAGS)}, path)
    command = ["--DR", str(dataset), "--save_root", str(tmp_path / "run"), "--ckpt_path", str(path)]
    Trainer.main([*command, "--device=cpu", "--frame_H=8", "--frame_W=16", *flags])
    printed = capsys.readouterr()
    assert "AVG PSNR" in printed.out and f"Epoch {3 if '--test' in flags else 4}, lr:" in printed.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop("Generator.7.bias"), "lacks Generator.7.bias"),
        (lambda w: w.pop("Decoder_Fusion.5.weight"), "not a checkpoint of this project or of the course"),
        (lambda w: w.update({"Generator.7.bias": torch.zeros(3).to_sparse()}), "Generator.7.bias"),
        (lambda w: w.update({"Generator.7.bias": torch.zeros(3, device="meta")}), "Generator.7.bias"),
        (lambda w: w[f"{NORM}.running_mean"].fill_(torch.nan), "running_mean are not finite"),
        (lambda w: w[f"{NORM}.running_var"].fill_(torch.inf), "running_var are not finite"),
        (lambda w: w[f"{NORM}.running_var"].fill_(-5), "running_var are negative"),
        (lambda w: w.update({"Gaussian_Predictor.6.weight": torch.zeros(0, 2, 1, 1)}), "not a checkpoint of"),
        (lambda w: w.update({"Decoder_Fusion.5.weight": torch.zeros(())}), "not a checkpoint of"),
    ],
)
def test_weights_that_are_no_model_are_refused(model, tmp_path, change, words):
    weights = copy.deepcopy(dict(model.state_dict()))
    change(weights)
    torch.save({"state_dict": weights}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=words):
        load_for_inference(tmp_path / "a.ckpt")


def test_contradicting_flag_is_refused(model, tmp_path):
    torch.save(plain(model), tmp_path / "a.ckpt")
    for flag, words in (({"arch": "unet"}, "--arch lab, not unet"), ({"F_dim": 64}, "--F_dim 8, not 64")):
        with pytest.raises(UserError, match=words):
            load_for_inference(tmp_path / "a.ckpt", **flag)


KEYS = (
    st.sampled_from(["state_dict", "args", "lr", "last_epoch", "frame_H", "Generator.0", *SIZES]) | st.text()
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.sampled_from([torch.zeros(2), torch.zeros(()), np.zeros(3), np.float32(1), argparse.Namespace(a=1)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(extra=st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_other_content_is_ignored_or_refused(extra):
    model = VAE_Model(small_model())
    for content in (extra, {"weights": model.state_dict()} | extra):
        try:
            result = course_checkpoint.converted(pathlib.Path("a.ckpt"), content)
        except UserError:
            assert content is extra
        else:
            assert result["state_dict"].keys() == model.state_dict().keys()
