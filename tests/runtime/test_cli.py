"""How a script ends: signals at any moment, output that nobody reads, refusals of the system."""

import errno
import os
import signal
import tempfile
import time

import pytest
import torch
from torch.nn.functional import max_pool2d

from runtime import cli
from tests.helpers import FORKS, start, wait

pytestmark = pytest.mark.skipif(not FORKS, reason="runs copies of this process")


def outcome(main, signals=(), output=None):
    """Exit code and standard error of a script with this main, which gets signals after it has begun."""

    def script():
        cli.prepare()
        cli.run(main)

    with tempfile.TemporaryFile() as errors:
        child = start(script, output, errors.fileno())
        for signum in signals:
            time.sleep(0.3 if signum is signals[0] else 0.005)
            os.kill(child, signum)
        code = wait(child, 30)
        errors.seek(0)
        return code, errors.read().decode()


def work():
    """What takes long, in steps that a signal can interrupt."""
    for _ in range(3000):
        time.sleep(0.01)


@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGINT,), (signal.SIGTERM,), (signal.SIGHUP,), (signal.SIGINT, signal.SIGINT),
        (signal.SIGINT, signal.SIGTERM, signal.SIGINT), (signal.SIGHUP, signal.SIGTERM),
    ],
)  # fmt: skip
def test_signals_end_a_script_with_one_line(signals):
    code, errors = outcome(work, signals)
    assert code == 128 + signals[0]
    assert errors.splitlines() == [errors.strip()] and f"stopped by {signals[0].name}" in errors


def test_second_signal_does_not_stop_the_cleaning_up():
    def main():
        try:
            work()
        finally:
            time.sleep(0.2)
            print("cleaned up", file=cli.sys.stderr)

    code, errors = outcome(main, (signal.SIGINT, signal.SIGINT, signal.SIGTERM))
    assert code == 130 and "cleaned up" in errors and "Traceback" not in errors


class SlowToDie:
    def __del__(self):
        work()


def test_signal_that_a_destructor_swallows_is_answered():
    def main():
        SlowToDie()
        work()

    code, errors = outcome(main, (signal.SIGTERM,))
    assert code == 143 and len(errors.splitlines()) == 1


class BrokenByStopping:
    def __del__(self):
        raise EOFError("of a file that was not closed")


def test_destructor_that_fails_because_of_a_signal_prints_nothing():
    def main():
        kept = BrokenByStopping()
        work()
        del kept

    code, errors = outcome(main, (signal.SIGTERM,))
    assert code == 143 and len(errors.splitlines()) == 1
    assert "EOFError" in outcome(BrokenByStopping)[1]  # but it does without a signal


def test_signal_that_a_library_swallows_or_turns_into_its_own_error_is_answered():
    def swallow():
        try:
            work()
        except BaseException:
            work()

    def turn():
        try:
            work()
        except BaseException:
            raise ValueError("of a library") from None

    for main in (swallow, turn):
        code, errors = outcome(main, (signal.SIGINT,))
        assert code == 130 and len(errors.splitlines()) == 1, errors


def test_signal_in_compiled_code_that_does_not_return_ends_the_process(monkeypatch):
    monkeypatch.setattr(cli, "SECONDS_TO_STOP", 0.2)
    picture = torch.zeros(1, 1, 3000, 3000)
    code, errors = outcome(lambda: max_pool2d(picture, 2001, 1, 1000), (signal.SIGINT,))
    assert code == 130 and "did not stop" in errors


def test_signal_after_the_end_of_main_changes_nothing():
    def script():
        cli.prepare()
        try:
            cli.run(lambda: None)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # a handler would be called now

    assert wait(start(script)) == 0


def test_nohup_is_respected():
    def main():
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert outcome(main) == (0, "")
    finally:
        signal.signal(signal.SIGHUP, before)


def test_script_goes_on_without_its_output():
    def main():
        for _ in range(10_000):
            print("a line that nobody reads")
            print("an error that nobody reads", file=cli.sys.stderr)
        os.kill(os.getpid(), signal.SIGUSR1)

    reader, gone = os.pipe()
    os.close(reader)
    full = os.open("/dev/full", os.O_WRONLY)
    for output in (gone, full):
        child = start(lambda: (cli.prepare(), cli.run(main)), output, output)
        assert wait(child, 30) == -signal.SIGUSR1  # it came to its end
        os.close(output)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EIO, "Input/output error", "/a/file"), "/a/file: Input/output error"),
        (OSError("encoder error -2"), "encoder error -2"),
        (cli.UserError("a line\nand another"), "a line and another"),
        (MemoryError(), "out of memory; smaller"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "can't allocate memory"),
    ],
)
def test_refusals_are_one_line_and_exit_code_2(error, words):
    def main():
        raise error

    code, errors = outcome(main)
    assert code == 2 and len(errors.splitlines()) == 1 and words in errors


def test_mistake_of_the_program_has_a_traceback():
    code, errors = outcome(lambda: 1 / 0)
    assert code == 1 and "ZeroDivisionError" in errors


def test_path_that_the_terminal_cannot_show_is_shown_by_numbers(tmp_path):
    def main():
        print(cli.sys.stdout.encoding)
        raise cli.UserError("/a/r\u00fcn\udcff")

    code, errors = outcome(main)
    assert code == 2 and "\\udcff" in errors
