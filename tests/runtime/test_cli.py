"""How a script ends: signals at any moment, output that nobody reads, refusals of the system."""

import builtins
import errno
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from runtime import cli
from tests.helpers import FORKS, ROOT, one_thread, start, wait

pytestmark = pytest.mark.skipif(not FORKS, reason="runs copies of this process")


def script(main):
    """What a script with this main does."""
    cli.prepare()
    cli.run(main)


def outcome(function, *signals):
    """Exit code and standard error of a process, which gets the next signal whenever it stops."""
    with tempfile.TemporaryFile() as errors:
        child = start(function, None, errors.fileno())
        for signum in signals:
            os.waitpid(child, os.WUNTRACED)
            os.kill(child, signum)
            os.kill(child, signal.SIGCONT)
        code = wait(child, 30)
        errors.seek(0)
        return code, errors.read().decode()


def await_signal():
    """Ask for a signal, by stopping."""
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(30)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_a_script_with_one_line(signum):
    code, errors = outcome(lambda: script(await_signal), signum)
    assert code == 128 + signum
    assert errors == f"{Path(sys.argv[0]).name}: stopped by {signum.name}\n"


def test_second_signal_ends_a_script_at_once():
    def main():
        try:
            await_signal()
        finally:
            await_signal()  # what cleans up may hang

    assert outcome(lambda: script(main), signal.SIGINT, signal.SIGTERM) == (128 + signal.SIGTERM, "")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks /proc when to send the signal")
def test_signal_while_torch_loads(tmp_path):
    command = [sys.executable, ROOT / "Trainer.py", "--DR", tmp_path, "--save_root", tmp_path]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=one_thread())
    status, caught = Path(f"/proc/{process.pid}/status"), 0
    while not caught >> (signal.SIGTERM - 1) & 1:
        assert process.poll() is None
        caught = int(status.read_text().split("SigCgt:")[1].split()[0], 16)
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (128 + signal.SIGTERM, "Trainer.py: stopped by SIGTERM\n")


def test_signal_after_the_end_of_main_changes_nothing():
    def end():
        try:
            script(lambda: None)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # a handler would be called now

    assert outcome(end) == (0, "")


def test_notebook_goes_on_after_the_script(monkeypatch):
    """In IPython, with streams that have neither a file number nor `reconfigure`."""

    def notebook():
        builtins.__IPYTHON__ = True
        before = signal.getsignal(signal.SIGINT)
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        for main, code in ((lambda: print("trained"), 0), (raise_user_error, cli.USER_ERROR)):
            with pytest.raises(SystemExit) as end:
                script(main)
            assert end.value.code == code and signal.getsignal(signal.SIGINT) is before
        assert "trained" in sys.stdout.getvalue() and "a mistake" in sys.stderr.getvalue()
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__

    def raise_user_error():
        raise cli.UserError("a mistake")

    assert outcome(notebook)[0] == 0


def test_nohup_is_respected():
    def main():
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.01)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert outcome(lambda: script(main)) == (0, "")
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("output", ["closed pipe", "full disk"])
def test_script_goes_on_without_its_output(output):
    def main():
        for _ in range(10_000):
            cli.log("a line that nobody reads")
            cli.print_error("an error that nobody reads")
        print("without a flush")

    reader, descriptor = os.pipe()
    os.close(reader)
    if output == "full disk":
        os.close(descriptor)
        descriptor = os.open("/dev/full", os.O_WRONLY)
    child = start(lambda: script(main), descriptor, descriptor)
    assert wait(child, 30) == 0
    os.close(descriptor)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (cli.UserError("a line\nand another"), "a line and another"),
        (cli.UserError("/a/r\u00fcn\udcff"), "\\udcff"),  # a path that is no UTF-8
        (OSError(errno.EIO, "Input/output error", "/a/file"), "/a/file: Input/output error"),
        (OSError("encoder error -2"), "encoder error -2"),
        (MemoryError(), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "can't allocate memory"),
    ],
)
def test_refusal_is_one_line_and_exit_code_2(error, words):
    def main():
        raise error

    code, errors = outcome(lambda: script(main))
    assert code == 2 and len(errors.splitlines()) == 1 and words in errors


def test_bug_has_a_traceback():
    code, errors = outcome(lambda: script(lambda: 1 / 0))
    assert code == 1 and "Traceback" in errors and "ZeroDivisionError" in errors
