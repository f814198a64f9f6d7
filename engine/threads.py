"""How many threads a run uses on the CPU: as many as there are free cores when it starts.

The threads of a step wait for each other, and they do so busily: where two runs have more threads than there
are cores, both are many times slower than with one thread each.
"""

import os
import time
from pathlib import Path

import torch

STATISTICS = Path("/proc/stat")
BUSY_FIELDS = (0, 1, 2, 5, 6, 7)  # of a line of STATISTICS: user, nice, system, interrupts, other machines


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Load:
    """What other programs use of the cores of this process, measured from now on."""

    def __init__(self):
        self._began = self._times()

    def busy_cores(self) -> float:
        """How many cores other programs have kept busy since; 0 where that is not known."""
        seconds, all_programs, own = (
            now - before for now, before in zip(self._times(), self._began, strict=True)
        )
        return max(0.0, (all_programs - own) / seconds) if all_programs and seconds else 0.0

    @staticmethod
    def _times() -> tuple[float, float, float]:
        """Seconds: of the clock, of work of all programs on these cores, of work of this process."""
        own = os.times()
        return time.monotonic(), _work_on(_own_cores()), own.user + own.system


def _own_cores() -> set[str]:
    numbers = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(cores())
    return {f"cpu{number}" for number in numbers}


def _work_on(names: set[str]) -> float:
    if not STATISTICS.is_file():
        return 0.0
    ticks = 0
    for line in STATISTICS.read_text().splitlines():
        name, *fields = line.split()
        if name in names:
            ticks += sum(int(fields[index]) for index in BUSY_FIELDS)
    return ticks / os.sysconf("SC_CLK_TCK")


def set_threads(wanted: int | None, busy: float) -> None:
    """Set torch's number of threads.

    Args:
        wanted: by the user; None for those that torch has, but not more than there are free cores. Torch has
            one for each core, or as many as OMP_NUM_THREADS says, which torchrun sets to 1.
        busy: cores that other programs keep busy.
    """
    free = max(1, round(cores() - busy))
    torch.set_num_threads(wanted or min(torch.get_num_threads(), free))
