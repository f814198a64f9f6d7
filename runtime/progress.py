"""Progress bars for a terminal of any width, and lines for a file."""

import os
import sys

from tqdm import tqdm

WIDEST = 140
NARROWEST = 20
SECONDS_BETWEEN_LINES = 30  # where standard error is not a terminal
SHORTEST_BAR = 6
# From the longest form to the shortest.
FORMATS = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
    "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
    "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]",
    "{desc}: {percentage:3.0f}% [{elapsed}{postfix}]",
)


class Progress(tqdm):
    """A progress bar that fits the terminal: first the bar gets shorter, then details are left out.

    Where standard error is not a terminal, it prints a line now and then, and one at the end.

    Args:
        iterable: as of tqdm.
        descriptions: what stands before the bar, from the longest form to the shortest.
        settings: as of tqdm.
    """

    def __init__(self, iterable=None, descriptions: tuple[str, ...] = ("",), **settings):
        self.descriptions = descriptions
        self.in_terminal = sys.stderr.isatty()
        if not self.in_terminal:
            settings |= {
                "mininterval": SECONDS_BETWEEN_LINES,
                "maxinterval": SECONDS_BETWEEN_LINES,
                "leave": True,
            }
        # A terminal of unknown size has 0 rows, in which tqdm shows nothing.
        super().__init__(iterable, desc=descriptions[0], nrows=20, **settings)

    def __str__(self) -> str:
        width = _width()
        values = self.format_dict
        for description in self.descriptions:
            for form in FORMATS:
                values |= {"prefix": description, "ncols": None}
                least = self.format_meter(
                    **values | {"bar_format": form.replace("{bar}", " " * SHORTEST_BAR)}
                )
                if len(least) <= width:
                    return self.format_meter(**values | {"bar_format": form, "ncols": width})
        return least[:width]

    def display(self, msg=None, pos=None):
        """Show the bar; in a file, only once something is done."""
        if self.in_terminal or self.n:
            super().display(msg, pos)

    @staticmethod
    def status_printer(file):
        """In a file, each state of a bar is a line of its own."""
        if file.isatty():
            return tqdm.status_printer(file)
        before = ""

        def print_line(text: str) -> None:
            nonlocal before
            file.write(before + text)
            file.flush()
            before = "\n"  # tqdm itself ends the last line

        return print_line


def _width() -> int:
    """Columns for a line, the last of the terminal left free, because a full line may wrap."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):  # not a terminal, or no real file
        return WIDEST
    return max(NARROWEST, min(WIDEST, columns - 1)) if columns else WIDEST
