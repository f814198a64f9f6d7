"""Runs that are killed while they write, and what their folders hold compared with undisturbed runs."""

import csv
import os
import signal
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import Trainer
from tests.helpers import start, wait
from training import checkpoint

WRITES = {"os.rename", "os.remove", "os.link", "os.mkdir"}
TIMES = {"seconds", "clips_per_second"}


def train(argv: list[str], folder: Path, kill_at: int | None = None, log: Path | None = None) -> int:
    """Run Trainer.py's main in a child; returns its exit code.

    Args:
        kill_at: number of the write to `folder` before which the child is killed.
        log: file for a line about each write.
    """
    return wait(start(lambda: (_watch(folder, kill_at, log), Trainer.main(argv))))


def _watch(folder: Path, kill_at: int | None, log: Path | None) -> None:
    count, root = 0, str(folder)

    def hook(event, arguments):
        nonlocal count
        writes = event in WRITES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR))
        if not writes or not str(arguments[0]).startswith(root):
            return
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        if log:
            names = [Path(str(a)).name for a in arguments[:2] if isinstance(a, (str, Path))]
            log_file.write(f"{event} {' '.join(names)}\n")
            log_file.flush()

    log_file = log.open("w") if log else None
    sys.addaudithook(hook)


def contents(folder: Path) -> dict[str, object]:
    """What each file of a run holds, times apart."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {_name(path, folder): _READERS.get(path.suffix, _pixels)(path) for path in files}


def _name(path: Path, folder: Path) -> str:
    name = str(path.relative_to(folder))
    return "events" if "tfevents" in name else name


def _checkpoint(path: Path):
    stored = checkpoint.read(path)
    rows = [{key: row[key] for key in row.keys() - TIMES} for row in stored["history"]["rows"]]
    return {
        "weights": [tensor.numpy().tobytes() for tensor in stored["state_dict"].values()],
        "rng": stored["rng"]["cpu"].numpy().tobytes(),
        "history": rows,
        "step": stored["step"],
        "kept": stored["kept"],
    }


def _table(path: Path):
    with path.open() as file:
        return [{key: row[key] for key in row.keys() - TIMES} for row in csv.DictReader(file)]


def _pixels(path: Path):
    if "tfevents" in path.name:
        events = EventAccumulator(str(path)).Reload()
        tags = [tag for tag in events.Tags()["scalars"] if tag not in TIMES]
        return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}
    if path.suffix in (".png", ".gif"):
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB")).tobytes()
    return None


_READERS = {".ckpt": _checkpoint, ".csv": _table}
