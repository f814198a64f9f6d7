"""Mistakes of a user: a clear line, exit code 2, nothing lost."""

import os
import resource
import shutil

import pytest
import torch

import Tester
import Trainer
from modules import VAE_Model
from runtime.cli import UserError
from tests.helpers import SMALL_MODEL, SMALL_RUN, assert_succeeds, assert_user_error, run_script, small_model
from training import checkpoint


def train(data, folder, *flags):
    Trainer.main(["--DR", str(data), "--save_root", str(folder), *SMALL_RUN, *flags])


def render(data, folder, ckpt, *flags):
    shared = ["--DR", str(data), "--save_root", str(folder), "--ckpt_path", str(ckpt), "--device=cpu"]
    Tester.main([*shared, "--no-make_gif", *flags])


def remove(*names):
    def damage(data):
        for name in names:
            (shutil.rmtree if (data / name).is_dir() else os.unlink)(data / name)

    return damage


def rename(source, target):
    return lambda data: (data / source).rename(data / target)


# What is done to a dataset, and what Trainer says.
TRAINING_DATA = [
    (remove(""), "data/val.*no such folder"),
    (remove("train"), "train.*no such folder"),
    (remove("val/val_img"), "val_img.*no such folder"),
    (lambda data: (shutil.rmtree(data / "train"), (data / "train").write_text("")), "train_img: no such"),
    (remove("train/train_label/frame000003.png"), "train_img/frame000003.png: no label"),
    (remove("train/train_img/frame000003.png"), "train_label/frame000003.png: no frame"),
    (lambda data: (data / "train/train_img/frame000005.png").write_text(""), "frame000005.png: is not an"),
    (rename("val/val_img/frame000001.png", "val/val_img/2.png"), "same number"),
    (rename("val/val_img/frame000001.png", "val/val_img/one.png"), "one.png: no frame number"),
]
TEST_DATA = [
    (remove("test/test_img/1/frame000000.png"), "test_img/1: no images"),
    (remove("test/test_img/1"), "test_label/1: no first frame"),
    (remove("test/test_label/0"), "test_img/0: no poses"),
    (remove("test/test_label/0", "test/test_label/1", "test/test_img/0", "test/test_img/1"), "no test seq"),
    (rename("test/test_label/1", "test/test_label/one"), "test_label/one: test sequences are"),
    (rename("test/test_label/1", "test/test_label/00"), "test_label/00?: same number as 0"),
    (remove("test/test_gt/0/frame000002.png"), "test_gt/0: no ground truth for pose 2"),
]


@pytest.mark.parametrize(("damage", "words"), TRAINING_DATA)
def test_damaged_training_data_is_refused(data, tmp_path, damage, words):
    damage(data)
    with pytest.raises(UserError, match=words):
        train(data, tmp_path / "run")
    assert not list((tmp_path / "run").glob("*.ckpt"))


@pytest.mark.parametrize(("damage", "words"), TEST_DATA)
def test_damaged_test_data_is_refused(data, tmp_path, ckpt, damage, words):
    damage(data)
    with pytest.raises(UserError, match=words):
        render(data, tmp_path / "out", ckpt)
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.parametrize("script", ["Trainer.py", "Tester.py"])
def test_save_root_that_cannot_be_written(dataset, tmp_path, ckpt, script):
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/below"):
        done = run_script(script, "--DR", dataset, "--save_root", tmp_path / folder, "--ckpt_path", ckpt)
        assert_user_error(done, str(tmp_path / "file"))


def limit_file_size(limit):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def test_disk_that_fills_up_leaves_the_old_checkpoint(finished_run, dataset, tmp_path, no_images):
    run = shutil.copytree(finished_run[0], tmp_path / "run")
    resume = ["--DR", dataset, "--save_root", run, "--resume", "--num_epoch=3", "--device=cpu"]
    done = run_script("Trainer.py", *resume, preexec_fn=limit_file_size(100_000))
    assert_user_error(done, "cannot save", "last.ckpt")
    assert checkpoint.read(run / "last.ckpt")["last_epoch"] == 1
    assert not list(run.glob(".*.tmp*"))
    assert_succeeds(run_script("Trainer.py", *resume))


def test_disk_that_fills_up_under_tester_leaves_whole_files_only(dataset, tmp_path, ckpt):
    command = ["--DR", dataset, "--save_root", tmp_path, "--ckpt_path", ckpt, "--device=cpu"]
    done = run_script("Tester.py", *command, preexec_fn=limit_file_size(20_000))
    assert_user_error(done, "cannot save", str(tmp_path), "File too large")
    names = {path.name for path in tmp_path.iterdir()}
    assert "results.json" not in names and not [name for name in names if name.startswith(".")]
    assert_succeeds(run_script("Tester.py", *command))


@pytest.mark.parametrize(
    "flags",
    ["--tfr=2", "--batch_size=0", "--partial=0", "--frame_H=-1", "--kl_anneal_cycle=0", "--num_epoch=ten",
     "--kl_anneal_type=Sometimes", "--device=cuda", "--device=tpu", "--resume", "--test",
     "--train_vi_len=25", "--ckpt_path=nowhere.ckpt", "--resume --ckpt_path=a.ckpt"],
)  # fmt: skip
def test_flags_that_cannot_be(dataset, tmp_path, flags, capsys):
    argv = ["--DR", str(dataset), "--save_root", str(tmp_path / "run"), *flags.split()]
    with pytest.raises((UserError, SystemExit)) as error:  # the parser exits
        Trainer.main(argv)
    name = "nowhere.ckpt" if "nowhere" in flags else flags.split("=")[0].split()[0]
    assert name in str(error.value) + capsys.readouterr().err
    assert not list(tmp_path.glob("run/[!.]*"))


def test_required_flags_are_asked_for(tmp_path):
    assert_user_error(run_script("Trainer.py"), "--save_root")
    assert_user_error(run_script("Trainer.py", "--save_root", tmp_path / "run"), "--DR")
    assert_user_error(run_script("Tester.py", "--DR", tmp_path), "--ckpt_path")
    path = tmp_path / "epoch=99.ckpt"  # of the course: it does not name a dataset
    torch.save({"state_dict": VAE_Model(small_model()).state_dict()}, path)
    assert_user_error(run_script("Tester.py", "--ckpt", path, *SMALL_MODEL), "--DR")
    assert list(tmp_path.iterdir()) == [path]
