"""The folder that a script writes to."""

import shlex
import tempfile
from pathlib import Path

from .console import UserError

# What a training run writes, unfinished files included. The first two patterns show that a run is there.
RUN_FILES = (
    "*.ckpt", "history.csv", "args.json", "tensorboard/events*", "losses.png", "schedules.png", "val_*.png",
    "val_*.csv",
    "val_*.gif", ".*.tmp*",
)  # fmt: skip


def make_writable(folder: Path) -> None:
    """Make a folder, and see that files can be written in it.

    Raises:
        OSError: it cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def check_holds_no_run(folder: Path) -> None:
    """Refuse a folder that holds a training run, so that a new run does not mix with it.

    Raises:
        UserError: there is a run in it.
    """
    if any(path for pattern in RUN_FILES[:2] for path in folder.glob(pattern)):
        raise UserError(
            f"{folder}: holds a run; --resume continues it, --overwrite deletes it, "
            "another --save_root leaves it alone"
        )


def delete_run(folder: Path, keep: Path | None) -> None:
    """Delete all that a training run wrote, except the file `keep`."""
    for path in [path for pattern in RUN_FILES for path in folder.glob(pattern)]:
        if keep is None or path.resolve() != keep.resolve():
            path.unlink(missing_ok=True)


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
