"""Every mistake of a user: one clear line on standard error, exit code 2, nothing lost."""

import os
import resource
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import (
    HEIGHT,
    SMALL_RUN,
    WIDTH,
    assert_succeeds,
    assert_user_error,
    run_script,
)
from training import checkpoint


@pytest.fixture
def data(dataset, tmp_path):
    """A copy of the dataset, to be broken."""
    return shutil.copytree(dataset, tmp_path / "data", ignore=shutil.ignore_patterns(".frame_cache"))


def train(data, tmp_path, *flags, **settings):
    return run_script(
        "Trainer.py", "--DR", data, "--save_root", tmp_path / "run", *SMALL_RUN, *flags, **settings
    )


@pytest.fixture(scope="module")
def ckpt(finished_run):
    return finished_run[0] / "last.ckpt"


def render(data, tmp_path, ckpt, *flags):
    return run_script(
        "Tester.py",
        "--DR",
        data,
        "--save_root",
        tmp_path / "out",
        "--ckpt_path",
        ckpt,
        "--device=cpu",
        *flags,
    )


def test_dataset_folder_missing_empty_or_a_file(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("missing", "empty", "file"):
        assert_user_error(train(tmp_path / name, tmp_path), str(tmp_path / name))


@pytest.mark.parametrize("folder", ["train", "val", "train/train_label", "val/val_img"])
def test_split_folder_missing(data, tmp_path, folder):
    shutil.rmtree(data / folder)
    assert_user_error(train(data, tmp_path), folder, "no such folder")


@pytest.mark.parametrize(("lost", "kept"), [("label", "img"), ("img", "label")])
def test_image_without_label_and_label_without_image(data, tmp_path, lost, kept):
    (data / "train" / f"train_{lost}" / "frame000003.png").unlink()
    assert_user_error(train(data, tmp_path), f"train_{kept}/frame000003.png", "has no")


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_picture_that_is_none(data, tmp_path, damage):
    path = data / "train" / "train_img" / "frame000005.png"
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"hello", "empty": b""}[damage])
    assert_user_error(train(data, tmp_path), "frame000005.png")


def test_sixteen_bit_grey_transparent_and_odd_sized_pictures_are_used(data, tmp_path):
    folder = data / "train" / "train_img"
    Image.fromarray(np.full((20, 30), 40000, np.uint16)).save(folder / "frame000001.png")
    Image.fromarray(np.full((20, 30), 100, np.uint8)).save(folder / "frame000002.png")
    Image.fromarray(np.full((7, 90, 4), 100, np.uint8)).save(folder / "frame000003.png")
    assert_succeeds(train(data, tmp_path))


def test_names_without_number_or_with_the_same_number(data, tmp_path):
    folder = data / "val" / "val_img"
    shutil.copy(folder / "frame000001.png", folder / "1.png")
    assert_user_error(train(data, tmp_path), "same number")
    (folder / "1.png").rename(folder / "one.png")
    assert_user_error(train(data, tmp_path), "one.png", "no number")


def test_fewer_frames_than_a_clip(data, tmp_path):
    assert_user_error(train(data, tmp_path, "--train_vi_len=25"), "--train_vi_len")


def test_validation_video_of_another_length_is_used_and_said(data, tmp_path):
    assert "6 frames where --val_vi_len is 9" in assert_succeeds(train(data, tmp_path, "--val_vi_len=9"))
    output = assert_succeeds(train(data, tmp_path, "--val_vi_len=4", "--overwrite"))
    assert "using the first 4" in output


def test_test_video_of_another_length_is_used_and_said(data, tmp_path, ckpt):
    assert "6 frames where --val_vi_len is 9" in assert_succeeds(
        render(data, tmp_path, ckpt, "--val_vi_len=9")
    )


def test_test_sequence_without_first_frame_or_poses(data, tmp_path, ckpt):
    (data / "test" / "test_img" / "1" / "frame000000.png").unlink()
    assert_user_error(render(data, tmp_path, ckpt), "test_img/1", "no PNG")
    shutil.rmtree(data / "test" / "test_img" / "1")
    assert_user_error(render(data, tmp_path, ckpt), "no first frame")
    shutil.rmtree(data / "test" / "test_label" / "0")
    assert_user_error(render(data, tmp_path, ckpt), "has no poses")


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        (np.zeros((5, 3 * HEIGHT * WIDTH)), "5 rows"),
        (np.zeros((6, 100)), "of 100 numbers"),
        (np.full((6, 3 * HEIGHT * WIDTH), np.nan), "NaN"),
        (np.full((6, 3 * HEIGHT * WIDTH), 255.0), "[0, 1]"),
        (None, "not a table"),
    ],
)
def test_truth_of_wrong_shape_or_not_numbers(data, tmp_path, ckpt, rows, word):
    shutil.rmtree(data / "test" / "test_gt")
    (data / "Demo_Test").mkdir()
    path = data / "Demo_Test" / "GT0.csv"
    path.write_text("hello, world\n") if rows is None else np.savetxt(path, rows)
    assert_user_error(render(data, tmp_path, ckpt), "GT0.csv", word)


@pytest.mark.parametrize("script", ["Trainer.py", "Tester.py"])
def test_save_root_that_cannot_be_written(dataset, tmp_path, ckpt, script):
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/below"):
        done = run_script(script, "--DR", dataset, "--save_root", tmp_path / folder, "--ckpt_path", ckpt)
        assert_user_error(done, str(tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_save_root_without_permission(dataset, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    done = run_script("Trainer.py", "--DR", dataset, "--save_root", tmp_path / "closed", *SMALL_RUN)
    assert_user_error(done, str(tmp_path / "closed"))


def test_disk_that_fills_up_during_a_save_leaves_the_old_checkpoint(dataset, tmp_path):
    assert_succeeds(train(dataset, tmp_path))

    def small_files_only():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = train(dataset, tmp_path, "--resume", "--num_epoch=3", preexec_fn=small_files_only)
    assert_user_error(done, "cannot save", "last.ckpt")
    assert checkpoint.read(tmp_path / "run" / "last.ckpt")["last_epoch"] == 0
    assert not list((tmp_path / "run").glob(".*.tmp"))
    assert_succeeds(train(dataset, tmp_path, "--resume", "--num_epoch=2"))


class Trap:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("script", ["Trainer.py", "Tester.py"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "trap", "sizes"])
def test_checkpoint_that_is_none(dataset, tmp_path, ckpt, script, damage):
    path, trap = tmp_path / "a.ckpt", tmp_path / "trap"
    if damage == "trap":
        torch.save({"state_dict": Trap(trap)}, path)
    elif damage == "sizes":
        content = checkpoint.read(ckpt)
        torch.save({"state_dict": content["state_dict"]}, path)
    elif damage != "missing":
        whole = ckpt.read_bytes()
        path.write_bytes({"truncated": whole[: len(whole) // 2], "text": b"hello"}[damage])
    arguments = ["--DR", dataset, "--save_root", tmp_path / "out", "--ckpt_path", path, "--device=cpu"]
    arguments += [f"--frame_H={HEIGHT}", f"--frame_W={WIDTH}"]
    assert_user_error(run_script(script, *arguments), "a.ckpt")
    assert not trap.exists()


def test_sizes_that_contradict_the_checkpoint(dataset, tmp_path, ckpt):
    assert_user_error(render(dataset, tmp_path, ckpt, "--F_dim=16"), "--F_dim 8, not 16")


@pytest.mark.parametrize(
    "flags",
    ["--tfr 2", "--batch_size 0", "--partial 0", "--frame_H -1", "--kl_anneal_cycle 0",
     "--kl_anneal_type Sometimes", "--device=cuda", "--device=tpu", "--resume", "--test",
     "--resume --ckpt_path a.ckpt", "--num_epoch=ten"],
)  # fmt: skip
def test_flags_that_cannot_be(dataset, tmp_path, flags):
    if flags == "--device=cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    arguments = ["--DR", dataset, "--save_root", tmp_path / "run", *flags.split()]
    assert_user_error(run_script("Trainer.py", *arguments), flags.split("=")[0].split()[0])


def test_required_flags_are_asked_for(tmp_path):
    assert_user_error(run_script("Trainer.py"), "--DR", "--save_root")
    assert_user_error(run_script("Tester.py", "--DR", tmp_path, "--save_root", tmp_path), "--ckpt_path")
