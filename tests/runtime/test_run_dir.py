"""Whose the folder of a run is: one writer at a time, and nothing is deleted that is still wanted."""

import signal
import subprocess
import sys
import time

import pytest

import Trainer
from runtime import run_dir
from runtime.cli import UserError
from tests.helpers import (
    FORKS,
    ROOT,
    SMALL_RUN,
    assert_succeeds,
    assert_user_error,
    one_thread,
    run_script,
    start,
    wait,
)
from training import checkpoint


def command(dataset, root, *flags):
    return ["--DR", str(dataset), "--save_root", str(root), *SMALL_RUN, *flags]


def test_second_run_is_refused_while_the_first_lives_and_not_after_it_was_killed(dataset, tmp_path):
    script = [sys.executable, str(ROOT / "Trainer.py"), *command(dataset, tmp_path, "--num_epoch=100000")]
    with subprocess.Popen(
        script, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=one_thread()
    ) as first:
        try:
            while not (tmp_path / "last.ckpt").exists():
                assert first.poll() is None
                time.sleep(0.05)
            for flags in ([], ["--overwrite"], ["--resume"]):
                done = run_script("Trainer.py", *command(dataset, tmp_path, *flags))
                assert_user_error(done, str(tmp_path), "another training run")
            test = ["--test", "--ckpt_path", tmp_path / "epoch=0.ckpt"]
            assert_succeeds(run_script("Trainer.py", *command(dataset, tmp_path, *test)))
        finally:
            first.kill()
    last = checkpoint.read(tmp_path / "last.ckpt")["last_epoch"]
    resume = ["--DR", str(dataset), "--save_root", str(tmp_path), "--resume", "--device=cpu"]
    assert_succeeds(run_script("Trainer.py", *resume, f"--num_epoch={last + 2}"))


@pytest.mark.skipif(not FORKS, reason="runs copies of this process")
def test_of_two_runs_that_begin_at_once_one_is_refused(dataset, tmp_path):
    children = [start(lambda: Trainer.main(command(dataset, tmp_path))) for _ in range(2)]
    assert sorted(wait(child) for child in children) == [0, 1]
    assert checkpoint.read(tmp_path / "last.ckpt")["last_epoch"] == 0


@pytest.mark.parametrize("spelling", ["..", "link to folder", "link to file", "absolute"])
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
        "absolute": run / "epoch=0.ckpt",
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


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--resume", "--optim=Muon"], ["--optim Muon", "Adam", "--ckpt_path"]),
        (["--resume", "--seed=3"], ["--seed 3", "0", "--ckpt_path"]),
        (["--resume", "--overwrite"], ["--overwrite", "--resume"]),
        (["--test", "--overwrite", "--ckpt_path=a.ckpt"], ["--overwrite", "--test"]),
        (["--resume", "--F_dim=16"], ["--F_dim 8, not 16"]),
    ],
)
def test_flags_that_a_run_cannot_go_on_with_are_refused(finished_run, dataset, flags, words):
    root, _ = finished_run
    before = (root / "last.ckpt").read_bytes()
    done = run_script("Trainer.py", "--DR", dataset, "--save_root", root, "--device=cpu", *flags)
    assert_user_error(done, *words)
    assert (root / "last.ckpt").read_bytes() == before


def test_another_seed_in_a_branch_gives_other_weights(finished_run, dataset, tmp_path):
    root, _ = finished_run
    weights = []
    for seed in ("0", "1"):
        flags = [
            "--ckpt_path", str(root / "epoch=0.ckpt"), "--device=cpu", "--num_epoch=2", f"--seed={seed}"
        ]  # fmt: skip
        Trainer.main(["--DR", str(dataset), "--save_root", str(tmp_path / seed), *flags])
        weights.append(checkpoint.read(tmp_path / seed / "last.ckpt")["state_dict"])
    name = "Generator.7.weight"
    assert not weights[0][name].equal(weights[1][name])
    assert weights[0][name].equal(checkpoint.read(root / "last.ckpt")["state_dict"][name])


@pytest.mark.skipif(not FORKS, reason="runs copies of this process")
def test_closed_terminal_ends_a_run_with_the_line_about_resuming(dataset, tmp_path):
    script = [sys.executable, str(ROOT / "Trainer.py"), *command(dataset, tmp_path, "--num_epoch=100000")]
    with subprocess.Popen(
        script, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=one_thread()
    ) as process:
        try:
            while not (tmp_path / "last.ckpt").exists():
                assert process.poll() is None
                time.sleep(0.05)
            for _ in range(2):  # a shell passes on what the terminal has sent already
                process.send_signal(signal.SIGHUP)
                time.sleep(0.1)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGHUP and "Traceback" not in errors
    assert "continue with: python" in errors and "stopped by SIGHUP" in errors
