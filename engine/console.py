"""How a script ends: with one line and an exit code, whatever happens.

This module does not import torch, so that a script can import it first and answer Ctrl-C while torch loads.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

USER_MISTAKE = 2
# Errors of the machine, not of the program: they end in one line, not in a traceback.
REFUSALS = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EISDIR,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


class UserError(Exception):
    """A mistake that the user can correct; its text is the line that is printed."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. `signum` is the signal."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def complain(text: str) -> None:
    """Print one line on standard error, with the name of the running script, and its rank if not 0."""
    rank = os.environ.get("RANK", "0")
    script = Path(sys.argv[0]).name + (f", rank {rank}" if rank != "0" else "")
    print(f"{script}: {text}", file=sys.stderr, flush=True)


def _quit(signum, _frame):
    # Imports of large libraries may swallow an exception that is raised here, so exit at once.
    os.write(2, f"{Path(sys.argv[0]).name}: stopped before it began\n".encode())
    os._exit(128 + signum)


def _raise(signum, _frame):
    raise Stopped(signum)


def quit_on_signals() -> None:
    """Until `run` is called, Ctrl-C and SIGTERM print a line and exit."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _quit)


def run(main: Callable[[], None]) -> None:
    """Call `main` and exit: 0; 2 for a `UserError`; 128 + N for signal N."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _raise)
    try:
        main()
    except UserError as error:
        complain(str(error))
        sys.exit(USER_MISTAKE)
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        complain(f"{error.filename or 'cannot write'}: {error.strerror}")
        sys.exit(USER_MISTAKE)
    except Stopped as stop:
        complain(f"stopped by {stop}")
        sys.exit(128 + stop.signum)
