"""How tools/make_dataset.py ends: wrong flags, signals, full disks, and what it leaves of an old dataset."""

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.cli import UserError
from tests.helpers import assert_user_error
from tests.tools.synthetic import PROGRAM, SMALL, TINY, contents, names, run, run_after
from tools.make_dataset import REPLACED, UNFINISHED
from tools.synthetic.dataset import SPLITS


@pytest.mark.parametrize("flag", ["--size=64", "--size=64x99999", "--val_frames=many", "--workers=0"])
def test_wrong_flag_is_one_line(tmp_path, flag, capsys):
    with pytest.raises(SystemExit) as ended:
        run(tmp_path / "out", flag)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and flag.partition("=")[0] in error and len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_folder_with_something_in_it_and_a_file_are_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="--overwrite"):
        run(tmp_path, *SMALL)
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=str(out)):
            run(out, *SMALL)
    assert names(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "mine"


def test_overwrite_replaces_the_dataset_and_nothing_else(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "old.png").write_text("old")
    (tmp_path / UNFINISHED).mkdir()
    (tmp_path / REPLACED / "val").mkdir(parents=True)
    run(tmp_path, *TINY, "--overwrite")
    assert names(tmp_path) == ["mine.txt", "poses.json", "test", "train", "val"]
    assert names(tmp_path / "val") == ["val_img", "val_label"]


def old_dataset(out):
    """Write a file to each split; returns the `contents`."""
    for split in SPLITS:
        (out / split).mkdir()
        (out / split / "old.png").write_text(f"old {split}")
    return contents(out)


@contextlib.contextmanager
def rendering(out, *flags):
    """The program in its own process group, after it has begun to render a dataset that takes long."""
    command = [sys.executable, str(PROGRAM), str(out), "--size=320x160", "--workers=2", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while not list(out.glob(f"{UNFINISHED}/train/train_img/*.png")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize(
    ("send", "signum"), [(os.kill, signal.SIGTERM), (os.killpg, signal.SIGTERM), (os.killpg, signal.SIGINT)]
)
def test_signal_ends_all_processes_and_keeps_the_old_dataset(tmp_path, send, signum):
    """`send` reaches only the main process, or all, as Ctrl-C in a terminal does."""
    old = old_dataset(tmp_path)
    with rendering(tmp_path, "--overwrite") as process:
        send(process.pid, signum)
        _, stderr = process.communicate(timeout=20)
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    assert process.returncode == 128 + signum
    assert stderr.startswith("make_dataset.py: stopped by SIG") and len(stderr.splitlines()) == 1, stderr
    assert contents(tmp_path) == old and names(tmp_path) == sorted(SPLITS)


def test_workers_end_when_the_main_process_is_killed(tmp_path):
    old = old_dataset(tmp_path)
    with rendering(tmp_path, "--overwrite") as process:
        process.kill()
        process.communicate(timeout=20)  # waits for all that hold standard error open
    assert contents(tmp_path).items() >= old.items()


def test_full_disk_is_one_line(tmp_path):
    old = old_dataset(tmp_path)
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    done = run_after(limit, tmp_path, *TINY, "--overwrite")
    assert_user_error(done, str(tmp_path), os.strerror(errno.EFBIG))
    assert contents(tmp_path) == old


def test_killed_worker_is_one_line(tmp_path):
    killed = (
        "import tools.synthetic.dataset as dataset\n"
        "multiprocessing.set_start_method('fork')\n"
        "dataset.render = lambda job: os.kill(os.getpid(), 9)\n"
    )
    old = old_dataset(tmp_path)
    assert_user_error(run_after(killed, tmp_path, *TINY, "--overwrite"), "ended early")
    assert contents(tmp_path) == old


def test_failed_replacement_keeps_the_old_dataset(tmp_path, monkeypatch):
    old, rename = old_dataset(tmp_path), Path.rename

    def refuse(source, target):
        if source == tmp_path / "val":
            raise OSError(errno.EBUSY, "busy")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UserError, match="busy"):
        run(tmp_path, *TINY, "--overwrite")
    assert contents(tmp_path) == old and names(tmp_path) == sorted(SPLITS)
