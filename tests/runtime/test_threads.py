import os
import subprocess
import sys
import time

import pytest
import torch

from runtime import threads
from runtime.threads import Threads
from tests.helpers import SMALL_UNET, run_script


@pytest.fixture(autouse=True)
def keep_number_of_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def machine(monkeypatch):
    """A machine with four cores, of which other programs keep some busy in each of the next seconds."""
    monkeypatch.setattr(threads, "cores", lambda: 4)

    def with_busy(*busy):
        times = [(0.0, 0.0, 0.0)]
        for second, cores in enumerate(busy, 1):
            _, of_all, own = times[-1]
            times.append((float(second), of_all + cores + 1.5, own + 1.5))
        clock = iter(times)
        monkeypatch.setattr(threads, "_times", lambda: next(clock))

    return with_busy


@pytest.mark.parametrize(
    ("wanted", "at_first", "busy", "numbers"),
    [
        (None, 4, (0.0, 0.4, 1.0, 2.7, 9.0, 0.0), [4, 4, 3, 1, 1, 4]),
        (None, 4, (0.6, 0.9, 0.6, 0.1), [4, 3, 3, 4]),
        (None, 2, (0.0, 3.0, 0.0), [2, 1, 2]),
        (3, 4, (0.0, 9.0), [3, 3]),
        (6, 4, (0.0, 9.0), [6, 6]),
    ],
)
def test_threads_follow_the_free_cores_unless_a_number_is_given(machine, wanted, at_first, busy, numbers):
    machine(*busy)
    torch.set_num_threads(at_first)
    followed, seen, changes = Threads(wanted), [], []
    before = torch.get_num_threads()
    for _ in busy:
        changes.append(followed.update())
        seen.append(torch.get_num_threads())
    assert seen == numbers
    assert changes == [now != former for former, now in zip([before, *seen], seen, strict=False)]


def test_load_stands_in_the_text(machine):
    machine(0.0, 2.6)
    torch.set_num_threads(4)
    followed = Threads(None)
    followed.update()
    assert str(followed) == "4 threads"
    followed.update()
    assert str(followed) == "1 thread (other programs keep 2.6 of 4 cores busy)"


@pytest.mark.skipif(not threads.STATISTICS.exists(), reason="asks Linux")
def test_work_of_another_program_is_seen(monkeypatch):
    core = min(os.sched_getaffinity(0))
    command = f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", command]) as other:
        time.sleep(0.2)
        followed = Threads(None)
        time.sleep(1.1)
        followed.update()
        other.kill()
    # Other tests run beside this one, and they count, too.
    assert 0.3 < followed.busy_cores <= threads.cores() + 0.1


def test_system_without_statistics_counts_as_free(monkeypatch, tmp_path):
    monkeypatch.setattr(threads, "STATISTICS", tmp_path / "none")
    monkeypatch.setattr(threads, "LEAST_SECONDS", 0)
    followed = Threads(None)
    followed.update()
    assert followed.busy_cores == 0.0


def test_flag_sets_the_threads_and_the_first_line_says_so(dataset, tmp_path):
    command = ["--DR", dataset, "--save_root", tmp_path, *SMALL_UNET, "--num_epoch=1", "--device=cpu"]
    number = threads.cores() + 1
    done = run_script("Trainer.py", *command, f"--threads={number}")
    assert f"on cpu with {number} threads" in done.stdout.split("\n")[0]
