"""The records of a run: one row an epoch, as history.csv, in TensorBoard, and in the checkpoint."""

import csv
import io
from pathlib import Path

from . import files

COLUMNS = (
    "epoch", "loss", "mse", "kl", "beta", "tfr", "teacher_forcing", "lr", "val_loss", "val_psnr",
    "seconds", "clips_per_second", "skipped_steps",
)  # fmt: skip


def validated(rows: list[dict]) -> list[dict]:
    """The rows of the epochs that ended with a validation."""
    return [row for row in rows if row["val_psnr"] is not None]


def best_row(rows: list[dict]) -> dict:
    """The row of the epoch with the best validation PSNR."""
    return max(validated(rows), key=lambda row: row["val_psnr"])


class History:
    """What a run has done so far.

    Args:
        folder: where history.csv and the TensorBoard events go.
        state: what `state_dict` returned, to go on from.
    """

    def __init__(self, folder: Path, state: dict | None = None):
        state = state or {}
        self.folder = folder
        self.rows: list[dict] = list(state.get("rows", []))
        # PSNR by frame of the latest and of the best validation: too long for a row.
        self.psnr_by_frame: dict[str, list[float]] = dict(state.get("psnr_by_frame", {}))
        self.best_psnr: float = state.get("best_psnr", float("-inf"))
        self._tensorboard = None

    def state_dict(self) -> dict:
        """Plain values, for a checkpoint."""
        return {"rows": self.rows, "psnr_by_frame": self.psnr_by_frame, "best_psnr": self.best_psnr}

    @staticmethod
    def branch(state: dict) -> dict:
        """The state for a run that goes on elsewhere: its best epoch is the one it starts from."""
        last = state["psnr_by_frame"]["last"]
        return state | {
            "best_psnr": validated(state["rows"])[-1]["val_psnr"],
            "psnr_by_frame": {"last": last, "best": last},
        }

    def add(self, row: dict) -> bool:
        """Append an epoch; returns whether its validation PSNR is the best so far.

        Args:
            row: a value for each column, and `psnr_by_frame`; those of a validation are missing if there
                was none.
        """
        self.rows.append({column: row.get(column) for column in COLUMNS})
        if "val_psnr" not in row:
            return False
        best = row["val_psnr"] > self.best_psnr
        self.psnr_by_frame["last"] = row["psnr_by_frame"]
        if best:
            self.best_psnr = row["val_psnr"]
            self.psnr_by_frame["best"] = row["psnr_by_frame"]
        return best

    def write(self) -> None:
        """Rewrite history.csv, whole, and add the latest epoch to TensorBoard."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        files.write(self.folder / "history.csv", text.getvalue())
        self._to_tensorboard(self.rows[-1])

    def _to_tensorboard(self, row: dict) -> None:
        if self._tensorboard is None:
            # Imported here: it takes a second, and a run that ends early never needs it.
            from torch.utils.tensorboard import SummaryWriter

            # Rows after the resumed epoch, of the run that was stopped, disappear.
            self._tensorboard = SummaryWriter(self.folder / "tensorboard", purge_step=row["epoch"])
        for column in COLUMNS[1:]:
            if row[column] is not None:
                self._tensorboard.add_scalar(column, float(row[column]), row["epoch"])
        self._tensorboard.flush()
