"""The page of a study: a table of scores, the curves of all runs, and videos side by side."""

import base64
import csv
import importlib.util
import itertools
import json
import math
import shlex
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import utils
from runtime import files
from training.evaluate import DRIFT_FRAMES

VIDEO_FRAMES = 200
MIN_VALUES = 3  # fewer give no meaningful spread
DASHES = ("-", "--", "-.", ":", (0, (8, 4)), (0, (1, 4)), (0, (8, 2, 2, 2)))
NOTE = (
    "Scores of best.ckpt on full videos, generated from the first frame: PSNR in dB; for three or more "
    "seeds, ± half the 95 % confidence interval. Drift: PSNR loss of the last 100 frames relative to "
    "teacher-forced predictions."
)
# Caption, file, and plots: title, label and column of x, label of y, columns of y (solid, dashed).
FIGURES = (
    ("training losses", "losses.png", (
        ("total: MSE + beta x KL", "epoch", "loss", ["loss"]),
        ("MSE, summed over a clip", "epoch", "MSE", ["mse"]),
        ("KL", "epoch", "KL", ["kl"]))),
    ("schedules", "schedules.png", (
        ("teacher-forcing ratio (solid), largest beta (dashed)", "epoch", "ratio, beta", ["tfr", "beta_max"]),
        ("maximum frames per training clip", "epoch", "frames", ["clip_length_max"]),
        ("learning rate", "epoch", "lr", ["lr"]))),
    ("validation PSNR, whole video", "validation.png", (
        ("validation", "epoch", "PSNR (dB)", ["val_psnr"]),
        ("validation", "minutes of training", "PSNR (dB)", ["val_psnr"]))),
    ("validation PSNR by frame, last epoch", "psnr_by_frame.png", (
        ("validation", "frame", "PSNR (dB)", ["last"]),)),
)  # fmt: skip


@dataclass(frozen=True)
class FinishedRun:
    """A trained and tested run, as the page shows it.

    Attributes:
        annealing: `--kl_anneal_type` of the run.
        points: points of the curves: the rows of history.csv without empty cells, with cumulative
            `minutes of training`; then the rows of val_psnr_by_frame.csv.
        scores: the cells of the table by column, in dB except for SSIM, minutes and epochs.
        videos: the beginning of the first test sequence: `pose`, `truth` if known, and `prediction`, each
            `(T, H, W, 3)` uint8.
        fps: frames per second of the videos.
    """

    name: str
    flags: tuple[str, ...]
    annealing: str
    points: list[dict[str, float]]
    scores: dict[str, float]
    videos: dict[str, np.ndarray]
    fps: float

    @classmethod
    def read(cls, name: str, flags: tuple[str, ...], folder: Path) -> "FinishedRun":
        """Read a run's folder."""
        annealing = json.loads((folder / "args.json").read_text())["kl_anneal_type"]
        history = _read_history(folder / "history.csv")
        by_frame = _read_numbers(folder / "val_psnr_by_frame.csv")
        results = json.loads((folder / "test" / "results.json").read_text())
        first = results["sequences"][0]["sequence"]
        with np.load(folder / "test" / f"pred_seq{first}.npz") as arrays:
            kinds = [kind for kind in ("pose", "truth", "prediction") if kind in arrays]
            videos = {kind: arrays[kind][:VIDEO_FRAMES].copy() for kind in kinds}
        points, scores = history + by_frame, _scores(results, history)
        return cls(
            name, flags, annealing, points, scores, videos, results.get("fps", utils.FRAMES_PER_SECOND)
        )


def _read_numbers(path: Path) -> list[dict[str, float]]:
    """The rows of a table, without their empty cells."""
    with path.open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def _read_history(path: Path) -> list[dict[str, float]]:
    history = _read_numbers(path)
    minutes = np.cumsum([row["seconds"] for row in history]) / 60
    return [row | {"minutes of training": total} for row, total in zip(history, minutes, strict=True)]


def _scores(results: dict, history: list[dict[str, float]]) -> dict[str, float]:
    """The table cells of a run; unknown values are left out."""
    scores = {"minutes": history[-1]["minutes of training"], "epochs": len(history)}
    if scored := [sequence for sequence in results["sequences"] if "psnr" in sequence]:
        scores["PSNR"] = results["average"]["psnr"]
        scores |= {f"sequence {sequence['sequence']}": sequence["psnr"] for sequence in scored}
    if "ssim" in results["average"]:  # small frames have none
        scores["SSIM"] = results["average"]["ssim"]
    validation = {row["epoch"]: row["val_psnr"] for row in history if "val_psnr" in row}
    scores["val, best"] = max(validation.values())
    late = [psnr for epoch, psnr in validation.items() if epoch + 1 > 0.8 * len(history)]
    if len(late) >= MIN_VALUES:
        scores["val, range over the last 20 %"] = max(late) - min(late)
    long = [sequence for sequence in scored if len(sequence["psnr_by_frame"]) >= DRIFT_FRAMES]
    if drifts := [sequence["drift"] for sequence in long]:
        scores["drift"] = np.mean(drifts)
    return {column: float(value) for column, value in scores.items()}


def mean_and_interval(values: list[float]) -> tuple[float, float | None]:
    """Mean and half-width of its 95 % confidence interval (Student's t).

    The interval is None for fewer than three values, or without scipy.
    """
    if len(values) < MIN_VALUES or not importlib.util.find_spec("scipy"):
        return float(np.mean(values)), None
    from scipy import stats  # here, because it takes a second

    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values)), float(half)


def by_name(runs: list[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """The runs of each name, one per seed."""
    names = dict.fromkeys(run.name for run in runs)
    return {name: [run for run in runs if run.name == name] for name in names}


def table(runs: list[FinishedRun]) -> list[list[str]]:
    """Lines of cells, the heading first."""
    columns = list(dict.fromkeys(column for run in runs for column in run.scores))
    lines = [["run", "flags", "seeds", *columns]]
    for name, group in by_name(runs).items():
        values = {column: [run.scores[column] for run in group if column in run.scores] for column in columns}
        cells = [_cell(column, known) if known else "" for column, known in values.items()]
        lines.append([name, shlex.join(group[0].flags), str(len(group)), *cells])
    return lines


def _cell(column: str, values: list[float]) -> str:
    mean, half = mean_and_interval(values)
    digits = {"SSIM": 4, "minutes": 1, "epochs": 0}.get(column, 2)
    interval = "" if half is None or column in ("minutes", "epochs") else f" ± {half:.{digits}f}"
    return f"{round(mean, digits) + 0.0:.{digits}f}{interval}"  # -0.0 + 0.0 is 0.0


def plot_curves(runs: list[FinishedRun], folder: Path) -> dict[str, Path]:
    """Write the plots; returns caption -> file."""
    kinds = {run.annealing for run in runs}
    written = {}
    for caption, file_name, plots in FIGURES:
        if not any(plots[0][-1][0] in point for run in runs for point in run.points):
            continue
        figure = Figure(figsize=(15, 4.2), layout="constrained")
        figure.suptitle(f"KL annealing: {min(kinds)}" if len(kinds) == 1 else None, fontsize=9)
        for position, (title, x, y_label, columns) in enumerate(plots, 101 + 10 * len(plots)):
            axes = utils.add_axes(figure, title, y_label, x, position)
            axes.set_yscale("log" if file_name == "losses.png" else "linear")
            _plot(axes, runs, x, columns, with_kind=len(kinds) > 1)
        written[caption] = folder / file_name
        files.save(folder / file_name, lambda path, figure=figure: figure.savefig(path, dpi=80))
    return written


def _plot(axes, runs: list[FinishedRun], x: str, columns: list[str], with_kind: bool) -> None:
    """One line per run and column: colour by name; dashes by column if there are two, else by name."""
    for index, (name, group) in enumerate(by_name(runs).items()):
        label = (f"{name} ({group[0].annealing})" if with_kind else name).replace("$", r"\$")
        for run, (number, y) in itertools.product(group, enumerate(columns)):
            if points := [(point[x], point[y]) for point in run.points if x in point and y in point]:
                dash = DASHES[(number if len(columns) > 1 else index) % len(DASHES)]
                # Dashes lie above solid lines, so both are seen where curves coincide.
                style = {"color": f"C{index % 10}", "ls": dash, "zorder": 2 + (dash != "-")}
                axes.plot(*zip(*points, strict=True), marker=".", lw=1.2, label=label, **style)
                label = None
    if axes.lines:
        axes.legend(fontsize=7)


def write_videos(runs: list[FinishedRun], folder: Path) -> Path:
    """The first test sequence by every run (its first seed) side by side, as a GIF."""
    columns = {}
    for name, (run, *_) in by_name(runs).items():
        columns |= {name if kind == "prediction" else kind: video for kind, video in run.videos.items()}
    lengths, heights, widths, _ = zip(*(video.shape for video in columns.values()), strict=True)
    size = min(lengths), max(heights), max(widths)
    videos = {name: _enlarge(video, *size) for name, video in columns.items()}
    grid = utils.side_by_side(videos, fps=runs[0].fps)
    files.save(folder / "videos.gif", utils.save_gif, grid)
    return folder / "videos.gif"


def _enlarge(video: np.ndarray, length: int, height: int, width: int) -> np.ndarray:
    rows, columns = np.arange(height) * video.shape[1] // height, np.arange(width) * video.shape[2] // width
    return video[:length, rows[:, None], columns]


def write_pages(folder: Path, title: str, runs: list[FinishedRun]) -> None:
    """Write study.md with its images, and study.html with the images inside."""
    images = plot_curves(runs, folder)
    images["first test sequence, first seed of each run"] = write_videos(runs, folder)
    lines = table(runs)
    files.write(folder / "study.md", _markdown(title, lines, images))
    files.write(folder / "study.html", _html(title, lines, images))


def _markdown(title: str, lines: list[list[str]], images: dict[str, Path]) -> str:
    heading, *body = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    text = [f"# Study: {title}", "", NOTE, "", "| " + " | ".join(heading) + " |", "|" + "---|" * len(heading)]
    text += [f"| {name} | `{flags}` | " + " | ".join(cells) + " |" for name, flags, *cells in body]
    text += [f"\n![{caption}]({path.name})" for caption, path in images.items()]
    return "\n".join(text) + "\n"


def _html(title: str, lines: list[list[str]], images: dict[str, Path]) -> str:
    cells = ("".join(f"<td>{escape(cell)}</td>" for cell in line) for line in lines)
    text = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>',
        "<style>body{font:15px sans-serif;margin:2em}table{border-collapse:collapse}img{max-width:100%}",
        "tr:first-child{font-weight:bold}td{border:1px solid #ccc;padding:.3em .6em}</style>",
        f"<h1>Study: {escape(title)}</h1><p>{escape(NOTE)}</p>",
        "<table>", *(f"<tr>{row}</tr>" for row in cells), "</table>",
    ]  # fmt: skip
    for caption, path in images.items():
        data = f"data:image/{path.suffix[1:]};base64,{base64.b64encode(path.read_bytes()).decode()}"
        text.append(f'<h2>{escape(caption)}</h2>\n<img alt="{escape(caption)}" src="{data}">')
    return "\n".join(text) + "</html>\n"
