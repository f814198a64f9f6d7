import csv

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from engine.history import COLUMNS, History, best_row


def row(epoch, psnr):
    return dict.fromkeys(COLUMNS, 0.5) | {"epoch": epoch, "val_psnr": psnr, "psnr_by_frame": [psnr, psnr]}


def test_best_is_the_highest_psnr_so_far(tmp_path):
    history = History(tmp_path)
    assert [history.add(row(e, p)) for e, p in enumerate((20.0, 19.0, 21.0))] == [True, False, True]
    assert history.best_psnr == 21.0
    assert history.psnr_by_frame == {"last": [21.0, 21.0], "best": [21.0, 21.0]}


def test_records_are_whole_after_a_resume(tmp_path):
    history = History(tmp_path)
    for epoch in range(3):
        history.add(row(epoch, 20.0 + epoch))
        history.write()
    state = history.state_dict()
    del history
    resumed = History(tmp_path, state)
    resumed.add(row(3, 30.0))
    resumed.write()
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(r["val_psnr"]) for r in rows] == [20.0, 21.0, 22.0, 30.0]
    assert tuple(rows[0]) == COLUMNS
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("val_psnr")] == [(0, 20), (1, 21), (2, 22), (3, 30)]


def test_epoch_without_validation_has_empty_cells_and_is_not_the_best(tmp_path):
    history = History(tmp_path)
    unvalidated = dict.fromkeys(COLUMNS, 0.5) | {"epoch": 1}
    del unvalidated["val_psnr"], unvalidated["val_loss"]
    assert history.add(row(0, 20.0))
    history.write()
    assert not history.add(unvalidated)
    history.write()
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["val_psnr"] for r in rows] == ["20.0", ""]
    assert best_row(history.rows)["epoch"] == 0
    assert history.psnr_by_frame["last"] == [20.0, 20.0]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("loss")] == [0, 1]
    assert [e.step for e in events.Scalars("val_psnr")] == [0]


def test_branch_counts_from_the_epoch_it_starts_from(tmp_path):
    history = History(tmp_path)
    history.add(row(0, 25.0))
    history.add(row(1, 20.0))
    branch = History(tmp_path, History.branch(history.state_dict()))
    assert branch.best_psnr == 20.0 and len(branch.rows) == 2
    assert branch.psnr_by_frame["best"] == [20.0, 20.0]
