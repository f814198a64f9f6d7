import csv
import sys
import time

import numpy as np
import pytest

from training.history import COLUMNS, History
from training.schedules import Step, epoch_record

STEP = Step(0.0, tfr=0.5, teacher_forcing=False, clip_length=3, lr=0.25, clips=None, num_left=1)


def record(epoch, psnr=None):
    """The record of an epoch of two steps, whose beta is its number; without `psnr` it had no validation."""
    values = {name: 0.5 for name in COLUMNS if psnr or not name.startswith("val_")}
    values |= {"epoch": epoch, "steps": [STEP._replace(beta=epoch)] * 2}
    return values | ({"val_psnr": psnr, "psnr_by_frame": [psnr] * 2} if psnr else {})


def history_of(*psnrs):
    history = History()
    for epoch, psnr in enumerate(psnrs):
        history.add(record(epoch, psnr))
    return history


def resumed(history):
    other = History()
    other.load_state_dict(history.state_dict())
    return other


def val_psnr_column(folder):
    with (folder / "history.csv").open() as file:
        return [row["val_psnr"] for row in csv.DictReader(file)]


def logged(folder, name="val_psnr"):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_best_epoch_has_the_highest_psnr_and_is_the_first_of_equals():
    history, is_best = History(), []
    for epoch, psnr in enumerate((20.0, 19.0, 21.0, 21.0, None)):
        history.add(record(epoch, psnr))
        is_best.append(history.last_is_best())
    assert is_best == [True, False, True, False, False]
    assert history.best_row()["epoch"] == 2
    assert history.psnr_by_frame == {"last": [21.0, 21.0], "best": [21.0, 21.0]}


def test_files_are_complete_after_a_resume_from_an_earlier_epoch(tmp_path):
    history = history_of(20.0, None)
    history.write(tmp_path)
    continued = resumed(history)
    history.add(record(2, 99.0))
    history.write(tmp_path)  # killed before its checkpoint was written
    time.sleep(1)  # event files are ordered by the second in their names
    for epoch, psnr in ((2, 22.0), (3, 30.0)):
        continued.add(record(epoch, psnr))
        continued.write(tmp_path)
    assert val_psnr_column(tmp_path) == ["20.0", "", "22.0", "30.0"]
    assert logged(tmp_path) == [(0, 20.0), (2, 22.0), (3, 30.0)]
    assert [step for step, _ in logged(tmp_path, "loss")] == [0, 1, 2, 3]
    assert np.array_equal(continued.steps, [[beta, 0.5, 0, 3, 0.25] for beta in (0, 0, 1, 1, 2, 2, 3, 3)])


def test_row_of_an_epoch_has_the_ranges_of_its_steps():
    steps = [STEP._replace(beta=0.3, tfr=1.0, teacher_forcing=True), STEP._replace(beta=1.0, clip_length=5)]
    steps = [*steps, STEP._replace(beta=0.5, lr=0.125)]
    history = History()
    history.add(record(0) | epoch_record(steps) | {"steps": steps})
    expected = {"beta_min": 0.3, "beta_max": 1, "tfr": 0.5, "teacher_forcing": pytest.approx(1 / 3),
                "clip_length_min": 3, "clip_length_max": 5, "lr": 0.125}  # fmt: skip
    assert {name: history.rows[0][name] for name in expected} == expected


def test_row_of_an_earlier_checkpoint_has_the_one_value_of_its_epoch(tmp_path):
    state = history_of(20.0).state_dict()
    del state["steps"]
    row = state["rows"][0]
    for name, value in (("beta", 0.25), ("clip_length", 9)):
        del row[f"{name}_min"], row[f"{name}_max"]
        row[name] = value
    history = History()
    history.load_state_dict(state)
    expected = {"beta_min": 0.25, "beta_max": 0.25, "clip_length_min": 9, "clip_length_max": 9, "loss": 0.5}
    assert {name: history.rows[0][name] for name in expected} == expected
    history.plot(tmp_path, "Cyclical")
    # The values of its steps are not known.
    assert (tmp_path / "losses.png").is_file() and not (tmp_path / "schedules.png").exists()


def test_validation_may_become_longer_than_the_best_one(tmp_path):
    history = history_of(20.0)
    history.add(record(1, 10.0) | {"psnr_by_frame": [10.0] * 3})
    history.write(tmp_path)
    lines = (tmp_path / "val_psnr_by_frame.csv").read_text().split()
    assert lines[1:] == ["1,10.0,20.0", "2,10.0,20.0", "3,10.0,"]


def test_run_without_tensorboard_says_so_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    history = history_of(20.0)
    for _ in range(2):
        history.write(tmp_path)
    assert capsys.readouterr().out.count("pip install tensorboard") == 1
    assert val_psnr_column(tmp_path) == ["20.0"]


@pytest.mark.parametrize("last_psnr", [20.0, None])
@pytest.mark.parametrize("next_psnr", [10.0, 30.0])
def test_branch_has_its_own_best_epoch(last_psnr, next_psnr):
    """The best of the former run, 25 dB, does not count."""
    history = history_of(25.0, last_psnr)
    history.branch()
    assert history.last_is_best() == (last_psnr is not None)
    assert history.psnr_by_frame.get("best") == (last_psnr and [last_psnr] * 2)
    history.add(record(2, next_psnr))
    assert resumed(history).best_row()["val_psnr"] == max(next_psnr, last_psnr or 0)
