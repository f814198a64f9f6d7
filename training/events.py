"""The scalars of a run, epoch by epoch, as an event file of TensorBoard."""

import time
from pathlib import Path

from runtime import files

PREFIX = "events.out.tfevents."


class Events:
    """Writes one event file for a run, however often the run was stopped.

    TensorBoard's own writer has a thread, in which a full disk ends in a traceback and a wait without end.
    """

    def __init__(self):
        self._path: Path | None = None
        self._rows_written = 0

    def write(self, folder: Path, rows: list[dict]) -> None:
        """Append the rows that are new; the first call writes all to a new file, and removes former ones.

        Args:
            rows: of all epochs; values by name, `epoch` and `seconds` among them.

        Raises:
            WriteError: the disk is full, or the folder cannot be written.
        """
        # Imported here: it takes a second, and a run that ends early never needs it.
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        with files.writing(folder):
            folder.mkdir(exist_ok=True)
            former = [] if self._path else [path for path in folder.iterdir() if path.name.startswith(PREFIX)]
            self._path = self._path or folder / f"{PREFIX}{_next_number(former)}"
        with files.writing(self._path), self._path.open("ab") as file:
            writer = RecordWriter(file)
            if not self._rows_written:
                writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            for index, row in enumerate(rows[self._rows_written :], self._rows_written):
                ended = time.time() - sum(later["seconds"] for later in rows[index + 1 :])
                writer.write(_event(row, ended).SerializeToString())
        self._rows_written = len(rows)
        for path in former:
            path.unlink(missing_ok=True)


def _next_number(former: list[Path]) -> int:
    """The time in seconds, or more: TensorBoard reads files in this order, and a clock may jump back."""
    numbers = [path.name.removeprefix(PREFIX).partition(".")[0] for path in former]
    return max([int(time.time()), *(int(number) + 1 for number in numbers if number.isdecimal())])


def _event(row: dict, ended: float):
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [
        Summary.Value(tag=name, simple_value=float(value))
        for name, value in row.items()
        if name != "epoch" and value is not None
    ]
    return Event(wall_time=ended, step=row["epoch"], summary=Summary(value=values))
