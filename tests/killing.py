"""Runs that are killed while they write, and what their folders hold compared with undisturbed runs."""

import csv
import json
import os
import signal
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import Trainer
from tests.helpers import draw_nothing, start, wait
from training import checkpoint, options

WRITES = {"os.rename", "os.remove", "os.link", "os.mkdir"}
TIMES = {"seconds", "clips_per_second"}


def train(argv: list[str], folder: Path, kill_at: int | None = None, log: Path | None = None) -> int:
    """Run Trainer.py's main in a child, which draws nothing; returns its exit code.

    Args:
        kill_at: number of the write to `folder` before which the child is killed.
        log: file for a line about each write.
    """
    return wait(start(lambda: (draw_nothing(), _watch(folder, kill_at, log), Trainer.main(argv))))


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
            log_file.write(f"{event} {arguments[0]}\n")
            log_file.flush()

    log_file = log.open("w") if log else None
    sys.addaudithook(hook)


def contents(folder: Path) -> dict[str, object]:
    """What each file of a run holds, and what TensorBoard shows of it, without times."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "tfevents" not in path.name]
    held = {path.name: _READERS.get(path.suffix, Path.read_bytes)(path) for path in files}
    return held | {"tensorboard": _curves(folder / "tensorboard")}


def _checkpoint(path: Path):
    content = checkpoint.read(path)
    rows = [{key: row[key] for key in row.keys() - TIMES} for row in content["history"]["rows"]]
    return {
        "weights": [tensor.numpy().tobytes() for tensor in content["state_dict"].values()],
        "rng": content["rng"]["cpu"].numpy().tobytes(),
        "history": rows,
        "step": content["step"],
    }


def _table(path: Path):
    with path.open() as file:
        return [{key: row[key] for key in row.keys() - TIMES} for row in csv.DictReader(file)]


def _flags(path: Path):
    flags = json.loads(path.read_text())
    return {name: flags[name] for name in flags.keys() - options.NOT_INHERITED}


def _curves(folder: Path):
    """The curves of all processes that have logged, each discarding what it logs anew."""
    events = EventAccumulator(str(folder)).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag not in TIMES]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


_READERS = {".ckpt": _checkpoint, ".csv": _table, ".json": _flags}
