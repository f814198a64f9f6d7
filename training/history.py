"""The records of a run: one row for each epoch, as history.csv, in TensorBoard, and in the checkpoint."""

import csv
import io
from pathlib import Path

from runtime import files
from training.events import Events

COLUMNS = (
    "epoch", "loss", "mse", "kl", "beta", "tfr", "teacher_forcing", "clip_length", "lr", "val_loss",
    "val_psnr", "val_kl", "active_units", "seconds", "clips_per_second", "skipped_steps",
)  # fmt: skip


def validated(rows: list[dict]) -> list[dict]:
    """The rows of the epochs that ended with a validation."""
    return [row for row in rows if row["val_psnr"] is not None]


class History:
    """What a run has done so far, and which of its epochs is the best.

    Attributes:
        rows: one for each epoch, with a value for each of `COLUMNS`.
        psnr_by_frame: of the "last" and of the "best" validation.
    """

    def __init__(self):
        self.rows: list[dict] = []
        self.psnr_by_frame: dict[str, list[float]] = {}
        # Index of the first row that counts for the best epoch: earlier ones belong to another run.
        self._branch_point = 0
        self._events = Events()

    def state_dict(self) -> dict:
        """Plain values, for a checkpoint."""
        return {"rows": self.rows, "psnr_by_frame": self.psnr_by_frame, "branch_point": self._branch_point}

    def load_state_dict(self, state: dict) -> None:
        """Continue from what `state_dict` returned."""
        # Rows of a former version lack the columns that are newer.
        self.rows = [{column: row.get(column) for column in COLUMNS} for row in state["rows"]]
        self.psnr_by_frame = dict(state["psnr_by_frame"])
        self._branch_point = state.get("branch_point", 0)

    def branch(self) -> None:
        """Begin another run after the last row: that row is the first that counts for the best epoch."""
        self._branch_point = len(self.rows) - 1
        self.psnr_by_frame.pop("best", None)
        if self.last_is_best():
            self.psnr_by_frame["best"] = self.psnr_by_frame["last"]

    def best_row(self) -> dict | None:
        """The row of this run's epoch with the highest validation PSNR; None before a validation."""
        rows = validated(self.rows[self._branch_point :])
        return max(rows, key=lambda row: row["val_psnr"], default=None)

    def last_is_best(self) -> bool:
        """Whether the last epoch is the best one."""
        return self.best_row() is self.rows[-1]

    @property
    def seconds(self) -> float:
        """Training time of all epochs."""
        return sum(row["seconds"] for row in self.rows)

    def add(self, record: dict) -> None:
        """Append an epoch.

        Args:
            record: a value for each column, and `psnr_by_frame`; those of a validation are missing if there
                was none.
        """
        self.rows.append({column: record.get(column) for column in COLUMNS})
        if "val_psnr" in record:
            self.psnr_by_frame["last"] = record["psnr_by_frame"]
            if self.last_is_best():
                self.psnr_by_frame["best"] = record["psnr_by_frame"]

    def write(self, folder: Path) -> None:
        """Write history.csv, val_psnr_by_frame.csv and TensorBoard's events. Raises as `files.write` does."""
        files.write(folder / "history.csv", _csv(COLUMNS, self.rows))
        curves = self.psnr_by_frame
        frames = [
            {"frame": frame, **dict(zip(curves, values, strict=True))}
            for frame, values in enumerate(zip(*curves.values(), strict=True), 1)
        ]
        files.write(folder / "val_psnr_by_frame.csv", _csv(("frame", "last", "best"), frames))
        self._events.write(folder / "tensorboard", self.rows)


def _csv(columns: tuple[str, ...], rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
