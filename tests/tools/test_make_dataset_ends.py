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

from tests.tools.drawing import PROGRAM, SMALL, TINY, assert_mistake, contents, names, run, run_after
from tools.make_dataset import REPLACED, UNFINISHED, publish, restore
from tools.synthetic.dataset import SPLITS


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--size=64"], "--size"),
        (["--size=8x8"], "--size"),
        (["--size=64x99999"], "--size"),
        (["--train_frames=0"], "--train_frames"),
        (["--val_frames=many"], "--val_frames"),
        (["--test_sequences=-1"], "--test_sequences"),
        (["--seed=-3"], "--seed"),
        (["--workers=0"], "--workers"),
        (["--colour=red"], "--colour"),
    ],
)
def test_a_wrong_flag_ends_in_one_line(tmp_path, flags, word):
    assert_mistake(run(tmp_path / "out", *flags), word)
    assert not (tmp_path / "out").exists()


def test_refuses_a_folder_with_something_in_it(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    assert_mistake(run(tmp_path, *SMALL), "--overwrite")
    assert names(tmp_path) == ["precious.txt"]


def test_refuses_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert_mistake(run(out, *SMALL), str(out))
    assert (tmp_path / "file").read_text() == "mine"


def test_overwrite_replaces_the_dataset_and_nothing_else(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "old.png").write_text("old")
    (tmp_path / ".unfinished").mkdir()
    (tmp_path / ".replaced" / "val").mkdir(parents=True)
    done = run(tmp_path, *TINY, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert names(tmp_path) == ["poses.json", "precious.txt", "test", "train", "val"]
    assert names(tmp_path / "val") == ["val_img", "val_label"]


@contextlib.contextmanager
def drawing(out, *flags):
    """The program in a process group of its own, after it has begun to draw a dataset that takes long."""
    command = [sys.executable, str(PROGRAM), str(out), "--size=320x160", "--workers=3", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while not list(out.glob(".unfinished/train/train_img/*.png")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize(
    ("send", "signums"),
    [
        (os.kill, [signal.SIGTERM]),
        (os.kill, [signal.SIGINT]),
        (os.killpg, [signal.SIGTERM]),
        (os.killpg, [signal.SIGINT]),
        (os.killpg, [signal.SIGTERM, signal.SIGTERM, signal.SIGINT]),
    ],
)
def test_a_signal_ends_all_processes_and_keeps_the_old_dataset(tmp_path, send, signums):
    """`send` reaches the main process alone, or the drawing processes too, as Ctrl-C in a terminal does."""
    old = old_dataset(tmp_path)
    with drawing(tmp_path, "--overwrite") as process:
        for signum in signums:
            send(process.pid, signum)
        _, stderr = process.communicate(timeout=20)
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    assert process.returncode - 128 in signums
    assert len(stderr.splitlines()) == 1, stderr
    assert stderr.startswith("make_dataset.py: stopped by SIG")
    assert contents(tmp_path) == old
    assert names(tmp_path) == sorted(SPLITS)


def test_a_signal_leaves_no_new_folder(tmp_path):
    with drawing(tmp_path / "out") as process:
        process.terminate()
        process.communicate(timeout=20)
    assert names(tmp_path) == []


def test_drawing_processes_end_when_the_main_process_is_killed(tmp_path):
    old = old_dataset(tmp_path)
    with drawing(tmp_path, "--overwrite") as process:
        process.kill()
        process.communicate(timeout=20)  # waits for all that hold standard error open
    assert contents(tmp_path).items() >= old.items()


def old_dataset(out):
    """Write a file to each split; returns the `contents`."""
    for split in SPLITS:
        (out / split).mkdir()
        (out / split / "old.png").write_text(f"old {split}")
    return contents(out)


def test_a_picture_that_cannot_be_written_ends_in_one_line(tmp_path):
    old = old_dataset(tmp_path)
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    done = run_after(limit, tmp_path, *TINY, "--overwrite")
    assert_mistake(done, str(tmp_path), os.strerror(errno.EFBIG))
    assert contents(tmp_path) == old


def test_a_killed_drawing_process_ends_in_one_line(tmp_path):
    killed = (
        "import tools.synthetic.dataset as dataset\n"
        "multiprocessing.set_start_method('fork')\n"
        "dataset.paint_pose = lambda *_: os.kill(os.getpid(), 9)"
    )
    assert_mistake(run_after(killed, tmp_path / "out", *TINY), "--workers")
    assert not (tmp_path / "out").exists()


# A mount point, for example, cannot be renamed.
REFUSED_RENAME = """
rename = pathlib.Path.rename
def refuse(source, target):
    if source == pathlib.Path({!r}):
        raise OSError(errno.EBUSY, "Device or resource busy", str(source))
    return rename(source, target)
pathlib.Path.rename = refuse
"""


@pytest.mark.parametrize("refused", ["val", ".unfinished/test"])
def test_a_failing_replacement_keeps_the_old_dataset(tmp_path, refused):
    old = old_dataset(tmp_path)
    refusal = REFUSED_RENAME.format(str(tmp_path / refused))
    assert_mistake(run_after(refusal, tmp_path, *TINY, "--overwrite"), "busy", refused)
    assert contents(tmp_path) == old
    assert names(tmp_path) == sorted(SPLITS)


@pytest.mark.parametrize("successes", range(6))
def test_any_failing_rename_restores_what_was_there(tmp_path, monkeypatch, successes):
    root, out = tmp_path / "new", tmp_path / "out"
    root.mkdir()
    out.mkdir()
    new, old = old_dataset(root), old_dataset(out)
    rename, calls = Path.rename, []

    def limited(source, target):
        calls.append(source)
        if len(calls) == successes + 1:
            raise OSError(errno.EBUSY, "busy")
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", limited)
    with pytest.raises(OSError, match="busy"):
        publish(root, out)
    assert (contents(root), contents(out)) == (new, old)
    assert names(out) == sorted(SPLITS)


def test_replaces_links_to_splits_and_not_what_they_point_to(tmp_path):
    root, out, elsewhere = (tmp_path / name for name in ("new", "out", "elsewhere"))
    for folder in (root, out, elsewhere):
        folder.mkdir()
    new, kept = old_dataset(root), old_dataset(elsewhere)
    (out / "train").symlink_to(elsewhere / "train")
    (out / "val").symlink_to(tmp_path / "nowhere")
    publish(root, out)
    assert contents(out) == new
    assert contents(elsewhere) == kept


def test_splits_that_a_killed_process_has_moved_away_come_back(tmp_path):
    old = old_dataset(tmp_path)
    (tmp_path / REPLACED).mkdir()
    (tmp_path / "val").rename(tmp_path / REPLACED / "val")
    (tmp_path / UNFINISHED / "train").mkdir(parents=True)
    restore(tmp_path)
    assert contents(tmp_path) == old and names(tmp_path) == sorted(SPLITS)
