"""Child processes of the tools. They stop when the tool stops; on Linux, even if it is killed."""

import ctypes
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from runtime.cli import UserError


def _end_with(parent: int) -> None:
    """Have Linux send this process SIGTERM when its parent ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it has ended before
        os.kill(os.getpid(), signal.SIGTERM)


def run(command: list, output: bool = False, **settings) -> str:
    """Run a program and wait for it. A signal that stops this tool also stops the program.

    Args:
        command: its words.
        output: return what it prints, instead of letting it print.
        settings: of `subprocess.Popen`.

    Raises:
        UserError: its exit code is not 0; it has printed the reason.
    """
    words = [str(word) for word in command]
    settings["stdout"] = subprocess.PIPE if output else None
    if sys.platform == "linux":  # Windows refuses a preexec_fn
        settings["preexec_fn"] = partial(_end_with, os.getpid())
    with subprocess.Popen(words, text=True, **settings) as process:
        try:
            printed, _ = process.communicate()
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        name = next((word for word in words[1:] if not word.startswith("-")), words[0])
        raise UserError(f"{Path(name).name} failed with exit code {process.returncode}")
    return printed or ""
