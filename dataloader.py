"""Dataset folders (docs/compatibility.md, "Data") -> training batches on a device, and whole videos."""

import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from image_cache import load_images
from images import numbered_images, visible
from runtime.cli import UserError, log
from truth import true_frames
from utils import FRAMES_PER_SECOND, MAX_FPS, to_float

MIN_TIME_STEP = 4  # milliseconds: 250 frames per second


class ClipBatch(NamedTuple):
    """Training clips, on the device that augments them.

    Attributes:
        frames, poses: uint8 `(B, T, H, W, 3)`.
        background: of their shots, uint8 `(B, H, W, 4)`: colour, and 255 where it is known. None if not
            needed.
    """

    frames: Tensor
    poses: Tensor
    background: Tensor | None = None


@dataclass
class Video:
    """A validation or test video: inputs, ground truth, predictions and scores.

    Attributes:
        number: of its test folder; None for the validation video.
        poses: `(T, H, W, 3)` uint8.
        first_frame: `(H, W, 3)` uint8.
        truth: the true frames, `(T, 3, H, W)` in [0, 1], or None.
        truth_source: where the truth was read.
        prediction: `(T, 3, H, W)`, the first frame included; not clamped.
        scores: by name, as in results.json.
        samples: predictions with z from the prior.
        fps: frames per second.
    """

    number: int | None
    poses: np.ndarray
    first_frame: np.ndarray
    truth: Tensor | None = None
    truth_source: str | None = None
    prediction: Tensor | None = None
    scores: dict = field(default_factory=dict)
    samples: list[Tensor] = field(default_factory=list)
    fps: float = FRAMES_PER_SECOND


def frames_per_second(dataset: Path) -> float:
    """The frame rate in the dataset's poses.json, or the course's without one."""
    try:
        fps = float(json.loads((dataset / "poses.json").read_text("utf-8"))["fps"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return FRAMES_PER_SECOND
    return fps if 0 < fps <= MAX_FPS else FRAMES_PER_SECOND


def _paired_images(image_folder: Path, label_folder: Path) -> tuple[dict, dict]:
    images, labels = numbered_images(image_folder), numbered_images(label_folder)
    for number, entry in images.items():
        if number not in labels:
            raise UserError(f"{entry.path}: no label with this number in {label_folder}")
    for number, entry in labels.items():
        if number not in images:
            raise UserError(f"{entry.path}: no frame with this number in {image_folder}")
    return images, labels


def split_shots(numbers: list[int]) -> list[np.ndarray]:
    """Split frames into shots (consecutive numbers); each shot is an array of indices into `numbers`.

    A shot ends where the step differs from the usual one (by more than 1 for timestamps in ms).
    """
    steps, usual = np.diff(numbers), usual_step(numbers)
    return np.split(np.arange(len(numbers)), np.flatnonzero(abs(steps - usual) > _tolerance(usual)) + 1)


def usual_step(numbers: list[int]) -> float:
    """The most frequent step between frame numbers; for rounded timestamps, the mean of similar steps."""
    steps = np.diff(numbers)
    if not len(steps):
        return 1
    values, counts = np.unique(steps, return_counts=True)
    usual = values[counts.argmax()]
    return steps[abs(steps - usual) <= _tolerance(usual)].mean()


def _tolerance(step: float) -> int:
    # Times in milliseconds, such as 33, 67, 100; smaller numbers count frames.
    return 1 if step >= MIN_TIME_STEP else 0


def clip_starts(numbers: list[int], length: int, rng: np.random.Generator | None) -> np.ndarray:
    """Start indices of non-overlapping, back-to-back clips of `length` frames within each shot.

    With `rng`, the first clip of a shot starts at a random offset, otherwise at the shot's first frame.

    Returns:
        Indices into `numbers`, ascending.
    """
    starts = []
    for shot in split_shots(numbers):
        spare = len(shot) - length
        if spare < 0:
            continue
        offset = int(rng.integers(min(length - 1, spare) + 1)) if rng is not None else 0
        starts.extend(range(shot[0] + offset, shot[-1] - length + 2, length))
    return np.array(starts, dtype=np.int64)


class ClipDataset:
    """The training split, re-cut into clips every epoch; deterministic given the seed and the epoch.

    Args:
        args: `DR, num_workers, frame_H, frame_W, partial, train_vi_len, clips, reference_frame, seed`.

    Attributes:
        frames, poses: uint8 `(N, H, W, 3)`.
        shots: indices of the frames of each shot.
        shot_of: the shot of each frame, `(N,)`.

    Raises:
        UserError: files are missing or damaged, or there are fewer frames than a clip has.
    """

    def __init__(self, args):
        self.args = args
        images, labels = _paired_images(args.DR / "train" / "train_img", args.DR / "train" / "train_label")
        self.numbers = list(images)[: max(1, int(len(images) * args.partial))]
        self.shots = split_shots(self.numbers)
        self.shot_of = np.repeat(np.arange(len(self.shots)), [len(shot) for shot in self.shots])
        size = (args.frame_H, args.frame_W)
        self.frames, self.poses = (
            load_images(args.DR, f"train-{kind}", list(entries.values()), size, args.num_workers)
            for kind, entries in (("img", images), ("label", labels))
        )
        if not len(clip_starts(self.numbers, args.train_vi_len, None)):
            raise UserError(
                f"{args.DR / 'train'}: no {args.train_vi_len} consecutive frames among {len(self.numbers)} "
                "(lower --train_vi_len, or raise --partial)"
            )

    def starts(self, epoch: int, length: int, fraction: float = 1.0) -> np.ndarray:
        """The first frames of the epoch's clips, in the order of training.

        Args:
            length: frames per clip.
            fraction: of the clips to use, from the first on.
        """
        rng = np.random.default_rng([self.args.seed, epoch]) if self.args.clips == "shuffled" else None
        starts = clip_starts(self.numbers, length, rng)
        starts = starts[: max(1, int(len(starts) * fraction))]
        return starts if rng is None else rng.permutation(starts)

    def batches(
        self, epoch: int, length: int, batch_size: int, fraction: float = 1.0, rank: int = 0, ranks: int = 1
    ) -> list[np.ndarray]:
        """The frames of each step of an epoch: `(B, T)` indices into `frames` and `poses`.

        An incomplete last batch is left out, unless it is the only one. With `reference_frame` "any", frame
        0 of each clip is drawn from its whole shot, because late in a rollout it lies far in the past.

        Args:
            length, fraction: see `starts`.
            batch_size: clips per step, of each rank.
            rank, ranks: of the processes that share each step of `ranks * batch_size` clips.
        """
        starts = self.starts(epoch, length, fraction)
        indices = starts[:, None] + np.arange(length)
        if self.args.reference_frame == "any":
            rng = np.random.default_rng([self.args.seed, epoch, 1])
            indices[:, 0] = [rng.choice(self.shots[self.shot_of[start]]) for start in starts]
        size = batch_size * ranks
        if len(indices) < size and ranks > 1:  # every rank has clips, even if some are used twice
            indices = np.resize(indices, (size, length))
        steps = [indices[i : i + size] for i in range(0, max(1, len(indices) - size + 1), size)]
        return [step[rank * len(step) // ranks : (rank + 1) * len(step) // ranks] for step in steps]


class ClipLoader:
    """Training batches on a device.

    Args:
        dataset: the clips.
        device: of the batches.
        background: of each shot, uint8 `(shots, H, W, 4)`, if the augmentation needs it.
    """

    def __init__(self, dataset: ClipDataset, device: torch.device, background: np.ndarray | None = None):
        self.dataset, self.device, self.background = dataset, device, background

    def load(self, indices: np.ndarray) -> ClipBatch:
        """The batch with the frames `(B, T)`, indices of the dataset."""
        clips = [self._copy(images[indices]) for images in (self.dataset.frames, self.dataset.poses)]
        if self.background is None:
            return ClipBatch(*clips)
        return ClipBatch(*clips, self._copy(self.background[self.dataset.shot_of[indices[:, -1]]]))

    def _copy(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.asarray(values))
        # Clips for an Apple GPU stay on the CPU until they are augmented: before torch 2.13 it has no border
        # padding (github.com/pytorch/pytorch/issues/125098).
        if self.device.type != "cuda":
            return tensor
        # From pinned memory, a copy does not wait for the work on the device.
        return tensor.pin_memory().to(self.device, non_blocking=True)


def _video_length(name: str, length: int, limit: int | None) -> int:
    if length < 2:
        raise UserError(f"{name}: {length} frame; at least 2 are required")
    if limit is None:
        return length
    if length != limit:
        used = f"using the first {limit}" if length > limit else "using all of them"
        log(f"{name}: {length} frames, but --val_vi_len is {limit}; {used}")
    return min(length, limit)


def load_validation_video(args) -> Video:
    """The validation video: its first `val_vi_len` frames, or all if there are fewer."""
    folder = args.DR / "val"
    images, labels = _paired_images(folder / "val_img", folder / "val_label")
    length = _video_length(str(folder), len(images), args.val_vi_len)
    _log_gaps(folder / "val_label", list(images)[:length])
    size = (args.frame_H, args.frame_W)
    frames, poses = (
        np.array(load_images(args.DR, f"val-{kind}", list(entries.values()), size, args.num_workers)[:length])
        for kind, entries in (("img", images), ("label", labels))
    )
    truth, source = to_float(frames), str(folder / "val_img")
    return Video(None, poses, frames[0], truth, source, fps=frames_per_second(args.DR))


def _log_gaps(folder: Path, numbers: list[int]) -> None:
    for shot in split_shots(numbers)[1:]:
        log(f"{folder}: no poses between {numbers[shot[0] - 1]} and {numbers[shot[0]]}")


def _test_numbers(folder: Path) -> list[str]:
    names = [entry.name for entry in visible(folder) if entry.is_dir()]
    if wrong := [name for name in names if not name.isdecimal()]:
        raise UserError(f"{folder / wrong[0]}: test sequences are folders named 0, 1, 2, ..")
    names.sort(key=int)
    for name, following in itertools.pairwise(names):
        if int(name) == int(following):
            raise UserError(f"{folder / following}: same number as {name}; remove one")
    return names


def load_test_videos(args) -> list[Video]:
    """The test videos in the order of their numbers, each with its true frames if there are any."""
    images, labels = args.DR / "test" / "test_img", args.DR / "test" / "test_label"
    names = _test_numbers(labels)
    if unpaired := [name for name in _test_numbers(images) if name not in names]:
        raise UserError(f"{images / unpaired[0]}: no poses; {labels / unpaired[0]} is missing")
    if not names:
        raise UserError(f"{labels}: no test sequences (expected folders 0, 1, ..)")
    videos, size, fps = [], (args.frame_H, args.frame_W), frames_per_second(args.DR)
    for name in names:
        if not (images / name).is_dir():
            raise UserError(f"{labels / name}: no first frame; {images / name} is missing")
        first_number, first = next(iter(numbered_images(images / name).items()))
        (first_frame,) = load_images(args.DR, f"test-img-{name}", [first], size, args.num_workers)
        entries = numbered_images(labels / name)
        length = _video_length(f"{labels / name}", len(entries), args.val_vi_len)
        poses = load_images(args.DR, f"test-label-{name}", list(entries.values()), size, args.num_workers)
        numbers = list(entries)[:length]
        if first_number != numbers[0]:
            log(f"{first.path}: paired with the first pose image, number {numbers[0]}")
        _log_gaps(labels / name, numbers)
        truth, source = true_frames(args, name, numbers, min(first_number, numbers[0]), usual_step(numbers))
        inputs = np.array(poses[:length]), np.array(first_frame)
        videos.append(Video(int(name), *inputs, truth, source, fps=fps))
    return videos
