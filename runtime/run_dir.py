"""The folder that a script writes to."""

import contextlib
import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from runtime import files
from runtime.cli import UserError

LOCK = ".lock"
# What a training run writes. The first three patterns show that a run is there.
RUN_FILES = (
    "last.ckpt", "*.ckpt", "history.csv", "args.json", "tensorboard/events*", "losses.png", "schedules.png",
    "val_*.png", "val_*.csv", "val_*.gif",
)  # fmt: skip
SPLITS = ("train", "val", "test")


def make_writable(folder: Path, dataset: Path) -> None:
    """Make a folder, and see that files can be written in it.

    Args:
        dataset: the dataset's folder.

    Raises:
        OSError: it cannot be made or written.
        UserError: it lies among the pictures of the dataset.
    """
    for split in SPLITS:
        if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(dataset / split)):
            raise UserError(f"{folder}: lies in {dataset / split}, the dataset; give another --save_root")
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep the folder for this process, until the block or the process ends, and tidy it.

    Raises:
        UserError: another process has it.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        remedy = "wait for its end, or give another --save_root"
        raise UserError(f"{folder}: another training run writes to it; {remedy}") from None
    except NotImplementedError:
        print(f"{folder}: this file system has no locks, so see that no other run writes to it")
    try:
        files.remove_unfinished(folder)
        yield
    finally:
        lock.release()


def tidy(folder: Path) -> None:
    """Remove unfinished files, unless a training run writes to the folder."""
    if not (folder / LOCK).exists():
        files.remove_unfinished(folder)
        return
    with contextlib.suppress(UserError), locked(folder):
        pass


def check_holds_no_run(folder: Path) -> None:
    """Refuse a folder that holds a training run, so that a new run does not mix with it.

    Raises:
        UserError: there is a run in it.
    """
    if any(path for pattern in RUN_FILES[:3] for path in folder.glob(pattern)):
        raise UserError(
            f"{folder}: holds a run; --resume continues it, --overwrite deletes it, "
            "another --save_root leaves it alone"
        )


def delete_run(folder: Path, keep: Path | None) -> None:
    """Delete all that a training run wrote, except the file `keep`, however its path is spelled."""
    for path in [path for pattern in RUN_FILES for path in folder.glob(pattern)]:
        if not (keep and path.exists() and _is_same_entry(path, keep)):
            path.unlink(missing_ok=True)


def _is_same_entry(path: Path, other: Path) -> bool:
    # Checkpoints are hard links of each other, so that the file alone does not tell.
    same_name = path.name.casefold() == Path(os.path.realpath(other)).name.casefold()
    return same_name and path.samefile(other)


def how_to_continue(args, rows: list[dict]) -> str:
    """For a run that was stopped: what is saved, and the command that continues it.

    Args:
        rows: of the finished epochs.
    """
    if not rows:
        return "no epoch was finished, so nothing is lost: start again with the same command"
    command = ["python", "Trainer.py", "--DR", str(args.DR), "--save_root", str(args.save_root), "--resume"]
    epoch = rows[-1]["epoch"]
    return f"epoch {epoch} is the last finished one, and saved; continue with: {shlex.join(command)}"
