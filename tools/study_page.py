"""The page of a study: a table of scores, overlaid curves and videos side by side."""

import base64
import csv
import html
import json
import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

import utils

# 97.5 % points of Student's t distribution with 1, 2, .. degrees of freedom.
STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
SHOWN_FRAMES = 200
COLOURS = [f"C{i}" for i in range(10)]


@dataclass(frozen=True)
class Finished:
    """What a finished run left: `history` (rows of history.csv) and `results` (Tester's results.json)."""

    name: str
    flags: tuple[str, ...]
    seed: int
    folder: Path
    history: list[dict]
    results: dict

    @classmethod
    def read(cls, name: str, flags: tuple[str, ...], seed: int, folder: Path) -> "Finished":
        """Read a run's folder."""
        with (folder / "history.csv").open() as file:
            history = [
                {key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)
            ]
        return cls(name, flags, seed, folder, history, json.loads((folder / "test/results.json").read_text()))

    @property
    def validated(self) -> list[dict]:
        """Rows of the epochs that ended with a validation, each with `minutes` of training so far."""
        minutes = np.cumsum([row["seconds"] for row in self.history]) / 60
        rows = [row | {"minutes": at} for row, at in zip(self.history, minutes, strict=True)]
        return [row for row in rows if "val_psnr" in row]

    @property
    def scores(self) -> dict[str, float]:
        """The columns of the table, in dB, but for SSIM and minutes; what is not known is left out."""
        known = [one for one in self.results["sequences"] if "psnr" in one]
        late = [row["val_psnr"] for row in self.validated if row["epoch"] + 1 > 0.8 * len(self.history)]
        columns = {"minutes": sum(row["seconds"] for row in self.history) / 60, "epochs": len(self.history)}
        columns |= {"test PSNR": self.results["average"]["psnr"]} if known else {}
        columns |= {f"test {one['sequence']}": one["psnr"] for one in known}
        columns |= {"SSIM": self.results["average"]["ssim"]} if known else {}
        columns |= {"val, best": max(row["val_psnr"] for row in self.validated)}
        columns |= {"val, spread in the last fifth": max(late) - min(late)}
        if drifts := [one["drift"] for one in known if "drift" in one]:
            columns |= {"drift": mean(drifts)}
        return columns

    @property
    def psnr_by_frame(self) -> np.ndarray | None:
        """PSNR by frame, a mean over the test sequences of the greatest length."""
        curves = [one["psnr_by_frame"] for one in self.results["sequences"] if "psnr" in one]
        longest = max(map(len, curves), default=0)
        return np.mean([curve for curve in curves if len(curve) == longest], axis=0) if curves else None


def mean_and_interval(values: list[float]) -> tuple[float, float | None]:
    """Mean and half of its 95 % confidence interval (Student's t); None for a single value."""
    if len(values) < 2:
        return values[0], None
    t = STUDENT_T[len(values) - 2] if len(values) - 2 < len(STUDENT_T) else 2.0
    return mean(values), t * stdev(values) / math.sqrt(len(values))


def by_name(runs: list[Finished]) -> dict[str, list[Finished]]:
    """The runs of each name, one a seed."""
    groups: dict[str, list[Finished]] = {}
    for run in runs:
        groups.setdefault(run.name, []).append(run)
    return groups


def table(runs: list[Finished]) -> list[list[str]]:
    """Rows of text, the heading first."""
    groups = by_name(runs)
    columns = list(dict.fromkeys(column for run in runs for column in run.scores))
    rows = [["run", "flags", "seeds", *columns]]
    for name, group in groups.items():
        cells = []
        for column in columns:
            values = [run.scores[column] for run in group if column in run.scores]
            cells.append(_cell(column, values))
        rows.append([name, shlex.join(group[0].flags), str(len(group)), *cells])
    return rows


def _cell(column: str, values: list[float]) -> str:
    if not values:
        return ""
    centre, half = mean_and_interval(values)
    digits = {"SSIM": 4, "minutes": 1, "epochs": 0}.get(column, 2)
    interval = "" if half is None or column in ("minutes", "epochs") else f" ± {half:.{digits}f}"
    return f"{centre:.{digits}f}{interval}"


def _overlay(axes, runs: list[Finished], curve) -> None:
    """One line a run, one colour a name; `curve(run)` returns x and y, or None."""
    for colour, (name, group) in zip(COLOURS * len(runs), by_name(runs).items(), strict=False):
        label = name
        for run in group:
            if (points := curve(run)) is not None:
                axes.plot(*points, color=colour, lw=1, label=label)
                label = None
    axes.legend(fontsize=7)


def plot_curves(runs: list[Finished], folder: Path) -> dict[str, Path]:
    """Write the overlaid plots; returns caption -> file."""

    def column(name):
        return lambda run: ([row["epoch"] for row in run.history], [row[name] for row in run.history])

    def validation(x):
        return lambda run: ([row[x] for row in run.validated], [row["val_psnr"] for row in run.validated])

    def frames(run):
        curve = run.psnr_by_frame
        return None if curve is None else (range(1, len(curve) + 1), curve)

    pages = {
        "losses": [
            ("total: MSE + beta x KL", "epoch", "loss", column("loss")),
            ("MSE, summed over a clip", "epoch", "MSE", column("mse")),
            ("KL", "epoch", "KL", column("kl")),
        ],
        "schedules": [
            ("teacher-forcing ratio", "epoch", "ratio", column("tfr")),
            ("beta", "epoch", "beta", column("beta")),
            ("learning rate", "epoch", "lr", column("lr")),
        ],
        "validation": [
            ("validation, whole video", "epoch", "PSNR (dB)", validation("epoch")),
            ("validation, whole video", "minutes of training", "PSNR (dB)", validation("minutes")),
        ],
        "psnr_by_frame": [("test sequences, PSNR by frame", "frame", "PSNR (dB)", frames)],
    }
    written = {}
    for name, plots in pages.items():
        figure = Figure(figsize=(15, 4.2), layout="constrained")
        for place, (title, x, y, curve) in enumerate(plots, 101 + 10 * len(plots)):
            axes = utils.axes_of(figure, title, y, x, place)
            if name == "losses":
                axes.set_yscale("log")
            _overlay(axes, runs, curve)
        path = written[name.replace("_", " ")] = folder / f"{name}.png"
        figure.savefig(path, dpi=80)
    return written


def read_comparison(path: Path, width: int) -> dict[str, np.ndarray]:
    """The first frames of a compare_seq{i}.gif, small again: column -> `(T, H, width, 3)` uint8."""
    names = ("pose", "prediction", "truth", "error")
    with Image.open(path) as gif:
        times = utils.enlargement(width)
        pages = []
        for page in ImageSequence.Iterator(gif):
            pages.append(np.asarray(page.convert("RGB"))[utils.HEADING_HEIGHT :: times, ::times])
            if len(pages) == SHOWN_FRAMES:
                break
    video = np.stack(pages)
    starts = range(0, video.shape[2], width + 1)
    return {name: video[:, :, x : x + width] for name, x in zip(names, starts, strict=False)}


def write_videos(runs: list[Finished], folder: Path) -> Path:
    """The first test sequence by every run (its first seed) side by side, as a GIF."""
    columns = {}
    for name, group in by_name(runs).items():
        run = group[0]
        width = json.loads((run.folder / "args.json").read_text())["frame_W"]
        read = read_comparison(run.folder / "test" / "compare_seq1.gif", width)
        columns |= {kind: read[kind] for kind in ("pose", "truth") if kind in read} | {
            name: read["prediction"]
        }
    length = min(map(len, columns.values()))
    path = folder / "videos.gif"
    utils.save_gif(path, utils.film({name: video[:length] for name, video in columns.items()}))
    return path


def write_pages(folder: Path, title: str, runs: list[Finished]) -> None:
    """Write study.md with its pictures, and study.html with the pictures inside."""
    pictures = plot_curves(runs, folder)
    pictures["test sequence 1, side by side"] = write_videos(runs, folder)
    rows = table(runs)
    note = (
        "Scores of best.ckpt on whole videos generated from their first frame; PSNR in dB, ± half of the "
        "95 % interval over seeds. Drift: what the last 100 frames lose against the same frames made from "
        "the true last frame."
    )
    (folder / "study.md").write_text(_markdown(title, note, rows, pictures))
    (folder / "study.html").write_text(_html(title, note, rows, pictures))


def _markdown(title: str, note: str, rows: list[list[str]], pictures: dict[str, Path]) -> str:
    lines = [f"# Study: {title}", "", note, ""]
    heading, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines += ["| " + " | ".join(heading) + " |", "|" + "---|" * len(heading)]
    lines += ["| " + " | ".join([row[0], f"`{row[1]}`", *row[2:]]) + " |" for row in body]
    for caption, path in pictures.items():
        lines += ["", f"![{caption}]({path.name})"]
    return "\n".join(lines) + "\n"


def _html(title: str, note: str, rows: list[list[str]], pictures: dict[str, Path]) -> str:
    def row(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    figures = []
    for caption, path in pictures.items():
        data = base64.b64encode(path.read_bytes()).decode()
        kind = path.suffix.lstrip(".")
        figures.append(
            f"<h2>{html.escape(caption)}</h2>\n"
            f'<img alt="{html.escape(caption)}" src="data:image/{kind};base64,{data}">'
        )
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>',
            "<style>body{font:15px sans-serif;margin:2em}table{border-collapse:collapse}"
            "td,th{border:1px solid #ccc;padding:.3em .6em;text-align:left}img{max-width:100%}</style>",
            f"<h1>Study: {html.escape(title)}</h1><p>{html.escape(note)}</p>",
            "<table>", row(rows[0], "th"), *(row(cells, "td") for cells in rows[1:]), "</table>",
            *figures,
            "</html>\n",
        ]
    )  # fmt: skip
