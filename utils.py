"""Metrics (PSNR, SSIM), and writers of GIF, MP4, contact sheets and plots."""

import functools
import itertools
import math
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

FRAMES_PER_SECOND = 20  # of a dataset without a stored frame rate
MAX_FPS = 1000
MAX_GIF_FPS = 50  # browsers slow down shorter frames
DISPLAY_WIDTH = 192  # pixels, to which small frames are enlarged
HEADING_HEIGHT = 18
SSIM_MIN_SIDE = 6  # pixels, because the window pads 5 by reflection
PIXEL_CHUNK = 2**18  # pixels compared at once, which bounds the memory


def Generate_PSNR(imgs1: Tensor, imgs2: Tensor, data_range: float = 1.0) -> Tensor:
    """PSNR in dB over all values of two tensors of the same shape, as in the course."""
    mse = torch.nn.functional.mse_loss(imgs1, imgs2)
    return 20 * torch.log10(torch.as_tensor(data_range)) - 10 * torch.log10(mse)


def psnr_by_frame(predicted: Tensor, truth: Tensor) -> Tensor:
    """PSNR in dB of each frame, over its pixels and channels, data range 1.

    The prediction is clamped to [0, 1], NaN counts as 0, and equal frames as 100 dB.

    Args:
        predicted, truth: `(T, 3, H, W)`.

    Returns:
        `(T,)`.
    """

    def psnr(predicted: Tensor, truth: Tensor) -> Tensor:
        error = predicted.nan_to_num(nan=0.0).clamp(0, 1) - truth
        return -10 * torch.log10(error.square().mean(dim=(1, 2, 3)).clamp(min=1e-10))

    return _in_chunks(psnr, predicted, truth)


def _in_chunks(metric: Callable[[Tensor, Tensor], Tensor], predicted: Tensor, truth: Tensor) -> Tensor:
    count = max(1, PIXEL_CHUNK // truth[:1, 0].numel()) if len(truth) else 1
    parts = zip(predicted.split(count), truth.split(count), strict=True)
    return torch.cat([metric(*part) for part in parts])


def ssim_by_frame(predicted: Tensor, truth: Tensor) -> Tensor:
    """SSIM (Wang et al. 2004) of each frame, `(T, 3, H, W)` in [0, 1] -> `(T,)`; sides >= `SSIM_MIN_SIDE`."""
    # Imported here: it takes seconds, and training does not need it.
    from torchmetrics.functional.image import structural_similarity_index_measure

    def ssim(predicted: Tensor, truth: Tensor) -> Tensor:
        predicted = predicted.nan_to_num(nan=0.0).clamp(0, 1)
        values = structural_similarity_index_measure(predicted, truth, data_range=1.0, reduction="none")
        return values.reshape(-1)  # a single frame gives a scalar

    return _in_chunks(ssim, predicted, truth)


def to_float(images: np.ndarray | Tensor, device: torch.device | str | None = None) -> Tensor:
    """uint8 `(.., H, W, 3)` -> float `(.., 3, H, W)` in [0, 1], on `device` if it is given."""
    if isinstance(images, np.ndarray):
        # A copy, because tensors cannot be read-only, as memory-mapped arrays are.
        images = torch.from_numpy(np.array(images))
    return images.to(device).movedim(-1, -3).float().div(255)


def to_rgb(colour: str) -> np.ndarray:
    """`#rrggbb` -> uint8 `(3,)`."""
    return np.frombuffer(bytes.fromhex(colour[1:]), np.uint8)


@functools.cache  # because a CUDA graph cannot contain a copy from the CPU
def to_float_rgb(colour: str, device: torch.device | None = None) -> Tensor:
    """`#rrggbb` -> `(3, 1, 1)` in [0, 1]."""
    return to_float(to_rgb(colour)[None, None], device)


def colour_name(colour: str) -> str:
    """`#rrggbb`, or its name if it is black or white."""
    return {"#000000": "black", "#ffffff": "white"}.get(colour, colour)


def to_uint8(video: Tensor) -> np.ndarray:
    """`(T, 3, H, W)` in [0, 1], clamped -> `(T, H, W, 3)` uint8, rounded."""
    pixels = video.nan_to_num(nan=0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    return pixels.movedim(-3, -1).cpu().numpy()


@dataclass
class VideoGrid:
    """Videos side by side, to be shown enlarged.

    Attributes:
        frames: `(T, H, W, 3)` uint8.
        scale: how often each pixel is repeated on both axes.
        headings: texts, each with the column of `frames` at which it starts.
        fps: frames per second.
    """

    frames: np.ndarray
    scale: int
    headings: dict[str, int] = field(default_factory=dict)
    fps: float = FRAMES_PER_SECOND

    def heading(self) -> Image.Image | None:
        """The band above the enlarged frames; None without headings."""
        if not self.headings:
            return None
        band = Image.new("RGB", (self.frames.shape[2] * self.scale, HEADING_HEIGHT), "white")
        for text, column in self.headings.items():
            ImageDraw.Draw(band).text((column * self.scale + 4, 3), text, fill="black")
        return band


def side_by_side(
    columns: dict[str, np.ndarray], has_headings: bool = True, fps: float = FRAMES_PER_SECOND
) -> VideoGrid:
    """Videos `(T, H, W, 3)` uint8 side by side, each under its name."""
    videos = list(columns.values())
    width = videos[0].shape[2]
    gap = np.full_like(videos[0][:, :, :1], 255)
    parts = [part for video in videos for part in (video, gap)][:-1]
    headings = {name: i * (width + 1) for i, name in enumerate(columns)} if has_headings else {}
    return VideoGrid(np.concatenate(parts, axis=2), max(1, round(DISPLAY_WIDTH / width)), headings, fps)


def comparison(
    poses: np.ndarray, predicted: np.ndarray, truth: np.ndarray | None, fps: float = FRAMES_PER_SECOND
) -> VideoGrid:
    """pose | prediction | truth | error, of videos `(T, H, W, 3)` uint8; two columns without a truth.

    The error is the absolute difference, doubled.
    """
    columns = {"pose": poses, "prediction": predicted}
    if truth is not None:
        difference = np.abs(predicted.astype(np.int16) - truth)
        columns |= {"truth": truth, "error x2": (2 * difference).clip(0, 255).astype(np.uint8)}
    return side_by_side(columns, fps=fps)


def save_sheet(path: Path, grid: VideoGrid, count: int = 8, labels: list[str] | None = None) -> None:
    """Write a PNG contact sheet: `count` frames, evenly spaced in time, below each other.

    Args:
        labels: of all frames, by default their numbers.
    """
    times = np.linspace(0, len(grid.frames) - 1, min(count, len(grid.frames))).astype(int)
    height, width = (side * grid.scale for side in grid.frames.shape[1:3])
    margin, gap = 36, 2
    sheet = Image.new("RGB", (margin + width, HEADING_HEIGHT + len(times) * (height + gap)), "white")
    if (band := grid.heading()) is not None:
        sheet.paste(band, (margin, 0))
    for row, t in enumerate(times):
        top = HEADING_HEIGHT + row * (height + gap)
        image = Image.fromarray(grid.frames[t]).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(image, (margin, top))
        ImageDraw.Draw(sheet).text((4, top + 4), labels[t] if labels else str(t), fill="black")
    sheet.save(path)


def save_gif(path: Path, grid: VideoGrid) -> None:
    """Write a looping GIF; above `MAX_GIF_FPS`, frames are skipped.

    All frames share one palette, so static pixels stay equal, which halves the file. Frames are quantized
    before they are enlarged, which is faster.
    """
    step = math.ceil(grid.fps / MAX_GIF_FPS)
    frames = grid.frames[::step]
    samples = frames[np.linspace(0, len(frames) - 1, min(len(frames), 24)).astype(int)]
    # Colours are weighted by the square root of their pixels, so a wall leaves colours for thin limbs.
    colours, counts = np.unique(samples.reshape(-1, 3), axis=0, return_counts=True)
    colours = colours.repeat(np.sqrt(counts).astype(int), axis=0)
    no_dither = {"dither": Image.Dither.NONE}
    palette = Image.fromarray(colours[None]).quantize(256, **no_dither)
    band = grid.heading()
    images = []
    for frame in frames:
        small = Image.fromarray(frame).quantize(palette=palette, **no_dither)
        size = small.width * grid.scale, small.height * grid.scale
        image = small.resize(size, Image.Resampling.NEAREST)
        if band is not None:
            body, image = image, Image.new("P", (image.width, image.height + HEADING_HEIGHT))
            image.putpalette(palette.getpalette())
            image.paste(band.quantize(palette=palette, **no_dither), (0, 0))
            image.paste(body, (0, HEADING_HEIGHT))
        images.append(image)
    # GIF counts in hundredths of a second: rounded ends add up to the length of the video.
    ends = (np.arange(len(images) + 1) * step * 100 / grid.fps).round()
    durations = (10 * np.diff(ends)).astype(int).tolist()
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0)


def save_mp4(path: Path, grids: Iterable[VideoGrid]) -> None:
    """Write an H.264 MP4, with PyAV; an odd side loses its last row or column.

    Args:
        grids: chunks of one video; only one is in memory at a time.
    """
    grids = iter(grids)
    first = next(grids)
    with iio.imopen(path, "w", plugin="pyav") as file:
        file.init_video_stream("libx264", fps=first.fps)
        for grid in itertools.chain([first], grids):
            band = grid.heading()
            for frame in grid.frames:
                image = frame.repeat(grid.scale, axis=0).repeat(grid.scale, axis=1)
                if band is not None:
                    image = np.concatenate([np.asarray(band), image])
                file.write_frame(image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2])


def add_axes(figure: Figure, title: str, y: str, x: str = "epoch", position: int = 111):
    """Axes with a grid and integers along x; `position` as in `add_subplot`."""
    axes = figure.add_subplot(position)
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes


def plot_losses(path: Path, rows: list[dict], annealing: str) -> None:
    """Training loss by epoch (total, MSE and KL, logarithmic), titled with the kind of KL annealing."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    figure.suptitle(f"KL annealing: {annealing}")
    epochs = [row["epoch"] for row in rows]
    for i, (column, title) in enumerate(
        (("loss", "total: MSE + beta x KL"), ("mse", "MSE, summed over a clip"), ("kl", "KL"))
    ):
        axes = add_axes(figure, title, f"{column} per clip", position=131 + i)
        axes.plot(epochs, [row[column] for row in rows], marker=".")
        if all(row[column] > 0 for row in rows):
            axes.set_yscale("log")
    figure.savefig(path)


def plot_schedules(path: Path, steps: dict[str, np.ndarray]) -> None:
    """Beta and the teacher-forcing ratio by step, clip length, and learning rate.

    Args:
        steps: `beta, tfr, teacher_forcing, clip_length, lr` of each step, `(N,)` each.
    """
    figure = Figure(figsize=(15, 3.9), layout="constrained")
    axes = add_axes(figure, "KL annealing and teacher forcing", "beta, ratio", x="step", position=131)
    marker = "." if len(steps["beta"]) < 100 else None
    axes.plot(steps["beta"], marker=marker, label="beta")
    axes.plot(steps["tfr"], marker=marker, label="teacher-forcing ratio")
    is_forced = np.flatnonzero(steps["teacher_forcing"])
    axes.plot(
        is_forced, np.full(len(is_forced), 1.06), "|", color="C1", alpha=0.6, label="teacher-forced step"
    )
    axes.set_ylim(-0.05, 1.12)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False, fontsize="small")
    plots = (("frames per training clip", "frames", "clip_length"), ("learning rate", "lr", "lr"))
    for i, (title, label, column) in enumerate(plots):
        axes = add_axes(figure, title, label, x="step", position=132 + i)
        axes.plot(steps[column], marker=marker, color=f"C{2 + i}")
        axes.set_ylim(bottom=0)
    figure.savefig(path)


def plot_psnr_by_epoch(path: Path, rows: list[dict]) -> None:
    """Validation PSNR by epoch, with the best epoch marked."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    rows = [row for row in rows if row["val_psnr"] is not None]
    best = max(rows, key=lambda row: row["val_psnr"])
    title = f"validation, whole video: best {best['val_psnr']:.2f} dB in epoch {best['epoch']}"
    axes = add_axes(figure, title, "PSNR (dB)")
    axes.plot([row["epoch"] for row in rows], [row["val_psnr"] for row in rows], marker=".")
    axes.plot(best["epoch"], best["val_psnr"], "o", color="C3")
    figure.savefig(path)


def plot_psnr_by_frame(path: Path, curves: dict[str, list[float]]) -> None:
    """PSNR by frame, one curve per name; frame 1 is the first predicted one."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = add_axes(figure, "PSNR by frame", "PSNR (dB)", x="frame")
    for name, values in curves.items():
        mean = sum(values) / len(values)
        axes.plot(range(1, len(values) + 1), values, lw=1, label=f"{name}: mean {mean:.2f} dB")
    axes.legend()
    figure.savefig(path)
