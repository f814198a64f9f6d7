"""Script entry point: user errors and signals become a one-line message and an exit code.

This module does not import torch, so Ctrl-C works while torch is still loading.
"""

import builtins
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

USER_ERROR = 2  # exit code
# SIGHUP, which a closed terminal sends, does not exist on Windows.
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_HANDLERS: dict = {}  # those before `prepare`


class UserError(Exception):
    """An error that the user can correct; its text is the line that is printed."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP. `signum` is the signal."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def log(text: str) -> None:
    """Print a line; ignores a broken pipe or a full disk."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def print_error(text: str) -> None:
    """Print one line on standard error, with the script's name, and the rank if it is not 0."""
    rank = os.environ.get("RANK", "0")
    script = Path(sys.argv[0]).name + (f", rank {rank}" if rank != "0" else "")
    with contextlib.suppress(OSError):
        print(f"{script}: {' '.join(text.split())}", file=sys.stderr, flush=True)


def _handle(handler) -> None:
    for signum in STOP_SIGNALS:
        # Under nohup a process ignores SIGHUP, and keeps doing so.
        if signum in (signal.SIGINT, signal.SIGTERM) or signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, handler)


def ignore_signals() -> None:
    """From now on Ctrl-C, SIGTERM and SIGHUP do nothing."""
    _handle(signal.SIG_IGN)


def _quit(signum, _frame):
    # An exception could be swallowed by the import of a library.
    os.write(2, f"{Path(sys.argv[0]).name}: stopped by {signal.Signals(signum).name}\n".encode())
    os._exit(128 + signum)


def _stop(signum, _frame):
    _handle(lambda signum, _frame: os._exit(128 + signum))  # a second signal ends the process
    raise Stopped(signum)


def prepare() -> None:
    """Install signal handlers and check standard streams before slow imports."""
    _HANDLERS.update({signum: signal.getsignal(signum) for signum in STOP_SIGNALS})
    _handle(_quit)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed before the script began
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123
        with contextlib.suppress(AttributeError):  # notebooks and IDEs replace the streams
            getattr(sys, name).reconfigure(errors="backslashreplace")
    try:
        Path.home()
    except RuntimeError:  # users without a home, as in containers: several libraries need one
        os.environ["HOME"] = tempfile.gettempdir()


def run(main: Callable[[], None]) -> None:
    """Call `main` and exit with 0, with 2 after a user or OS error, or with 128 + N after signal N."""
    _handle(_stop)
    code = USER_ERROR
    try:
        main()
        code = 0
    except Stopped as stopped:
        print_error(f"stopped by {stopped}")
        code = 128 + stopped.signum
    except UserError as error:
        print_error(str(error))
    except OSError as error:
        print_error(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        print_error(f"out of memory ({error}); use smaller frames, clips, batches or networks")
    if _in_notebook():
        for signum, handler in _HANDLERS.items():
            signal.signal(signum, handler)
    else:
        ignore_signals()  # the rest takes moments
    _flush()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        os._exit(code)  # a thread of gloo can abort the interpreter's own exit
    sys.exit(code)


def _in_notebook() -> bool:
    """Whether the process goes on after the script, in IPython or IDLE."""
    return hasattr(builtins, "__IPYTHON__") or "idlelib" in sys.modules


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # the interpreter would flush again and exit with 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_out_of_memory(error: Exception) -> bool:
    # Only CUDA's error has a class in torch, and torch is not imported here.
    kinds = MemoryError.__name__, "_ArrayMemoryError", "OutOfMemoryError"
    return type(error).__name__ in kinds or "can't allocate memory" in str(error)
