import csv

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.history import COLUMNS, History


def record(epoch, psnr=None):
    """The record of an epoch; without `psnr` it had no validation."""
    values = dict.fromkeys(COLUMNS, 0.5) | {"epoch": epoch}
    if psnr is None:
        del values["val_psnr"], values["val_loss"]
        return values
    return values | {"val_psnr": psnr, "psnr_by_frame": [psnr, psnr]}


def history_of(*psnrs):
    history = History()
    for epoch, psnr in enumerate(psnrs):
        history.add(record(epoch, psnr))
    return history


def test_best_is_the_highest_psnr_so_far():
    history, best = History(), []
    for epoch, psnr in enumerate((20.0, 19.0, 21.0, 21.0)):
        history.add(record(epoch, psnr))
        best.append(history.last_is_best())
    assert best == [True, False, True, False]
    assert history.best_row()["epoch"] == 2
    assert history.psnr_by_frame == {"last": [21.0, 21.0], "best": [21.0, 21.0]}
    assert History().best_row() is None


def test_records_are_complete_after_a_resume(tmp_path):
    history = History()
    for epoch in range(3):
        history.add(record(epoch, 20.0 + epoch))
        history.write(tmp_path)
    resumed = History()
    resumed.load_state_dict(history.state_dict())
    resumed.add(record(3, 30.0))
    resumed.write(tmp_path)
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_psnr"]) for row in rows] == [20.0, 21.0, 22.0, 30.0]
    assert tuple(rows[0]) == COLUMNS
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("val_psnr")] == [(0, 20), (1, 21), (2, 22), (3, 30)]


def test_epoch_without_validation_has_empty_cells_and_is_not_the_best(tmp_path):
    history = History()
    for epoch, psnr in enumerate((20.0, None)):
        history.add(record(epoch, psnr))
        history.write(tmp_path)
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["val_psnr"] for row in rows] == ["20.0", ""]
    assert history.best_row()["epoch"] == 0 and not history.last_is_best()
    assert history.psnr_by_frame["last"] == [20.0, 20.0]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("loss")] == [0, 1]
    assert [e.step for e in events.Scalars("val_psnr")] == [0]


def test_branch_has_a_best_epoch_of_its_own():
    history = history_of(25.0, 20.0)
    history.branch()
    assert history.last_is_best() and history.best_row()["epoch"] == 1
    assert history.psnr_by_frame["best"] == [20.0, 20.0]
    history.add(record(2, 22.0))
    assert history.last_is_best() and len(history.rows) == 3
    resumed = History()
    resumed.load_state_dict(history.state_dict())
    assert resumed.best_row()["epoch"] == 2


@pytest.mark.parametrize("next_psnr", [10.0, 30.0])
def test_branch_from_an_epoch_without_validation_has_no_best_until_its_first(next_psnr):
    history = history_of(25.0, None)
    history.branch()
    assert history.best_row() is None and not history.last_is_best()
    assert "best" not in history.psnr_by_frame
    history.add(record(2, next_psnr))
    assert history.best_row()["epoch"] == 2
