"""The output folder: locking, cleanup, and the files of a training run."""

import contextlib
import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import files
from .cli import UserError, log

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None

LOCK = ".lock"
# What a training run writes. The first two patterns identify a run.
RUN_FILES = (
    "*.ckpt", "history.csv", "args.json", "tensorboard/events*", "losses.png", "schedules.png",
    "val_*.png", "val_*.csv", "val_*.gif",
)  # fmt: skip


def make_writable(folder: Path, dataset: Path) -> None:
    """Create the folder, and raise an error if it cannot be written or lies inside a split of the dataset."""
    for split in ("train", "val", "test"):
        if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(dataset / split)):
            raise UserError(f"{folder}: inside the dataset ({dataset / split}); choose another --save_root")
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder until the block or the process ends, and remove unfinished files."""
    with (folder / LOCK).open("w") as file:
        try:
            if fcntl is None:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # of fcntl, and of msvcrt
            remedy = "wait until it ends, or give another --save_root"
            raise UserError(f"{folder}: in use by another training run; {remedy}") from None
        except OSError:
            log(f"{folder}: this file system has no locks; make sure that no other run uses the folder")
        files.remove_unfinished(folder)
        yield


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Share a folder with other writing processes; removes unfinished files if no other is writing.

    On Windows there is no shared lock, so nothing is removed.
    """
    with (folder / LOCK).open("w") as file:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # another process writes, or the file system has no locks
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                files.remove_unfinished(folder)
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_SH)
        yield


def tidy(folder: Path) -> None:
    """Remove unfinished files, unless a training run writes to the folder."""
    if not (folder / LOCK).exists():
        files.remove_unfinished(folder)
        return
    with contextlib.suppress(UserError), locked(folder):
        pass


def check_empty(folder: Path) -> None:
    """Raise a `UserError` if the folder holds a training run."""
    if any(path for pattern in RUN_FILES[:2] for path in folder.glob(pattern)):
        remedy = "--resume continues it, --overwrite deletes it; or give another --save_root"
        raise UserError(f"{folder}: already contains a run; {remedy}")


def delete_run(folder: Path, keep: Path | None) -> None:
    """Delete everything that a training run wrote, except the file `keep`."""
    for path in [path for pattern in RUN_FILES for path in folder.glob(pattern)]:
        # Checkpoints are hard links of each other, so the resolved names count.
        if not keep or os.path.realpath(path) != os.path.realpath(keep):
            path.unlink(missing_ok=True)


def how_to_resume(args, rows: list[dict]) -> str:
    """What an interrupted run saved, and the command to resume it; `rows` are its completed epochs."""
    if not rows:
        return "no epoch was finished: start again with the same command"
    command = ["python", "Trainer.py", "--DR", str(args.DR), "--save_root", str(args.save_root), "--resume"]
    return f"epoch {rows[-1]['epoch']} is saved; continue with: {shlex.join(command)}"
