"""tools/study.py on a small dataset: runs, a stop in between, and the page."""

import contextlib
import json
import os
import re
import signal
import tempfile
import time
from pathlib import Path

import pytest

import Tester
import Trainer
from runtime.cli import UserError
from tests.helpers import FORKS, SMALL_UNET, assert_user_error, run_script, start_script, wait
from tests.tools.study_files import write_test, write_training
from tools import study
from training import configuration

REAL_CALL = study.call
FLAGS = [*SMALL_UNET, "--batch_size=2", "--device=cpu"]


@pytest.fixture
def file(tmp_path):
    (tmp_path / "two.txt").write_text('# two runs\nslow: --lr 0.0001\n\nfast one: --lr "0.01"\n')
    return tmp_path / "two.txt"


def arguments(dataset, file, folder, *more):
    return [str(file), "--DR", str(dataset), "--save_root", str(folder), "--num_epoch=2", *FLAGS, *more]


@pytest.fixture
def calls(monkeypatch):
    """The scripts that a study calls, with "--resume"; each leaves what it usually leaves, but no page."""
    names = []

    def call(script, *arguments):
        names.append(f"{script} --resume" if "--resume" in arguments else script)
        folder = arguments[arguments.index("--save_root") + 1]
        if script == "Tester.py":
            write_test(folder)
        else:
            write_training(folder)

    monkeypatch.setattr(study, "call", call)
    monkeypatch.setattr(study, "write_pages", lambda *_: None)
    return names


def processes_that_name(folder):
    """The command lines of the running processes that name a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_text().replace("\0", " "))
    return [line for line in lines if str(folder) in line]


@pytest.mark.skipif(not FORKS, reason="asks /proc for processes")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_ended_study_takes_its_training_run_along(dataset, file, tmp_path, signum):
    folder = tmp_path / "study"
    with tempfile.TemporaryFile() as errors:
        command = arguments(dataset, file, folder)
        process = start_script("tools/study.py", *command, errors=errors.fileno())
        until = time.monotonic() + 60
        while not processes_that_name(folder):
            assert time.monotonic() < until
            time.sleep(0.02)
        os.kill(process, signum)
        code = wait(process)
        errors.seek(0)
        text = errors.read().decode()
    while running := processes_that_name(folder):
        assert time.monotonic() < until, running
        time.sleep(0.05)
    if signum == signal.SIGTERM:
        assert code == 128 + signum and "study.py: stopped by SIGTERM" in text and "Traceback" not in text


def test_runs_are_trained_tested_and_shown_on_a_page(dataset, file, tmp_path, monkeypatch):
    scripts = {"Trainer.py": Trainer, "Tester.py": Tester}
    monkeypatch.setattr(study, "call", lambda name, *words: scripts[name].main([str(word) for word in words]))
    file.write_text('fast one: --lr "0.01"\n')
    folder = tmp_path / "study"
    study.main(arguments(dataset, file, folder, "--seeds=2"))
    args = json.loads((folder / "runs/fast_one/seed=1/args.json").read_text())
    assert (args["lr"], args["seed"], args["num_epoch"]) == (0.01, 1, 2)
    results = [folder / f"runs/fast_one/seed={seed}/test/results.json" for seed in (0, 1)]
    scores = [json.loads(path.read_text())["average"]["psnr"] for path in results]
    page = (folder / "study.md").read_text()
    assert f"| {sum(scores) / 2:.2f} |" in page and "| fast one | `" in page and "--lr 0.01" in page
    for name in re.findall(r"!\[.*\]\((.*)\)", page):
        assert (folder / name).stat().st_size > 1000
    html = (folder / "study.html").read_text()
    assert html.count("data:image/png;base64,") == 4 and html.count("data:image/gif;base64,") == 1
    assert 'src="http' not in html


def test_stopped_study_is_continued(calls, file, tmp_path):
    command = arguments("data", file, tmp_path / "study")
    study.main(command)
    assert calls == ["Trainer.py", "Tester.py"] * 2
    calls.clear()
    (tmp_path / "study/runs/slow/seed=0/test/results.json").unlink()
    study.main(command)
    assert calls == ["Trainer.py --resume", "Tester.py"]


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

    def call_that_fails(script, *arguments):
        if "bad" in str(arguments[arguments.index("--save_root") + 1]):
            REAL_CALL(f"no_{script}")
        call(script, *arguments)

    monkeypatch.setattr(study, "call", call_that_fails)
    monkeypatch.setattr(study, "write_pages", lambda *page: pages.append(page[2]))
    with pytest.raises(UserError, match="1 of 2 runs failed"):
        study.main(arguments("data", file, tmp_path / "study"))
    assert "bad, seed 0: no_Trainer.py failed with exit code 2" in capsys.readouterr().err
    assert [[run.name for run in page] for page in pages] == [["good"]]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no runs"),
        ("only a name\n", "line 1"),
        ("a: --lr 1\na: --lr 2\n", "second"),
        ("a: '\n", "line 1"),
    ],
)
def test_study_file_that_is_none(file, tmp_path, text, word):
    file.write_text(text)
    with pytest.raises(UserError, match=word):
        study.main(arguments("data", file, tmp_path / "s"))
    with pytest.raises(UserError, match="nothing: neither a study"):
        study.main(arguments("data", "nothing", tmp_path / "s"))


@pytest.mark.parametrize(
    ("runs", "flag", "words"),
    [
        ("a:\nb: --tfr_sde 10", ["--tfr_sde", "5"], ["b sets --tfr_sde itself", "command line"]),
        ("a: --max_minutes=1", [], ["a sets --max_minutes itself", "leave --num_epoch out"]),
        ("a: --num_epoch 3", [], ["a sets --num_epoch itself", "leave --num_epoch out"]),
        ("a: --fast_train", ["--fast_train"], ["a sets --fast_train itself"]),
        ("a:", ["--seed", "3"], ["command line", "--seed"]),
        ("a: --save_root=b", [], ["a: --save_root"]),
        ("a:", ["--tfr_s", "5"], ["--tfr_s", "unabbreviated"]),
    ],
)
def test_flag_that_would_be_overridden_is_refused(calls, file, tmp_path, runs, flag, words):
    file.write_text(runs)
    with pytest.raises(UserError) as error:
        study.main(arguments("data", file, tmp_path / "study", *flag))
    assert all(word in str(error.value) for word in words)
    assert not (tmp_path / "study").exists() and not calls


@pytest.mark.parametrize("flags", ["--lr -1", "--no_such_flag 1", "0.1"])
def test_wrong_flag_in_a_study_is_refused_before_any_run(file, tmp_path, flags, capsys):
    file.write_text(f"good:\nbad: {flags}\n")
    with pytest.raises(SystemExit) as ended:
        study.main(arguments("data", file, tmp_path / "study"))
    assert ended.value.code == 2 and flags.split()[0] in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("name", sorted(study.STUDIES))
def test_studies_of_the_project_have_flags_that_trainer_knows(name):
    runs = study.read_study(name)
    assert len(runs) > 3
    for flags in runs.values():
        configuration.trainer_args(["--DR=d", "--save_root=r", *flags])


def test_schedule_that_a_run_is_too_short_for_is_named_before_training(calls, file, tmp_path, capsys):
    study.main(["--DR=data", f"--save_root={tmp_path}", str(file), "--num_epoch=2", "--kl_anneal_cycle=10"])
    printed = capsys.readouterr().out
    assert printed.index("slow: --kl_anneal_cycle 10: at least as long as the run") < printed.index("[1/2]")
