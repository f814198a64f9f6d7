"""Processes that the tools start: they end when the tool ends, even if it is killed."""

import ctypes
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from runtime.cli import UserError

PR_SET_PDEATHSIG = 1  # of Linux's prctl


class ChildError(UserError):
    """A program that a tool started has failed; it has printed the reason. `code` is its exit code."""

    def __init__(self, name: str, code: int):
        super().__init__(f"{name} ended with exit code {code}")
        self.code = code


def end_with(parent: int) -> None:
    """Have Linux send this process SIGTERM when its parent ends; nothing happens on other systems.

    Args:
        parent: its process number.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has ended before
            os.kill(os.getpid(), signal.SIGTERM)


def run(command: list, output: bool = False, **settings) -> str:
    """Run a program to its end; a signal that stops this tool stops it, too.

    Args:
        command: its words.
        output: return what it prints, instead of letting it print.
        settings: as of `subprocess.Popen`.

    Raises:
        ChildError: it ends with another exit code than 0.
    """
    words = [str(word) for word in command]
    settings |= {"stdout": subprocess.PIPE if output else None, "preexec_fn": partial(end_with, os.getpid())}
    with subprocess.Popen(words, text=True, **settings) as process:
        try:
            printed, _ = process.communicate()
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        name = next((word for word in words[1:] if not word.startswith("-")), words[0])
        raise ChildError(Path(name).name, process.returncode)
    return printed or ""
