import os
import subprocess
import sys
import time

import pytest
import torch

import Trainer
from engine import threads
from engine.threads import Load, set_threads
from tests.helpers import SMALL_UNET, run_script


@pytest.fixture(autouse=True)
def keep_number_of_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("wanted", "busy", "number"),
    [
        (None, 0.0, 4),
        (None, 0.4, 4),
        (None, 1.0, 3),
        (None, 2.7, 1),
        (None, 9.0, 1),
        (3, 9.0, 3),
        (6, 0.0, 6),
    ],
)
def test_threads_are_the_free_cores_unless_a_number_is_given(monkeypatch, wanted, busy, number):
    monkeypatch.setattr(threads, "cores", lambda: 4)
    torch.set_num_threads(4)
    set_threads(wanted, busy)
    assert torch.get_num_threads() == number


def test_fewer_threads_that_were_set_before_stay(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 4)
    torch.set_num_threads(2)
    set_threads(None, 0.0)
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(not threads.STATISTICS.exists(), reason="asks Linux")
def test_work_of_another_program_is_seen_and_own_work_is_not(monkeypatch):
    core = min(os.sched_getaffinity(0))
    command = f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"
    alone = Load()
    sum(range(10**7))
    seen_alone = alone.busy_cores()
    with subprocess.Popen([sys.executable, "-c", command]) as other:
        time.sleep(0.2)
        load = Load()
        time.sleep(1)
        seen = load.busy_cores()
        other.kill()
    # Other tests run beside this one, and they count, too.
    assert seen > 0.3 and seen <= threads.cores() + 0.1
    assert seen_alone < threads.cores()


def test_system_without_statistics_counts_as_free(monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "STATISTICS", tmp_path / "none")
    assert Load().busy_cores() == 0.0


def test_flag_sets_the_threads_of_both_scripts(dataset, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Trainer, "set_threads", lambda wanted, busy: seen.append(wanted))
    command = [
        "--DR",
        str(dataset),
        "--save_root",
        str(tmp_path),
        *SMALL_UNET,
        "--num_epoch=1",
        "--device=cpu",
    ]
    Trainer.main([*command, "--threads=3"])
    assert seen == [3]
    done = run_script("Trainer.py", *command, "--overwrite", f"--threads={threads.cores() + 1}")
    assert f"on cpu with {threads.cores() + 1} threads" in done.stdout
