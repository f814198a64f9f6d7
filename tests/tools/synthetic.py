"""Runs of tools/make_dataset.py, and what they leave."""

import contextlib
import io
import subprocess
import sys

from tests.helpers import ROOT
from tools import make_dataset

PROGRAM = ROOT / "tools" / "make_dataset.py"
TINY = ("--size=16x16", "--train_frames=3", "--val_frames=2", "--test_frames=2", "--workers=2")
SMALL = ("--size=32x16", "--train_frames=80", "--val_frames=12", "--test_frames=12")


def run(*arguments) -> str:
    """Run the tool in this process; returns what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        make_dataset.main([str(argument) for argument in arguments])
    return output.getvalue()


def run_after(preparation, *arguments):
    """Run the tool in a new interpreter that executes the code `preparation` first."""
    code = (
        "import errno, multiprocessing, os, pathlib, resource, runpy, sys\n"
        f"{preparation}\n"
        f"sys.argv = {[PROGRAM.name, *map(str, arguments)]}\n"
        f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def contents(root):
    """Every file under `root`: {path below root: bytes}."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def names(folder):
    return sorted(p.name for p in folder.iterdir())
