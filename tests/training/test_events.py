import os
import time

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from runtime.files import WriteError
from training.events import Events


def rows(count):
    return [
        {"epoch": epoch, "loss": 10.0 - epoch, "seconds": 5.0, "val_psnr": None} for epoch in range(count)
    ]


def read(folder, tag="loss"):
    events = EventAccumulator(str(folder)).Reload()
    return [(event.step, event.value, event.wall_time) for event in events.Scalars(tag)]


def test_rows_are_appended_and_empty_values_left_out(tmp_path):
    folder, events = tmp_path / "tensorboard", Events()
    events.write(folder, rows(1))
    first = next(folder.iterdir()).read_bytes()
    events.write(folder, rows(3))
    (path,) = folder.iterdir()
    assert path.read_bytes().startswith(first)
    assert [value[:2] for value in read(folder)] == [(0, 10.0), (1, 9.0), (2, 8.0)]
    assert EventAccumulator(str(folder)).Reload().Tags()["scalars"] == ["loss", "seconds"]


def test_stopped_run_has_one_file_again_with_all_rows_at_their_times(tmp_path, monkeypatch):
    folder = tmp_path / "tensorboard"
    Events().write(folder, rows(3))
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:-20])  # killed in the middle of a row
    monkeypatch.setattr(time, "time", lambda: 1000.0)  # the clock has jumped back
    Events().write(folder, rows(3))
    (again,) = folder.iterdir()
    assert again.name > path.name  # TensorBoard reads on in the order of the names
    assert read(folder) == [(0, 10.0, 990.0), (1, 9.0, 995.0), (2, 8.0, 1000.0)]


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(WriteError, match=r"cannot save .*tensorboard"):
        Events().write(tmp_path / "tensorboard", rows(1))
    folder, events = tmp_path / "other", Events()
    events.write(folder, rows(1))
    (path,) = folder.iterdir()
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(WriteError, match=f"{path.name}: {os.strerror(28)}"):
        events.write(folder, rows(2))
