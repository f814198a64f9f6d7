"""tools/study_page.py: the table, the curves and the page of finished runs."""

import dataclasses
import math

import pytest

from tests.tools.study_files import finished
from tools import study_page
from tools.study_page import mean_and_interval


def test_interval_is_student_s(monkeypatch):
    assert mean_and_interval([30.0, 31.0]) == (30.5, None)
    center, half = mean_and_interval([29.0, 30.0, 31.0])
    assert center == 30 and half == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    eleven = [float(value) for value in range(11)]
    assert mean_and_interval(eleven)[1] == pytest.approx(2.228, rel=1e-3)
    monkeypatch.setattr(study_page.importlib.util, "find_spec", lambda name: None)  # without scipy
    assert mean_and_interval(eleven) == (5.0, None)


def test_table_leaves_empty_what_is_not_known(tmp_path):
    runs = [
        finished(tmp_path, "short", psnr=range(20, 24), frames=50),
        finished(tmp_path, "long", psnr=range(20, 35), frames=101, drift=-0.001),
        finished(tmp_path, "no truth", psnr=range(20, 25), frames=101, truth=False),
    ]
    heading, *lines = study_page.table(runs)
    short, long, no_truth = (dict(zip(heading, line, strict=True)) for line in lines)
    assert (short["drift"], long["drift"], no_truth["drift"]) == ("", "0.00", "")
    spread = "val, range over the last 20 %"
    assert (short[spread], long[spread]) == ("", "2.00")
    assert (short["PSNR"], no_truth["PSNR"], no_truth["epochs"]) == ("25.00", "", "5")
    assert (long["sequence 0"], long["sequence 1"], long["minutes"]) == ("25.00", "25.00", "7.5")


def test_table_has_an_interval_from_three_seeds_on(tmp_path):
    runs = [finished(tmp_path, str(seed), psnr=(20.0 + seed,)) for seed in range(3)]
    runs = [dataclasses.replace(run, name="a run") for run in runs]
    for count, cell in ((2, "20.50"), (3, "21.00 ± 2.48")):
        heading, line = study_page.table(runs[:count])
        cells = dict(zip(heading, line, strict=True))
        assert (cells["val, best"], cells["seeds"], cells["minutes"]) == (cell, str(count), "0.5")


def test_every_curve_is_a_column_of_a_run(tmp_path):
    points = finished(tmp_path, "a").points
    for _, name, plots in study_page.FIGURES:
        for title, x, _, columns in plots:
            for column in columns:
                assert any({x, column} <= point.keys() for point in points), (name, title, column)


def test_page_of_runs_without_truth_and_with_images_of_other_sizes(tmp_path):
    runs = [
        finished(tmp_path, "a", truth=False),
        finished(tmp_path, "costs $1 | $2", truth=False, size=(16, 32), frames=4, annealing="Monotonic"),
    ]
    study_page.write_pages(tmp_path, "t", runs)
    page = (tmp_path / "study.md").read_text()
    assert "costs $1 \\| $2" in page and "| PSNR |" not in page
    assert sorted(path.suffix for path in tmp_path.glob("*.*")) == [".gif", ".html", ".md"] + [".png"] * 4
