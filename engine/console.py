"""How a script ends: one line and an exit code, whatever happens.

Free of torch, so that a script can import this first and answer Ctrl-C while torch still loads.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

USER_MISTAKE = 2
# What the machine, not the program, refuses: worth a line, not a traceback.
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
    """A mistake that the user can mend; its text is the one line that is printed."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. `signum` is the signal."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def complain(text: str) -> None:
    """Print one line on standard error, under the name of the running script, and its rank if not 0."""
    rank = os.environ.get("RANK", "0")
    who = Path(sys.argv[0]).name + (f", rank {rank}" if rank != "0" else "")
    print(f"{who}: {text}", file=sys.stderr, flush=True)


def _quit(signum, _frame):
    # Imports of large libraries may swallow an exception raised here, so leave at once.
    os.write(2, f"{Path(sys.argv[0]).name}: stopped before it began\n".encode())
    os._exit(128 + signum)


def _raise(signum, _frame):
    raise Stopped(signum)


def quit_on_signals() -> None:
    """Until `run` takes over, Ctrl-C and SIGTERM print a line and leave."""
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
