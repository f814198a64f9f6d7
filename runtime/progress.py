"""Progress bars that fit any terminal, and plain lines where standard error is a file."""

import contextlib
import os
import sys

from tqdm import tqdm

MAX_WIDTH, MIN_WIDTH = 140, 20
MIN_BAR = 6
FILE_INTERVAL_SECONDS = 30  # between two lines in a file
# From the longest form to the shortest.
FORMATS = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
    "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
    "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
    "{desc}: {percentage:3.0f}% [{elapsed}{postfix}]",
)


class Progress(tqdm):
    """A tqdm bar in the longest form that fits the terminal.

    `descriptions` are alternative prefixes of the bar, from longest to shortest.
    """

    def __init__(self, iterable=None, descriptions: tuple[str, ...] = ("",), **settings):
        self.descriptions = descriptions
        self.in_terminal = sys.stderr.isatty()
        if not self.in_terminal:
            settings |= dict.fromkeys(("mininterval", "maxinterval"), FILE_INTERVAL_SECONDS) | {"leave": True}
        # A terminal of unknown size has 0 rows, in which tqdm shows nothing.
        super().__init__(iterable, desc=descriptions[0], nrows=20, **settings)

    def __str__(self) -> str:
        width, values = _width(), self.format_dict
        for description in self.descriptions:
            for form in FORMATS:
                values |= {"prefix": description, "ncols": None}
                text = self.format_meter(**values | {"bar_format": form.replace("{bar}", " " * MIN_BAR)})
                if len(text) <= width:
                    return self.format_meter(**values | {"bar_format": form, "ncols": width})
        return text[:width]

    def display(self, msg=None, pos=None) -> bool:
        """Show the bar; in a file, only once there is progress. Returns whether anything was shown."""
        return bool(self.in_terminal or self.n) and super().display(msg, pos)

    @staticmethod
    def status_printer(file):
        """In a file, each state of a bar is a line. A closed pipe or a full disk does not end the run."""
        show, lines = tqdm.status_printer(file), []

        def print_status(text: str) -> None:
            with contextlib.suppress(OSError):
                if file.isatty():
                    show(text)
                    return
                file.write("\n" * bool(lines) + text)  # tqdm ends the last line
                file.flush()
                lines.append(text)

        return print_status


def _width() -> int:
    """Columns for a line; the terminal's last one stays free, because a full line may wrap."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):  # not a terminal, or no real file
        return MAX_WIDTH
    return max(MIN_WIDTH, min(MAX_WIDTH, columns - 1)) if columns else MAX_WIDTH
