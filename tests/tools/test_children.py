"""Programs that the tools start."""

import subprocess
import sys

import pytest

from runtime.cli import UserError
from tools import children


def test_output_is_returned_and_a_failure_is_a_user_error():
    assert children.run([sys.executable, "-c", "print(7)"], output=True) == "7\n"
    with pytest.raises(UserError, match="failed with exit code 3"):
        children.run([sys.executable, "-c", "raise SystemExit(3)"])


def test_windows_gets_no_function_to_call_before_the_program(monkeypatch):
    popen = subprocess.Popen

    def refusing(*args, preexec_fn=None, **settings):
        if preexec_fn is not None:
            raise ValueError("preexec_fn is not supported on Windows platforms")
        return popen(*args, **settings)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(subprocess, "Popen", refusing)
    assert children.run([sys.executable, "-c", "print(7)"], output=True) == "7\n"
