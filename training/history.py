"""The record of a run: one row per epoch, in history.csv, TensorBoard and the checkpoint."""

import csv
import io
import itertools
from pathlib import Path

import numpy as np
import torch

import utils
from runtime import files
from runtime.cli import log

COLUMNS = (
    "epoch", "loss", "mse", "kl", "beta_min", "beta_max", "tfr", "teacher_forcing", "clip_length_min",
    "clip_length_max", "lr", "val_loss", "val_psnr", "val_kl", "active_units", "seconds", "clips_per_second",
    "skipped_steps",
)  # fmt: skip
# Columns that were one, when an epoch had one value.
FORMER_COLUMNS = {f"{name}_{end}": name for name in ("beta", "clip_length") for end in ("min", "max")}
STEP_COLUMNS = ("beta", "tfr", "teacher_forcing", "clip_length", "lr")


class History:
    """What a run has done so far, and which of its epochs is the best.

    `rows` has dicts with the keys `COLUMNS`, `steps` an array `(N, 5)` with the columns `STEP_COLUMNS`, and
    `psnr_by_frame` the curves of the "last" and the "best" validation.
    """

    def __init__(self):
        self.rows: list[dict] = []
        self.steps = np.empty((0, len(STEP_COLUMNS)), np.float32)
        self.psnr_by_frame: dict[str, list[float]] = {}
        # Index of the first row that counts for the best epoch: earlier ones belong to another run.
        self._branch_point = 0
        self._tensorboard, self._num_logged = None, 0

    def state_dict(self) -> dict:
        """Plain values, for a checkpoint."""
        return {
            "rows": self.rows,
            "steps": torch.from_numpy(self.steps),
            "psnr_by_frame": self.psnr_by_frame,
            "branch_point": self._branch_point,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from what `state_dict` returned."""
        # Rows of old checkpoints lack newer columns.
        self.rows = [
            {column: row.get(column, row.get(FORMER_COLUMNS.get(column))) for column in COLUMNS}
            for row in state["rows"]
        ]
        if "steps" in state:
            self.steps = state["steps"].numpy().reshape(-1, len(STEP_COLUMNS))
        self.psnr_by_frame = dict(state["psnr_by_frame"])
        self._branch_point = state.get("branch_point", 0)

    def branch(self) -> None:
        """Branch a new run off the last row; earlier rows no longer count for the best epoch."""
        self._branch_point = len(self.rows) - 1
        self.psnr_by_frame.pop("best", None)
        if self.last_is_best():
            self.psnr_by_frame["best"] = self.psnr_by_frame["last"]

    def best_row(self) -> dict | None:
        """The row of this run with the highest validation PSNR; None before a validation."""
        rows = [row for row in self.rows[self._branch_point :] if row["val_psnr"] is not None]
        return max(rows, key=lambda row: row["val_psnr"], default=None)

    def last_is_best(self) -> bool:
        """Whether the last epoch is the best one."""
        return self.best_row() is self.rows[-1]

    @property
    def seconds(self) -> float:
        """Training time of all epochs."""
        return sum(row["seconds"] for row in self.rows)

    def add(self, record: dict) -> None:
        """Append an epoch: a value for each column, its `steps`, and `psnr_by_frame` if it was validated."""
        self.rows.append({column: record.get(column) for column in COLUMNS})
        steps = [[getattr(step, name) for name in STEP_COLUMNS] for step in record["steps"]]
        steps = np.array(steps, np.float32).reshape(-1, len(STEP_COLUMNS))
        self.steps = np.concatenate([self.steps, steps])
        if "val_psnr" in record:
            self.psnr_by_frame["last"] = record["psnr_by_frame"]
            if self.last_is_best():
                self.psnr_by_frame["best"] = record["psnr_by_frame"]

    def write(self, folder: Path) -> None:
        """Write history.csv, val_psnr_by_frame.csv and TensorBoard's events."""
        files.write(folder / "history.csv", _csv(COLUMNS, self.rows))
        by_frame = enumerate(itertools.zip_longest(*self.psnr_by_frame.values()), 1)
        frames = [{"frame": t, **dict(zip(self.psnr_by_frame, psnr, strict=True))} for t, psnr in by_frame]
        files.write(folder / "val_psnr_by_frame.csv", _csv(("frame", "last", "best"), frames))
        self._log_to_tensorboard(folder / "tensorboard")

    def plot(self, folder: Path, annealing: str) -> None:
        """Write the plots of the run; `annealing` is its `--kl_anneal_type`."""
        files.save(folder / "losses.png", utils.plot_losses, self.rows, annealing)
        if len(self.steps):  # old checkpoints have none
            schedules = dict(zip(STEP_COLUMNS, self.steps.T, strict=True))
            files.save(folder / "schedules.png", utils.plot_schedules, schedules)
        files.save(folder / "val_psnr_by_epoch.png", utils.plot_psnr_by_epoch, self.rows)
        files.save(folder / "val_psnr_by_frame.png", utils.plot_psnr_by_frame, self.psnr_by_frame)

    def _log_to_tensorboard(self, folder: Path) -> None:
        """Log the new rows. The first call logs all rows; TensorBoard discards earlier processes' copies."""
        if self._tensorboard is None:
            try:
                # Imported here: it takes a second.
                from torch.utils.tensorboard import SummaryWriter

                self._tensorboard = SummaryWriter(str(folder), purge_step=0)
            except (ImportError, UnicodeError):  # or the folder's name is not UTF-8
                self._tensorboard = False
                log("no TensorBoard events (pip install tensorboard); history.csv has the same values")
        if not self._tensorboard:
            return
        for row in self.rows[self._num_logged :]:
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    self._tensorboard.add_scalar(name, value, row["epoch"])
        self._num_logged = len(self.rows)
        self._tensorboard.flush()


def _csv(columns: tuple[str, ...], rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
