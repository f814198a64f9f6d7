"""tools/study.py on a small dataset: runs, a stop in between, and the page."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.cli import UserError
from tests.helpers import (
    ROOT,
    SMALL_UNET,
    assert_succeeds,
    assert_user_error,
    one_thread,
    run_script,
)
from tests.tools.study_files import write_test, write_training
from tools import study
from training import options

REAL_CALL = study.call
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


@pytest.fixture
def calls(monkeypatch):
    """The scripts that a study calls, by name; each leaves what it usually leaves. No page is written."""
    names = []

    def call(script, *arguments):
        names.append(script)
        folder = arguments[arguments.index("--save_root") + 1]
        if script == "Tester.py":
            write_test(folder)
        elif "--resume" not in arguments:
            write_training(folder)

    monkeypatch.setattr(study, "call", call)
    monkeypatch.setattr(study, "write_pages", lambda *_: None)
    return names


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="asks /proc for processes")
def test_killed_study_takes_its_training_run_along_and_goes_on_where_it_was(dataset, file, tmp_path):
    folder = tmp_path / "study"
    file.write_text('fast one: --lr "0.01"\n')
    command = arguments(dataset, file, folder, "--seeds=2")
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.study", *command],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=one_thread(),
    )  # fmt: skip
    while not (folder / "study.md").exists():
        assert process.poll() is None
        time.sleep(0.05)
    while not (folder / "runs/fast_one/seed=1/.lock").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    until = time.monotonic() + 60
    while running := processes_that_name(folder):
        assert time.monotonic() < until, running
        time.sleep(0.1)
    results = folder / "runs/fast_one/seed=0/test/results.json"
    time_of_results = results.stat().st_mtime_ns
    output = assert_succeeds(run_script("tools/study.py", *command))
    assert "[2/2] fast one, seed 1" in output
    assert results.stat().st_mtime_ns == time_of_results
    check_page(folder)
    first = json.loads((folder / "runs/fast_one/seed=0/args.json").read_text())
    assert (first["lr"], first["seed"], first["num_epoch"]) == (0.01, 0, 2)


def processes_that_name(folder):
    """The command lines of the running processes that name a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_text().replace("\0", " "))
    return [line for line in lines if str(folder) in line]


def test_signal_ends_a_study(dataset, file, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.study", *arguments(dataset, file, tmp_path / "study")],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=one_thread(),
    )  # fmt: skip
    while not list((tmp_path / "study").glob("runs/*/seed=0/study.json")):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "study.py: stopped by SIGTERM" in errors and "Traceback" not in errors


def check_page(folder):
    """The mean of both seeds, pictures that are there, and nothing from elsewhere."""
    scores = [
        json.loads((folder / f"runs/fast_one/seed={seed}/test/results.json").read_text())["average"]["psnr"]
        for seed in (0, 1)
    ]
    page = (folder / "study.md").read_text()
    assert f"| {sum(scores) / 2:.2f} |" in page
    assert "| fast one | `" in page and "--lr 0.01" in page
    for name in re.findall(r"!\[.*\]\((.*)\)", page):
        assert (folder / name).stat().st_size > 1000
    html = (folder / "study.html").read_text()
    assert html.count("data:image/png;base64,") == 4 and html.count("data:image/gif;base64,") == 1
    assert 'src="http' not in html
    assert not list(folder.glob(".*"))


def test_run_that_was_begun_with_other_flags_is_not_mixed_in(dataset, file, tmp_path):
    begun = tmp_path / "study" / "runs" / "slow" / "seed=0"
    begun.mkdir(parents=True)
    (begun / "study.json").write_text(json.dumps([*FLAGS, "--lr", "0.0002", "--num_epoch", "2"]))
    done = run_script("tools/study.py", *arguments(dataset, file, tmp_path / "study"))
    assert_user_error(done, str(begun), "--lr 0.0001", "--lr 0.0002", "--save_root")
    assert [path.name for path in begun.iterdir()] == ["study.json"]


def test_failed_run_is_named_and_the_others_are_finished(calls, file, tmp_path, monkeypatch, capsys):
    file.write_text("bad: --lr 0.1\ngood: --lr 0.001\n")
    call, pages = study.call, []

    def call_that_fails_once(script, *arguments):
        if "bad" in str(arguments[arguments.index("--save_root") + 1]):
            REAL_CALL(f"no_{script}")
        call(script, *arguments)

    monkeypatch.setattr(study, "call", call_that_fails_once)
    monkeypatch.setattr(study, "write_pages", lambda *page: pages.append(page[2]))
    with pytest.raises(UserError, match="1 of 2 runs failed"):
        study.main(arguments("data", file, tmp_path / "study"))
    assert "bad, seed 0: no_Trainer.py ended with exit code 2" in capsys.readouterr().err
    assert [[run.name for run in page] for page in pages] == [["good"]]


@pytest.mark.parametrize("name", ["results.json", "pred_seq1.npz"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_run_counts_as_tested_only_if_its_results_can_be_read(calls, file, tmp_path, name, damage):
    command = arguments("data", file, tmp_path / "study")
    study.main(command)
    assert calls == ["Trainer.py", "Tester.py"] * 2
    path = tmp_path / "study/runs/slow/seed=0/test" / name
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    calls.clear()
    study.main(command)
    assert calls == ["Trainer.py", "Tester.py"]
    assert path.stat().st_size == len(whole)


@pytest.mark.parametrize("name", ["args.json", "history.csv", "study.json"])
@pytest.mark.parametrize("text", ["", "{", "epoch,loss\n0,", "\0"])
def test_damaged_record_of_training_is_named_in_one_line(calls, file, tmp_path, capsys, name, text):
    command = arguments("data", file, tmp_path / "study")
    study.main(command)
    path = tmp_path / "study/runs/slow/seed=0" / name
    path.write_text(text)
    with pytest.raises(UserError) as error:
        study.main(command)
    lines = [*capsys.readouterr().err.splitlines(), str(error.value)]
    assert len([line for line in lines if f"{path}: missing or damaged" in line and "delete" in line]) == 1


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


@pytest.mark.parametrize(
    ("runs", "flag", "words"),
    [
        ("a:\nb: --tfr_sde 10", ["--tfr_sde", "5"], ["b sets --tfr_sde itself", "command line"]),
        ("a: --max_minutes=1", [], ["a sets --max_minutes itself", "leave --num_epoch out"]),
        ("a: --num_epoch 3", [], ["a sets --num_epoch itself", "leave --num_epoch out"]),
        ("a: --fast_train", ["--fast_train"], ["a sets --fast_train itself"]),
        ("a:", ["--seed", "3"], ["command line", "--seed"]),
        ("a: --save_root=b", [], ["a: --save_root"]),
        ("a:", ["--tfr_s", "5"], ["--tfr_s", "in full"]),
    ],
)
def test_flag_that_would_be_overridden_is_refused(calls, file, tmp_path, runs, flag, words):
    file.write_text(runs)
    with pytest.raises(UserError) as error:
        study.main(arguments("data", file, tmp_path / "study", *flag))
    assert all(word in str(error.value) for word in words)
    assert not (tmp_path / "study").exists() and not calls


def test_flag_whose_name_begins_with_that_of_another_is_no_clash(calls, file, tmp_path):
    file.write_text("a: --tfr 1")
    study.main(arguments("data", file, tmp_path / "study", "--tfr_sde", "5"))
    assert json.loads((tmp_path / "study/runs/a/seed=0/study.json").read_text())[-2:] == ["--tfr", "1"]


@pytest.mark.parametrize("flags", ["--lr -1", "--no_such_flag 1", "0.1"])
def test_wrong_flag_in_a_study_is_refused_before_any_run(dataset, file, tmp_path, flags):
    file.write_text(f"good:\nbad: {flags}\n")
    done = run_script("tools/study.py", *arguments(dataset, file, tmp_path / "study"))
    assert_user_error(done, flags.split()[0])
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("name", sorted(study.STUDIES))
def test_studies_that_come_along_hold_flags_that_trainer_knows(name, tmp_path):
    runs = study.read_study(name)
    assert len(runs) > 3
    for flags in runs.values():
        options.trainer_args(["--DR=d", "--save_root=r", *flags])


def test_runs_of_the_report_set_their_own_epochs(file, tmp_path):
    runs = study.read_study("report")
    assert list(runs) == ["A", "B", "Monotonic", "Without annealing", "Best"]
    args = {name: options.trainer_args(["--DR=d", "--save_root=r", *flags]) for name, flags in runs.items()}
    assert [run.num_epoch for run in args.values()] == [22, 22, 22, 22, 100]
    assert {run.recipe for run in args.values()} == {"lab"} and args["B"].tfr == 1 and args["A"].tfr == 0
    with pytest.raises(UserError, match="A sets --num_epoch itself; leave --max_minutes out"):
        study.check_flags(runs, ["--max_minutes", "5"])


def test_schedule_that_would_act_after_the_end_of_a_run_is_named_before_training(
    calls, file, tmp_path, capsys
):
    file.write_text("cyclical: --kl_anneal_type Cyclical\nmonotonic: --kl_anneal_type Monotonic\n")
    flags = ["--num_epoch=2", "--kl_anneal_cycle=10"]
    study.main(["--DR=data", f"--save_root={tmp_path / 'study'}", str(file), *flags])
    printed = capsys.readouterr().out
    for run in ("cyclical", "monotonic"):
        assert printed.index(f"{run}: --kl_anneal_cycle 10: as long as the run") < printed.index("[1/2]")
