"""A worker in a process of its own, which works when it is asked and sleeps meanwhile.

Each side has its own because what ours asks of the C library, to keep freed pages, holds for a whole process.
"""

import multiprocessing
import signal
import sys

from engine.console import UserError
from frame_cache import DataError
from tools.benchmarking.workers import Worker


class Peer:
    """A worker's process, for as long as the context lasts.

    Args:
        kind: the worker's class.
        settings: its arguments.
    """

    def __init__(self, kind: type[Worker], *settings):
        self.kind, self.settings = kind, settings

    def __enter__(self) -> "Peer":
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(self.kind, self.settings, theirs))
        self.process.start()
        theirs.close()
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.join()
        self.pipe.close()

    def ask(self, method: str, **arguments):
        """What a method of the worker returns.

        Raises:
            UserError, DataError: the worker met a mistake of the user's.
            RuntimeError: it broke down, and said why on standard error, or was killed.
        """
        try:
            self.pipe.send((method, arguments))
            answer = self.pipe.recv()
        except (EOFError, ConnectionError):
            raise RuntimeError(f"{self.kind.__name__} ended in {method}({arguments})") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def ask_fresh(self, method: str, **arguments):
        """What a method returns in another process that has done nothing yet."""
        with Peer(self.kind, *self.settings) as peer:
            return peer.ask(method, **arguments)


def _serve(kind: type[Worker], settings: tuple, pipe) -> None:
    """Answer requests until the other end is closed."""
    # A spawned process would spawn the workers of a DataLoader, too, which takes longer than in a script.
    multiprocessing.set_start_method(None, force=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that a script that was launched is ended, too
    try:
        worker = kind(*settings)
        while True:
            method, arguments = pipe.recv()
            pipe.send(getattr(worker, method)(**arguments))
    except (UserError, DataError) as error:
        pipe.send(error)
    except (EOFError, BrokenPipeError):
        return
