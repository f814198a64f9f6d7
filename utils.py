"""What people look at: PSNR and SSIM, GIF and MP4, and plots of a run."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image, ImageDraw
from torch import Tensor

from runtime.files import replacing

FRAMES_PER_SECOND = 20
# A picture of 64x32 is tiny on a screen: it is enlarged until it is about this wide.
DISPLAY_WIDTH = 192
HEADING_HEIGHT = 18
SSIM_LEAST_SIDE = 6  # pixels: at each edge 5 are mirrored
PIXELS_AT_ONCE = 2**18  # of frames that are compared at once, so that long videos need no more memory


def Generate_PSNR(imgs1: Tensor, imgs2: Tensor, data_range: float = 1.0) -> Tensor:
    """PSNR in dB over all values of two tensors of the same shape, as the course lab computes it."""
    mse = torch.nn.functional.mse_loss(imgs1, imgs2)
    return 20 * torch.log10(torch.as_tensor(data_range)) - 10 * torch.log10(mse)


def psnr_by_frame(predicted: Tensor, truth: Tensor) -> Tensor:
    """PSNR in dB of each frame, over its pixels and channels, data range 1.

    The prediction is clamped to [0, 1], and a value that is not a number counts as 0. Equal pictures
    score 100 dB, so that a mean over frames stays finite.

    Args:
        predicted, truth: `(T, 3, H, W)`.

    Returns:
        `(T,)`.
    """

    def psnr(predicted: Tensor, truth: Tensor) -> Tensor:
        error = predicted.nan_to_num(nan=0.0).clamp(0, 1) - truth
        return -10 * torch.log10(error.square().mean(dim=(1, 2, 3)).clamp(min=1e-10))

    return _in_pieces(psnr, predicted, truth)


def _in_pieces(measure: Callable[[Tensor, Tensor], Tensor], predicted: Tensor, truth: Tensor) -> Tensor:
    count = max(1, PIXELS_AT_ONCE // truth[:1, 0].numel()) if len(truth) else 1
    parts = zip(predicted.split(count), truth.split(count), strict=True)
    return torch.cat([measure(*part) for part in parts])


def ssim_by_frame(predicted: Tensor, truth: Tensor) -> Tensor:
    """SSIM (Wang et al. 2004) of each frame, `(T, 3, H, W)` in [0, 1] -> `(T,)`; not of smaller pictures."""
    # Imported here: it takes seconds, and training needs none of it.
    from torchmetrics.functional.image import structural_similarity_index_measure

    def ssim(predicted: Tensor, truth: Tensor) -> Tensor:
        predicted = predicted.nan_to_num(nan=0.0).clamp(0, 1)
        values = structural_similarity_index_measure(predicted, truth, data_range=1.0, reduction="none")
        return values.reshape(-1)  # of a single frame it has no dimension

    return _in_pieces(ssim, predicted, truth)


def to_float(pictures: np.ndarray | Tensor, device: torch.device | str | None = None) -> Tensor:
    """uint8 `(.., H, W, 3)` -> float `(.., 3, H, W)` in [0, 1], on `device` if it is given."""
    if isinstance(pictures, np.ndarray):
        # A copy, because a memory-mapped array is read-only, which tensors cannot be.
        pictures = torch.from_numpy(np.array(pictures))
    return pictures.to(device).movedim(-1, -3).float().div(255)


def to_uint8(video: Tensor) -> np.ndarray:
    """`(T, 3, H, W)` in [0, 1], clamped -> `(T, H, W, 3)` uint8, rounded."""
    pixels = video.nan_to_num(nan=0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    return pixels.movedim(-3, -1).cpu().numpy()


@dataclass
class Film:
    """A video to look at: small pictures, how much to enlarge them, and the headings above.

    Attributes:
        frames: `(T, H, W, 3)` uint8.
        times: the enlargement: how often each pixel is repeated on both axes.
        headings: texts, each with the column of `frames` at which it begins.
    """

    frames: np.ndarray
    times: int
    headings: dict[str, int] = field(default_factory=dict)

    def heading(self) -> Image.Image | None:
        """The band above the pictures, in the size of the enlarged ones; None without headings."""
        if not self.headings:
            return None
        band = Image.new("RGB", (self.frames.shape[2] * self.times, HEADING_HEIGHT), "white")
        for text, column in self.headings.items():
            ImageDraw.Draw(band).text((column * self.times + 4, 3), text, fill="black")
        return band


def enlargement(width: int) -> int:
    """How often each pixel of a picture is repeated, by the picture's width."""
    return max(1, round(DISPLAY_WIDTH / width))


def film(columns: dict[str, np.ndarray], named: bool = True) -> Film:
    """Videos `(T, H, W, 3)` uint8 side by side, each under its name if `named`."""
    videos = list(columns.values())
    width = videos[0].shape[2]
    gap = np.full_like(videos[0][:, :, :1], 255)
    parts = [part for video in videos for part in (video, gap)][:-1]
    headings = {name: i * (width + 1) for i, name in enumerate(columns)} if named else {}
    return Film(np.concatenate(parts, axis=2), enlargement(width), headings)


def comparison(poses: np.ndarray, predicted: np.ndarray, truth: np.ndarray | None) -> Film:
    """pose | prediction | truth | error, from videos `(T, H, W, 3)` uint8.

    The error is the absolute difference, doubled so that it is visible. Without a truth there are two
    columns.
    """
    columns = {"pose": poses, "prediction": predicted}
    if truth is not None:
        difference = np.abs(predicted.astype(np.int16) - truth)
        columns |= {"truth": truth, "error x2": (2 * difference).clip(0, 255).astype(np.uint8)}
    return film(columns)


def save_sheet(path: Path, film: Film, count: int = 8) -> None:
    """Write a PNG with `count` frames of a film, evenly spaced in time, below each other, numbered."""
    times = np.linspace(0, len(film.frames) - 1, min(count, len(film.frames))).astype(int)
    height, width = (side * film.times for side in film.frames.shape[1:3])
    margin, gap = 36, 2
    sheet = Image.new("RGB", (margin + width, HEADING_HEIGHT + len(times) * (height + gap)), "white")
    if (band := film.heading()) is not None:
        sheet.paste(band, (margin, 0))
    for place, t in enumerate(times):
        top = HEADING_HEIGHT + place * (height + gap)
        page = Image.fromarray(film.frames[t]).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(page, (margin, top))
        ImageDraw.Draw(sheet).text((4, top + 4), str(t), fill="black")
    with replacing(path) as temporary:
        sheet.save(temporary)


def save_gif(path: Path, film: Film) -> None:
    """Write a GIF that plays in a loop.

    All frames share one palette, which is taken from some of them: pixels that do not move stay equal, which
    halves the file. Pictures are matched to the palette before they are enlarged, which is faster.
    """
    frames = film.frames
    samples = frames[np.linspace(0, len(frames) - 1, min(len(frames), 24)).astype(int)]
    # Each colour is weighted by the square root of its pixels, so that a wall leaves colours for thin limbs.
    colours, counts = np.unique(samples.reshape(-1, 3), axis=0, return_counts=True)
    colours = colours.repeat(np.sqrt(counts).astype(int), axis=0)
    no_dither = {"dither": Image.Dither.NONE}
    palette = Image.fromarray(colours[None]).quantize(256, **no_dither)
    band = film.heading()
    pages = []
    for frame in frames:
        small = Image.fromarray(frame).quantize(palette=palette, **no_dither)
        page = small.resize((small.width * film.times, small.height * film.times), Image.Resampling.NEAREST)
        if band is not None:
            body, page = page, Image.new("P", (page.width, page.height + HEADING_HEIGHT))
            page.putpalette(palette.getpalette())
            page.paste(band.quantize(palette=palette, **no_dither), (0, 0))
            page.paste(body, (0, HEADING_HEIGHT))
        pages.append(page)
    duration = 1000 // FRAMES_PER_SECOND
    with replacing(path) as temporary:
        pages[0].save(temporary, save_all=True, append_images=pages[1:], duration=duration, loop=0)


def save_mp4(path: Path, films: Iterable[Film]) -> None:
    """Write an MP4 in H.264, which every browser plays; an odd side loses its last row or column.

    Args:
        films: the pieces of one film, of which only one is in memory at a time.
    """
    with replacing(path) as temporary, iio.imopen(temporary, "w", plugin="pyav") as file:
        file.init_video_stream("libx264", fps=FRAMES_PER_SECOND)
        for film in films:
            band = film.heading()
            for frame in film.frames:
                page = frame.repeat(film.times, axis=0).repeat(film.times, axis=1)
                if band is not None:
                    page = np.concatenate([np.asarray(band), page])
                file.write_frame(page[: page.shape[0] // 2 * 2, : page.shape[1] // 2 * 2])


def axes_of(figure: Figure, title: str, y: str, x: str = "epoch", place: int = 111):
    """Axes with a grid and whole numbers along x; `place` as in `add_subplot`."""
    axes = figure.add_subplot(place)
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary)


def plot_losses(rows: list[dict], path: Path) -> None:
    """Training loss by epoch: total, MSE and KL, each on an axis of its own (logarithmic)."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    for i, (column, title) in enumerate(
        (("loss", "total: MSE + beta x KL"), ("mse", "MSE, summed over a clip"), ("kl", "KL"))
    ):
        axes = axes_of(figure, title, f"{column} per clip", place=131 + i)
        axes.plot(epochs, [row[column] for row in rows], marker=".")
        if all(row[column] > 0 for row in rows):
            axes.set_yscale("log")
    _save(figure, path)


def plot_schedules(rows: list[dict], path: Path) -> None:
    """Teacher forcing (ratio, and forced epochs), beta, clip length and learning rate by epoch."""
    figure = Figure(figsize=(15, 3.6), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    plots = (
        ("teacher forcing", "ratio", "tfr"),
        ("KL annealing", "beta", "beta"),
        ("frames of a training clip", "frames", "clip_length"),
        ("learning rate, end of the epoch", "lr", "lr"),
    )
    for i, (title, label, column) in enumerate(plots):
        axes = axes_of(figure, title, label, place=141 + i)
        axes.plot(epochs, [row[column] for row in rows], marker=".", color=f"C{i}", label=label)
        if column in ("tfr", "beta"):
            axes.set_ylim(-0.05, 1.05)
        if column == "tfr":
            forced = [row["teacher_forcing"] for row in rows]
            axes.plot(epochs, forced, "o", ms=3, alpha=0.5, color="C4", label="drawn")
            axes.legend()
    _save(figure, path)


def plot_psnr_by_epoch(rows: list[dict], path: Path) -> None:
    """Validation PSNR by epoch, for the epochs that had a validation, the best one marked."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    rows = [row for row in rows if row["val_psnr"] is not None]
    best = max(rows, key=lambda row: row["val_psnr"])
    title = f"validation, whole video: best {best['val_psnr']:.2f} dB in epoch {best['epoch']}"
    axes = axes_of(figure, title, "PSNR (dB)")
    axes.plot([row["epoch"] for row in rows], [row["val_psnr"] for row in rows], marker=".")
    axes.plot(best["epoch"], best["val_psnr"], "o", color="C3")
    _save(figure, path)


def plot_psnr_by_frame(curves: dict[str, list[float]], path: Path) -> None:
    """PSNR by frame, one curve a name; frame 1 is the first predicted one."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = axes_of(figure, "PSNR by frame", "PSNR (dB)", x="frame")
    for name, values in curves.items():
        mean = sum(values) / len(values)
        axes.plot(range(1, len(values) + 1), values, lw=1, label=f"{name}: mean {mean:.2f} dB")
    axes.legend()
    _save(figure, path)


def plot_run(rows: list[dict], psnr_by_frame: dict[str, list[float]], folder: Path) -> None:
    """All plots of a training run, from the rows of its history.

    Args:
        psnr_by_frame: curves of validations by their names.
    """
    plot_losses(rows, folder / "losses.png")
    plot_schedules(rows, folder / "schedules.png")
    plot_psnr_by_epoch(rows, folder / "val_psnr_by_epoch.png")
    plot_psnr_by_frame(psnr_by_frame, folder / "val_psnr_by_frame.png")
