"""What a run looks like in terminals of several widths, and in a file."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from runtime.progress import Progress
from tests.helpers import ROOT, SMALL_UNET, assert_succeeds, one_thread, run_script

RUN = [*SMALL_UNET, "--num_epoch=3", "--device=cpu"]


def lines_in_terminal(columns, folder, script, *arguments):
    """The lines that a script, called in a folder, leaves in a terminal of a width, long lines wrapped."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        stdout=follower,
        stderr=follower,
        env=one_thread(),
        cwd=folder,
    )
    os.close(follower)
    output = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        output += part
    os.close(leader)
    assert process.wait(timeout=60) == 0, output[-2000:].decode()
    lines = []
    for line in output.decode().replace("\r\n", "\n").rstrip("\n").split("\n"):
        # What is written over the same line counts as many lines as its longest state needs.
        states = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", state) for state in line.split("\r")]
        height = max(max(1, -(-len(state) // columns)) for state in states)
        lines += [states[-1] or max(states, key=len)] * height
    return lines


@pytest.mark.parametrize("columns", [80, 100, 140])
def test_run_of_three_epochs_takes_few_lines(dataset, tmp_path, columns):
    lines = lines_in_terminal(columns, tmp_path, "Trainer.py", "--DR", dataset, "--save_root", "run", *RUN)
    assert len(lines) < 20, lines
    epochs = [line for line in lines if line.startswith("(train")]
    assert len(epochs) == 3 and all(len(line) < columns and "100%" in line for line in epochs)


def test_output_to_a_file_is_a_line_for_each_bar(dataset, tmp_path):
    done = run_script("Trainer.py", "--DR", dataset, "--save_root", tmp_path, *RUN)
    output = assert_succeeds(done)
    assert "\r" not in done.stderr
    assert len(re.findall(r"^\(train .*100%", done.stderr, re.M)) == 3
    assert len(re.findall(r"^\(val\) .*100%.* 5/5 ", done.stderr, re.M)) == 2
    assert "unet, 22,624 parameters" in output.split("\n")[0]


def test_shortest_description_is_used_where_others_do_not_fit(monkeypatch):
    forms = ("a very long description of what is being done here and now", "short")
    for width, words in (
        (140, ("a very long", "|#", "1/2")),
        (100, ("a very long", "1/2")),
        (24, ("short",)),
    ):
        monkeypatch.setattr("runtime.progress._width", lambda width=width: width)
        bar = Progress(range(2), forms, file=io.StringIO())
        bar.n = 1
        text = str(bar)
        assert len(text) <= width and all(word in text for word in words), text
        bar.disable = True
