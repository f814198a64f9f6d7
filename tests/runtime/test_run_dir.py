"""Whose the folder of a run is: one writer at a time, and nothing is deleted that is still wanted."""

import os
import shlex
import signal
import tempfile
import time
from types import SimpleNamespace

import pytest

import Trainer
from runtime import run_dir
from runtime.cli import UserError
from tests.helpers import FORKS, SMALL_RUN, assert_succeeds, assert_user_error, run_script, start_script, wait
from training import checkpoint

pytestmark = pytest.mark.usefixtures("no_images")


def command(dataset, root, *flags):
    return ["--DR", str(dataset), "--save_root", str(root), *SMALL_RUN, *flags]


@pytest.mark.skipif(not FORKS, reason="runs copies of this process")
def test_second_run_is_refused_while_the_first_lives_and_its_last_line_says_how_to_resume(dataset, tmp_path):
    root = tmp_path / "a run"
    with tempfile.TemporaryFile("w+") as errors:
        flags = command(dataset, root, "--num_epoch=10000", "--per_save=1")
        first = start_script("Trainer.py", *flags, errors=errors.fileno())
        while not (root / "epoch=1.ckpt").exists():
            assert os.waitpid(first, os.WNOHANG) == (0, 0)
            time.sleep(0.05)
        for flags in ([], ["--overwrite"], ["--resume"]):
            done = run_script("Trainer.py", *command(dataset, root, *flags))
            assert_user_error(done, str(root), "another training run")
        test = ["--test", "--ckpt_path", root / "epoch=0.ckpt"]
        assert_succeeds(run_script("Trainer.py", *command(dataset, root, *test)))
        os.kill(first, signal.SIGTERM)
        assert wait(first) == 128 + signal.SIGTERM
        errors.seek(0)
        text = errors.read()
    last = checkpoint.read(root / "last.ckpt")["last_epoch"]
    assert "Traceback" not in text, text
    # The signal may have come between the end of an epoch and its save.
    assert f"epoch {last} is saved" in text or f"epoch {last + 1} is saved" in text
    resume = text.split("continue with: python ")[1].split("\n")[0]
    assert_succeeds(run_script(*shlex.split(resume), f"--num_epoch={last + 2}", "--device=cpu"))
    assert checkpoint.read(root / "last.ckpt")["last_epoch"] == last + 1


@pytest.mark.parametrize("spelling", ["..", "link to folder", "link to file"])
def test_overwrite_keeps_the_checkpoint_to_branch_from_however_it_is_spelled(
    dataset, tmp_path, spelling, monkeypatch
):
    run = tmp_path / "run"
    Trainer.main(command(dataset, run))
    (tmp_path / "folder").symlink_to(run)
    (tmp_path / "start.ckpt").symlink_to(run / "epoch=0.ckpt")
    path = {
        "..": run / ".." / "run" / "epoch=0.ckpt",
        "link to folder": tmp_path / "folder" / "epoch=0.ckpt",
        "link to file": tmp_path / "start.ckpt",
    }[spelling]
    monkeypatch.chdir(tmp_path)
    flags = ["--overwrite", "--ckpt_path", str(path), "--num_epoch=2"]
    Trainer.main(["--DR", str(dataset), "--save_root", "run", "--device=cpu", *flags])
    assert checkpoint.read(path)["last_epoch"] == 0
    assert checkpoint.read(run / "last.ckpt")["last_epoch"] == 1


def test_lock_is_free_after_the_block_and_unfinished_files_are_removed(tmp_path):
    (tmp_path / ".last.0123abcd.tmp.ckpt").write_text("half")
    (tmp_path / ".mine.tmp").write_text("mine")
    with run_dir.locked(tmp_path):
        assert not (tmp_path / ".last.0123abcd.tmp.ckpt").exists()
        with pytest.raises(UserError, match="another training run"), run_dir.locked(tmp_path):
            pass
        (tmp_path / ".best.0123abcd.tmp.ckpt").write_text("being written")
        run_dir.tidy(tmp_path)
        assert (tmp_path / ".best.0123abcd.tmp.ckpt").exists()
    run_dir.tidy(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {run_dir.LOCK, ".mine.tmp"}


def test_where_there_is_no_fcntl_the_lock_is_that_of_windows(tmp_path, monkeypatch):
    answers = [None, PermissionError(13, "Permission denied")]

    def locking(descriptor, mode, num_bytes):
        assert os.fstat(descriptor).st_ino == (tmp_path / run_dir.LOCK).stat().st_ino
        assert (mode, num_bytes) == ("at once", 1)
        if answer := answers.pop(0):
            raise answer

    monkeypatch.setattr(run_dir, "fcntl", None)
    msvcrt = SimpleNamespace(LK_NBLCK="at once", locking=locking)
    monkeypatch.setattr(run_dir, "msvcrt", msvcrt, raising=False)
    with run_dir.locked(tmp_path), pytest.raises(UserError, match="another training run"):
        run_dir.locked(tmp_path).__enter__()
    with run_dir.shared(tmp_path):
        assert not answers


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--resume", "--optim=Muon"], "--optim Muon.*Adam.*--ckpt_path"),
        (["--resume", "--seed=3"], "--seed 3.*0.*--ckpt_path"),
        (["--resume", "--overwrite"], "--overwrite.*--resume"),
        (["--test", "--overwrite", "--ckpt_path=a.ckpt"], "--overwrite.*--test"),
        (["--resume", "--F_dim=16"], "--F_dim 8, not 16"),
        ([*SMALL_RUN], "--resume.*--overwrite"),
    ],
)
def test_flags_that_a_run_cannot_continue_with_are_refused(finished_run, dataset, flags, words):
    root, _ = finished_run
    before = (root / "last.ckpt").read_bytes()
    with pytest.raises(UserError, match=words):
        Trainer.main(["--DR", str(dataset), "--save_root", str(root), "--device=cpu", *flags])
    assert (root / "last.ckpt").read_bytes() == before


def test_overwrite_deletes_everything_of_the_former_run_and_nothing_else(dataset, tmp_path):
    for name in ("val_notes.png", "notes.txt"):
        (tmp_path / name).write_text("mine")
    Trainer.main(command(dataset, tmp_path, "--num_epoch=2", "--store_visualization", "--per_save=1"))
    assert (tmp_path / "val_notes.png").read_text() == "mine", "there was no run"
    with pytest.raises(UserError, match="nowhere"):
        Trainer.main(command(tmp_path / "nowhere", tmp_path, "--overwrite"))
    assert checkpoint.read(tmp_path / "last.ckpt")["last_epoch"] == 1, "not before the data was read"
    Trainer.main(command(dataset, tmp_path, "--overwrite"))
    names = {path.name for path in tmp_path.iterdir()}
    assert "notes.txt" in names and checkpoint.read(tmp_path / "last.ckpt")["last_epoch"] == 0
    assert not {"epoch=1.ckpt", "val_epoch=1.gif", "val_psnr_epoch=1.png"} & names
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
