"""How many threads a run uses on the CPU: as many as there are free cores, now and then looked at again.

The threads of a step wait for each other, and they do so busily: where two runs have more threads than there
are cores, both are several times slower than with one thread each.
"""

import os
import time
from pathlib import Path

import torch

STATISTICS = Path("/proc/stat")
BUSY_FIELDS = (0, 1, 2, 5, 6, 7)  # of a line of STATISTICS: user, nice, system, interrupts, other machines
LEAST_SECONDS = 1.0  # to measure the load
LEAST_CHANGE = 0.75  # of the free cores, so that the number of threads does not flicker


def cores() -> int:
    """The cores that this process may use."""
    return len(_own_cores())


def _own_cores() -> set[str]:
    numbers = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return {f"cpu{number}" for number in numbers}


class Threads:
    """Sets torch's number of threads.

    Args:
        wanted: number by the user; None for those that torch has, but not more than there are free cores.
            Torch has one for each core, or as many as OMP_NUM_THREADS says, which torchrun sets to 1.

    Attributes:
        busy_cores: that other programs kept busy when it was last measured.
    """

    def __init__(self, wanted: int | None):
        self._most = torch.get_num_threads()
        self._wanted = wanted
        self.busy_cores = 0.0
        self._began = _times()
        if wanted:
            torch.set_num_threads(wanted)

    def update(self) -> bool:
        """Measure the load since the last update; returns whether the number of threads has changed."""
        now = _times()
        seconds, of_all, own = (after - before for after, before in zip(now, self._began, strict=True))
        if seconds < LEAST_SECONDS:
            return False
        self._began, self.busy_cores = now, max(0.0, (of_all - own) / seconds)
        before, free = torch.get_num_threads(), cores() - self.busy_cores
        if self._wanted or abs(free - before) < LEAST_CHANGE:
            return False
        torch.set_num_threads(max(1, min(self._most, round(free))))
        return torch.get_num_threads() != before

    def __str__(self) -> str:
        count = torch.get_num_threads()
        busy = f" (other programs keep {self.busy_cores:.1f} of {cores()} cores busy)"
        return f"{count} thread{'s' if count > 1 else ''}{busy if self.busy_cores > 0.5 else ''}"


def _times() -> tuple[float, float, float]:
    """Seconds: of the clock, of work of all programs on the cores of this process, of its own work."""
    own = os.times()
    of_this = own.user + own.system
    return time.monotonic(), _work_on(_own_cores()) or of_this, of_this


def _work_on(names: set[str]) -> float:
    if not STATISTICS.is_file():  # not Linux
        return 0.0
    ticks = 0
    for line in STATISTICS.read_text().splitlines():
        name, *fields = line.split()
        if name in names:
            ticks += sum(int(fields[index]) for index in BUSY_FIELDS)
    return ticks / os.sysconf("SC_CLK_TCK")
