"""Runs of tools/make_dataset.py for its tests, and what they leave."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tools" / "make_dataset.py"
TINY = ("--size=16x16", "--train_frames=3", "--val_frames=2", "--test_frames=2", "--workers=2")
SMALL = ("--size=32x16", "--train_frames=80", "--val_frames=12", "--test_frames=12")


def run(*arguments, cwd=None):
    """The program's `CompletedProcess` with these arguments."""
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def run_after(preparation, *arguments):
    """`run`, in an interpreter that executes the code `preparation` first."""
    code = (
        "import errno, multiprocessing, os, pathlib, resource, runpy, sys\n"
        f"{preparation}\n"
        f"sys.argv = {[PROGRAM.name, *map(str, arguments)]}\n"
        f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def assert_mistake(done, *words):
    """`done` ended with exit code 2 and one line, which holds these words."""
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("make_dataset.py: ")
    for word in words:
        assert word in done.stderr


def contents(root):
    """Every file under `root`: {path below root: bytes}."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def names(folder):
    return sorted(p.name for p in folder.iterdir())
