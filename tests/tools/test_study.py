"""tools/study.py on a small dataset: runs, a stop in between, and the page."""

import json
import math
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers import (
    ROOT,
    SMALL_UNET,
    assert_succeeds,
    assert_user_error,
    one_thread,
    run_script,
)
from tools import study
from tools.study_page import mean_and_interval

TWO_RUNS = """# two runs
slow: --lr 0.0001

fast one: --lr "0.01"
"""
FLAGS = [*SMALL_UNET, "--batch_size=2", "--device=cpu"]


@pytest.fixture
def file(tmp_path):
    (tmp_path / "two.txt").write_text(TWO_RUNS)
    return tmp_path / "two.txt"


def arguments(dataset, file, folder, *more):
    return [str(file), "--DR", str(dataset), "--save_root", str(folder), "--num_epoch=2", *FLAGS, *more]


def test_stopped_study_goes_on_where_it_was_and_writes_the_page(dataset, file, tmp_path):
    folder = tmp_path / "study"
    command = arguments(dataset, file, folder, "--seeds=2")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools/study.py"), *command],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=one_thread(),
    )  # fmt: skip
    while not (folder / "study.md").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    finished = folder / "runs/slow/seed=0/test/results.json"
    done = finished.stat().st_mtime_ns
    output = assert_succeeds(run_script("tools/study.py", *command))
    assert "[4/4] fast one, seed 1" in output
    assert finished.stat().st_mtime_ns == done
    check_page(folder)
    first = json.loads((folder / "runs/slow/seed=0/args.json").read_text())
    assert (first["lr"], first["seed"], first["num_epoch"]) == (0.0001, 0, 2)


def check_page(folder):
    """Scores of both seeds, pictures that are there, and nothing from elsewhere."""
    scores = [
        json.loads((folder / f"runs/fast_one/seed={seed}/test/results.json").read_text())["average"]["psnr"]
        for seed in (0, 1)
    ]
    half = 12.706 * abs(scores[0] - scores[1]) / 2
    page = (folder / "study.md").read_text()
    assert f"{sum(scores) / 2:.2f} ± {half:.2f}" in page
    assert "| slow | `" in page and "--lr 0.0001" in page
    for name in re.findall(r"!\[.*\]\((.*)\)", page):
        assert (folder / name).stat().st_size > 1000
    html = (folder / "study.html").read_text()
    assert html.count("data:image/png;base64,") == 4 and html.count("data:image/gif;base64,") == 1
    assert 'src="http' not in html


def test_run_that_was_begun_with_other_flags_is_not_mixed_in(dataset, file, tmp_path):
    begun = tmp_path / "study" / "runs" / "slow" / "seed=0"
    begun.mkdir(parents=True)
    (begun / "study.json").write_text(json.dumps([*FLAGS, "--lr", "0.0002", "--num_epoch", "2"]))
    done = run_script("tools/study.py", *arguments(dataset, file, tmp_path / "study"))
    assert_user_error(done, str(begun), "--lr 0.0001", "--lr 0.0002", "--save_root")
    assert [path.name for path in begun.iterdir()] == ["study.json"]


def test_failed_run_is_named_and_the_others_are_finished(dataset, file, tmp_path):
    file.write_text("bad: --lr -1\ngood: --lr 0.001\n")
    done = run_script("tools/study.py", *arguments(dataset, file, tmp_path / "study"))
    assert done.returncode == 2 and "1 of 2 runs failed" in done.stderr and "bad, seed 0" in done.stderr
    assert "| good |" in (tmp_path / "study" / "study.md").read_text()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no runs"),
        ("only a name\n", "line 1"),
        ("a: --lr 1\na: --lr 2\n", "second"),
        ("a: '\n", "line 1"),
    ],
)
def test_study_file_that_is_none(dataset, file, tmp_path, text, word):
    file.write_text(text)
    assert_user_error(run_script("tools/study.py", *arguments(dataset, file, tmp_path / "s")), word)


def test_unknown_study_and_two_budgets(dataset, file, tmp_path):
    assert_user_error(
        run_script("tools/study.py", *arguments(dataset, "nothing", tmp_path)), "nothing", "report"
    )
    done = run_script("tools/study.py", *arguments(dataset, file, tmp_path, "--max_minutes=1"))
    assert_user_error(done, "--max_minutes")


@pytest.mark.parametrize("name", ["report", "recipe"])
def test_studies_that_come_along_hold_flags_that_trainer_knows(name, tmp_path):
    from engine import options

    runs = study.read_study(name)
    assert len(runs) > 3
    for flags in runs.values():
        options.resolve(options.trainer_parser(), ["--DR=d", "--save_root=r", *flags])


def test_interval_is_student_s():
    assert mean_and_interval([30.0]) == (30.0, None)
    centre, half = mean_and_interval([29.0, 30.0, 31.0])
    assert centre == 30 and half == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
