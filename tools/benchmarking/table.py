"""The rows of the benchmark: their samples, and the table and the JSON they are written to."""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch


@dataclass
class Row:
    """One thing that is measured of ours and of what it is compared to.

    Args:
        name: what it is.
        unit: of the samples, "" if they are counts; what is counted by the second is better the higher it
            is, all else the lower.
        product, reference: measure it once; None where nothing is left to measure.
        products, references: the samples so far.
        once: a second sample would be the same.
    """

    name: str
    unit: str
    product: Callable[[], float] | None = None
    reference: Callable[[], float] | None = None
    products: list[float] = field(default_factory=list)
    references: list[float] = field(default_factory=list)
    once: bool = False

    def measure(self, rounds: int) -> None:
        """Take samples, alternately, so that a slow minute of the machine is both sides' slow minute."""
        for _ in range(1 if self.once else rounds):
            if self.reference:
                self.references.append(self.reference())
            if self.product:
                self.products.append(self.product())

    @property
    def ratio(self) -> float | None:
        """How many times better ours is, by the medians; None if there is nothing to compare to."""
        if not self.references:
            return None
        ours, theirs = median(self.products), median(self.references)
        return ours / theirs if self.unit.endswith("/s") else theirs / ours

    def as_dict(self) -> dict:
        """For JSON."""
        return {
            "row": self.name,
            "unit": self.unit,
            "product": _summary(self.products),
            "reference": _summary(self.references),
            "ratio": self.ratio,
        }


def _summary(samples: list[float]) -> dict | None:
    if not samples:
        return None
    return {"median": median(samples), "min": min(samples), "max": max(samples), "samples": samples}


def number(value: float) -> str:
    """Three digits, or all of a whole number's."""
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"


def spread(samples: list[float]) -> str:
    """`median (min .. max)`, or the value, if they are all the same."""
    if not samples:
        return "-"
    if min(samples) == max(samples):
        return number(samples[0])
    return f"{number(median(samples))} ({number(min(samples))} .. {number(max(samples))})"


def comparison(rows: list[Row]) -> str:
    """The rows as a Markdown table: ours, the reference, and how many times better ours is."""
    lines = ["| row | ours: median (min .. max) | reference | ratio |", "|---|---|---|---|"]
    for row in rows:
        ratio = "-" if row.ratio is None else f"{row.ratio:.2f}"
        name = f"{row.name}, {row.unit}" if row.unit else row.name
        cells = name, spread(row.products), spread(row.references), ratio
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def growth(groups: list[list[Row]]) -> str:
    """Groups of rows as a Markdown table: seconds of a step, and how many times the first of its group."""
    lines = ["| setting | seconds of a step: median (min .. max) | times the first |", "|---|---|---|"]
    for group in groups:
        for row in group:
            times = median(row.products) / median(group[0].products)
            lines.append(f"| {row.name} | {spread(row.products)} | {times:.2f} |")
    return "\n".join(lines)


def machine(device: str) -> dict:
    """What was measured on."""
    described = {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system()}
    if device.startswith("cuda"):
        described |= {"gpu": torch.cuda.get_device_name(device), "CUDA": torch.version.cuda}
    return described | {"torch": torch.__version__, "Python": platform.python_version()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write(folder: Path, about: dict, rows: list[Row], groups: list[list[Row]]) -> str:
    """Write benchmark.json and benchmark.md; returns the tables of the latter.

    Args:
        about: `machine, date, command`.
        rows: of the comparison.
        groups: of the growth of a step's cost; may be empty.
    """
    found = about | {
        "rows": [row.as_dict() for row in rows],
        "scaling": [[row.as_dict() for row in group] for group in groups],
    }
    (folder / "benchmark.json").write_text(json.dumps(found, indent=1))
    tables = "\n\n".join([comparison(rows), *([growth(groups)] if groups else [])])
    on = ", ".join(f"{name} {value}" for name, value in about["machine"].items())
    heading = f"{on}; {about['date']}; `{about['command']}`"
    (folder / "benchmark.md").write_text(f"{heading}\n\n{tables}\n")
    return tables
