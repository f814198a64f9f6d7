"""How a script begins and ends: with one line and an exit code, whatever happens.

This module does not import torch, so that a script can import it first and answer Ctrl-C while torch loads.
"""

import io
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

USER_MISTAKE = 2
# SIGHUP, which Windows lacks: the terminal was closed.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
SECONDS_TO_STOP = 20
_ends_at_once = False


class UserError(Exception):
    """A mistake that the user can correct; its text is the line that is printed."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP. `signum` is the signal."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class _Output(io.FileIO):
    """A file for output that accepts everything, even if its reader has gone or its disk is full."""

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


class _Stopping:
    """The answer to signals: `Stopped`, and each second again, because a library may swallow it."""

    def __init__(self):
        self.signum = None

    def __call__(self, signum: int, _frame) -> None:
        if self.signum is not None and signum in STOP_SIGNALS:
            return  # a second Ctrl-C must not stop the cleaning up
        self.signum = self.signum or signum
        _set_timer(1)
        raise Stopped(self.signum)

    def report_unraisable(self, unraisable) -> None:
        """Report an error where Python cannot pass it on, such as in a destructor."""
        if unraisable.exc_type is Stopped:
            _set_timer(0.001)
        elif self.signum is None:  # else it comes from what was interrupted
            sys.__unraisablehook__(unraisable)


def _set_timer(seconds: float) -> None:
    if hasattr(signal, "setitimer"):  # Windows lacks it
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _watch_signals() -> None:
    """End the process `SECONDS_TO_STOP` after a signal, because it may be in compiled code for long."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        signum = None
        while signum not in STOP_SIGNALS:
            (signum,) = os.read(reader, 1)
        time.sleep(SECONDS_TO_STOP)
        os.write(2, f"{_script()}: ended, because it did not stop in {SECONDS_TO_STOP} s\n".encode())
        os._exit(128 + signum)

    # A thread inherits the mask: signals are for the main thread, which can block them for itself.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    threading.Thread(target=watch, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def complain(text: str) -> None:
    """Print one line on standard error, with the name of the running script, and its rank if not 0."""
    rank = os.environ.get("RANK", "0")
    script = _script() + (f", rank {rank}" if rank != "0" else "")
    print(f"{script}: {' '.join(text.split())}", file=sys.stderr, flush=True)


def _script() -> str:
    return Path(sys.argv[0]).name


def _quit(signum, _frame):
    # Imports of large libraries may swallow an exception that is raised here, so exit at once.
    os.write(2, f"{_script()}: stopped before it began\n".encode())
    os._exit(128 + signum)


def _answer(signals: list[int], handler) -> None:
    for signum in signals:
        # nohup and the like have told a process to go on after its terminal was closed.
        if signum in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, handler)


def ignore_signals() -> None:
    """From now on Ctrl-C, SIGTERM and SIGHUP do nothing, because the rest takes moments."""
    _set_timer(0)
    _answer(STOP_SIGNALS, signal.SIG_IGN)


def end_at_once() -> None:
    """Have `run` end the process without the interpreter's own end, which other threads can disturb."""
    global _ends_at_once
    _ends_at_once = True


def prepare() -> None:
    """Make a script robust before it imports anything large.

    Until `run` is called, a signal prints a line and exits. A run goes on if nobody reads its output any
    more, and output in an encoding that lacks a character shows its number. Users without a home, as in
    containers, get a temporary one, because several libraries need one.
    """
    _answer(STOP_SIGNALS, _quit)
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.gettempdir()


def _lasting(stream) -> io.TextIOBase:
    if stream is None:  # closed before the script began
        return Path(os.devnull).open("w")
    raw = io.BufferedWriter(_Output(stream.fileno(), "w", closefd=False))
    buffered = stream is sys.stdout and not stream.isatty()
    return io.TextIOWrapper(raw, stream.encoding, "backslashreplace", line_buffering=not buffered)


def run(main: Callable[[], None]) -> None:
    """Call `main` and exit: 0; 2 for a mistake, or where the machine refuses; 128 + N for signal N."""
    stopping = _Stopping()
    _answer(STOP_SIGNALS, stopping)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, stopping)
    sys.unraisablehook = stopping.report_unraisable
    _watch_signals()
    try:
        code = _exit_code(main)
    except BaseException as error:
        ignore_signals()
        # A library may have turned `Stopped` into an error of its own.
        if stopping.signum is None and not isinstance(error, Stopped):
            raise
        signum = stopping.signum or error.signum
        complain(f"stopped by {signal.Signals(signum).name}")
        code = 128 + signum
    finally:
        ignore_signals()  # the interpreter takes some time to end
    if _ends_at_once:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _exit_code(main: Callable[[], None]) -> int:
    try:
        main()
    except UserError as error:
        complain(str(error))
    except OSError as error:
        complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        needed = f" ({error})" if str(error) else ""
        complain(f"out of memory{needed}; smaller pictures, clips, batches or networks need less")
    else:
        return 0
    return USER_MISTAKE


def _is_out_of_memory(error: Exception) -> bool:
    # torch has a class for CUDA alone, and it cannot be imported here.
    kinds = MemoryError.__name__, "_ArrayMemoryError", "OutOfMemoryError"
    return type(error).__name__ in kinds or "can't allocate memory" in str(error)
