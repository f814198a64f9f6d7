"""What a run looks like in a terminal, and in a file."""

import fcntl
import io
import os
import pty
import re
import struct
import termios

import pytest

from runtime.progress import Progress
from tests.helpers import FORKS, SMALL_UNET, assert_succeeds, run_script, start_script, wait

RUN = [*SMALL_UNET, "--num_epoch=3", "--device=cpu"]
COLUMNS = 80


def lines_in_terminal(folder, script, *arguments):
    """The lines that a script, called in a folder, leaves in a terminal, long lines wrapped."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    child = start_script(script, *arguments, output=follower, errors=follower, cwd=folder)
    os.close(follower)
    output = b""
    try:
        while part := os.read(leader, 65536):
            output += part
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    assert wait(child) == 0, output[-2000:].decode()
    lines = []
    for line in output.decode().replace("\r\n", "\n").rstrip("\n").split("\n"):
        # What is written over the same line counts as many lines as its longest state needs.
        states = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", state) for state in line.split("\r")]
        height = max(max(1, -(-len(state) // COLUMNS)) for state in states)
        lines += [states[-1] or max(states, key=len)] * height
    return lines


@pytest.mark.skipif(not FORKS, reason="runs a copy of this process")
@pytest.mark.usefixtures("no_images")
def test_each_bar_takes_one_line_in_a_terminal(dataset, tmp_path):
    lines = lines_in_terminal(tmp_path, "Trainer.py", "--DR", dataset, "--save_root", "run", *RUN)
    assert lines[0].startswith("recipe default"), "the bars of decoding are gone"
    bars = [line for line in lines if re.match(r"\(train|\(val|decode| ", line)]
    assert len(bars) == 3 + 2 and all(len(line) < COLUMNS and "100%" in line for line in bars), lines


@pytest.mark.usefixtures("no_images")
def test_output_to_a_file_is_a_line_for_each_bar(dataset, tmp_path):
    done = run_script("Trainer.py", "--DR", dataset, "--save_root", tmp_path, *RUN)
    output = assert_succeeds(done)
    assert "\r" not in done.stderr
    assert len(re.findall(r"^\(train .*100%", done.stderr, re.M)) == 3
    assert len(re.findall(r"^\(val\) .*100%.* 5/5 ", done.stderr, re.M)) == 2
    assert re.match(r"recipe default.*\nunet, [\d,]+ parameters, Muon, ", output)


def test_longest_form_that_fits_is_used(monkeypatch):
    descriptions = ("a very long description of what is being done here and now", "short")
    for width, words in (
        (140, ("a very long", "|#", "1/2")),
        (100, ("a very long", "1/2")),
        (24, ("short",)),
    ):
        monkeypatch.setattr("runtime.progress._width", lambda width=width: width)
        bar = Progress(range(2), descriptions, file=io.StringIO())
        bar.n = 1
        text = str(bar)
        assert len(text) <= width and all(word in text for word in words), text
        bar.disable = True
