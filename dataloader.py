"""The lab's folders -> training clips and whole videos."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from engine.console import UserError
from frame_cache import load_pictures, numbered_frames, read_picture, visible


def _paired_frames(image_folder: Path, label_folder: Path) -> tuple[dict, dict]:
    images, labels = numbered_frames(image_folder), numbered_frames(label_folder)
    for number, entry in images.items():
        if number not in labels:
            raise UserError(f"{entry.path}: has no label in {label_folder}")
    for number, entry in labels.items():
        if number not in images:
            raise UserError(f"{entry.path}: has no image in {image_folder}")
    return images, labels


def as_float(pictures: Tensor) -> Tensor:
    """uint8 `(.., H, W, 3)` -> float `(.., 3, H, W)` in [0, 1]."""
    return pictures.movedim(-1, -3).float().div(255)


def to_float(pictures: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 `(.., H, W, 3)` -> float `(.., 3, H, W)` in [0, 1] on `device`."""
    # A copy, because a memory-mapped array is read-only, which torch's tensors cannot be.
    return as_float(torch.from_numpy(np.array(pictures)).to(device))


def shots(numbers: list[int]) -> list[np.ndarray]:
    """The unbroken runs of frames, as indices into `numbers`.

    They end where the numbers jump: at a step other than the usual one, which is the most frequent.
    """
    steps = np.diff(numbers)
    values, counts = np.unique(steps, return_counts=True)
    usual = values[counts.argmax()] if len(steps) else 1
    return np.split(np.arange(len(numbers)), np.flatnonzero(steps != usual) + 1)


def clip_starts(numbers: list[int], length: int, rng: np.random.Generator | None) -> np.ndarray:
    """Where clips of `length` frames begin, cut end to end, none beyond its shot.

    With `rng`, each shot is cut from a random offset, else from its first frame.

    Returns:
        Indices into `numbers`, ascending.
    """
    starts = []
    for shot in shots(numbers):
        spare = len(shot) - length
        if spare < 0:
            continue
        offset = int(rng.integers(min(length - 1, spare) + 1)) if rng is not None else 0
        starts.extend(range(shot[0] + offset, shot[-1] - length + 2, length))
    return np.array(starts, dtype=np.int64)


class TrainingClips:
    """The clips of the training split, in an order that depends on the seed and the epoch alone.

    Args:
        args: `DR, num_workers, frame_H, frame_W, partial, train_vi_len, batch_size, clips, first_frame,
            seed` and, for the first epochs, `fast_train, fast_partial, fast_train_epoch`.

    Raises:
        UserError: files are missing or broken, or there are fewer frames than a clip has.
    """

    def __init__(self, args):
        self.args = args
        images, labels = _paired_frames(args.DR / "train" / "train_img", args.DR / "train" / "train_label")
        kept = max(1, int(len(images) * args.partial))
        self.numbers = list(images)[:kept]
        self.shot_of = [shot for shot in shots(self.numbers) for _ in shot]
        size = (args.frame_H, args.frame_W)
        self.frames, self.poses = (
            load_pictures(args.DR, f"train-{kind}", list(files.values()), size, args.num_workers)
            for kind, files in (("img", images), ("label", labels))
        )
        if not len(clip_starts(self.numbers, args.train_vi_len, None)):
            raise UserError(
                f"{args.DR / 'train'}: no {args.train_vi_len} frames in a row among its {kept} "
                "(lower --train_vi_len, or raise --partial)"
            )

    def order(self, epoch: int) -> np.ndarray:
        """First frames of the epoch's clips, in the order in which they are read."""
        args = self.args
        rng = np.random.default_rng([args.seed, epoch]) if args.clips == "shuffled" else None
        starts = clip_starts(self.numbers, args.train_vi_len, rng)
        if args.fast_train and epoch < args.fast_train_epoch:
            starts = starts[: max(1, int(len(starts) * args.fast_partial))]
        return starts if rng is None else rng.permutation(starts)

    def rows(self, epoch: int, rank: int = 0, ranks: int = 1) -> list[np.ndarray]:
        """Which frames each step of an epoch takes: `(B, T)` indices into `frames` and `poses`.

        Batches are whole, as in the lab, but there is at least one. With `first_frame` "any", frame 0 of
        each clip is drawn from its whole shot: in a long rollout the given frame lies far back, and so
        it must in training.

        Args:
            rank, ranks: of the processes that share each step of `ranks * B` clips, B clips each.
        """
        order, size = self.order(epoch), self.args.batch_size * ranks
        rows = order[:, None] + np.arange(self.args.train_vi_len)
        if self.args.first_frame == "any":
            rng = np.random.default_rng([self.args.seed, epoch, 1])
            rows[:, 0] = [rng.choice(self.shot_of[start]) for start in order]
        if len(rows) < size and ranks > 1:  # every rank has clips, even if some are seen twice
            rows = np.resize(rows, (size, rows.shape[1]))
        batches = [rows[i : i + size] for i in range(0, max(1, len(rows) - size + 1), size)]
        return [batch[rank * len(batch) // ranks : (rank + 1) * len(batch) // ranks] for batch in batches]


class DeviceClips:
    """Clips as floats on a device. A GPU holds all pictures as uint8, where they fit; else a batch is sent.

    Args:
        clips: where the pictures are.
        device: where they are wanted.
    """

    # The rest of a GPU's free memory is for what training computes.
    SHARE_OF_FREE_MEMORY = 0.25

    def __init__(self, clips: TrainingClips, device: torch.device | str):
        self.clips, self.device = clips, torch.device(device)
        self.resident: list[Tensor] | None = None
        if self.device.type == "cuda" and self._fits():
            self.keep_here()

    def keep_here(self) -> None:
        """Put all pictures on the device, so that nothing but numbers is sent for a step."""
        both = self.clips.frames, self.clips.poses
        self.resident = [torch.from_numpy(np.array(pictures)).to(self.device) for pictures in both]

    def _fits(self) -> bool:
        free, _ = torch.cuda.mem_get_info(self.device)
        return self.clips.frames.nbytes + self.clips.poses.nbytes < self.SHARE_OF_FREE_MEMORY * free

    def send(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        """What `decode` needs of the clips with the indices `rows` `(B, T)`, on the device."""
        if self.resident:
            return (self._sent(rows),)
        return self._sent(self.clips.frames[rows]), self._sent(self.clips.poses[rows])

    def _sent(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(values)
        if self.device.type != "cuda":
            return tensor
        # From pinned memory the copy does not wait for what the device computes.
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def decode(self, *sent: Tensor) -> tuple[Tensor, Tensor]:
        """Frames and poses, float `(B, T, 3, H, W)` in [0, 1], of what was sent; on the device alone."""
        if self.resident:
            (rows,) = sent
            sent = [pictures[rows] for pictures in self.resident]
        return tuple(as_float(pictures) for pictures in sent)


@dataclass
class Video:
    """One sequence: `poses` `(T, H, W, 3)` uint8, `frames` alike (all, or the first alone)."""

    name: str
    frames: np.ndarray
    poses: np.ndarray


def _shorten(name: str, length: int, limit: int) -> int:
    if length < 2:
        raise UserError(f"{name}: {length} frame, at least 2 are needed")
    if length != limit:
        taken = f"using the first {limit}" if length > limit else "using all of them"
        tqdm.write(f"{name}: {length} frames where --val_vi_len is {limit}; {taken}")
    return min(length, limit)


def validation_video(args) -> Video:
    """The validation video: its first `val_vi_len` frames, or as many as there are."""
    folder = args.DR / "val"
    images, labels = _paired_frames(folder / "val_img", folder / "val_label")
    length = _shorten(str(folder), len(images), args.val_vi_len)
    size = (args.frame_H, args.frame_W)
    frames, poses = (
        load_pictures(args.DR, f"val-{kind}", list(files.values()), size, args.num_workers)
        for kind, files in (("img", images), ("label", labels))
    )
    return Video("val", frames[:length], poses[:length])


def _sequence_names(folder: Path) -> list[str]:
    names = [entry.name for entry in visible(folder) if entry.is_dir()]
    if odd := [name for name in names if not name.isdecimal()]:
        raise UserError(f"{folder / odd[0]}: test sequences are folders named 0, 1, 2, ..")
    return sorted(names, key=int)


def test_videos(args) -> list[Video]:
    """The test sequences in the order of their numbers; `frames` is the first frame alone."""
    images, labels = args.DR / "test" / "test_img", args.DR / "test" / "test_label"
    names = _sequence_names(labels)
    if lone := [name for name in _sequence_names(images) if name not in names]:
        raise UserError(f"{images / lone[0]}: has no poses, {labels / lone[0]} is missing")
    if not names:
        raise UserError(f"{labels}: no test sequences in it (folders 0, 1, ..)")
    videos, size = [], (args.frame_H, args.frame_W)
    for name in names:
        if not (images / name).is_dir():
            raise UserError(f"{labels / name}: has no first frame, {images / name} is missing")
        first = next(iter(numbered_frames(images / name).values()))
        poses = list(numbered_frames(labels / name).values())
        length = _shorten(f"{labels / name}", len(poses), args.val_vi_len)
        pictures = load_pictures(args.DR, f"test-label-{name}", poses, size, args.num_workers)
        videos.append(Video(name, read_picture(first.path, size)[None], pictures[:length]))
    return videos


def true_frames(args, video: Video) -> tuple[np.ndarray, str] | None:
    """True frames of a test sequence, float `(T, H, W, 3)` in [0, 1], and where they come from.

    Pictures in `DR/test/test_gt/{i}` come first, then `GT{i}.csv` in `DR/Demo_Test` or `./Demo_Test`
    (one row a frame, channel first). None where there are none.

    Raises:
        UserError: the truth is there, but of another shape or not of numbers in [0, 1].
    """
    length, size = len(video.poses), (args.frame_H, args.frame_W)
    folder = args.DR / "test" / "test_gt" / video.name
    if folder.is_dir():
        files = list(numbered_frames(folder).values())
        if len(files) < length:
            raise UserError(f"{folder}: {len(files)} true frames for {length} poses")
        pictures = load_pictures(args.DR, f"test-gt-{video.name}", files, size, args.num_workers)[:length]
        return pictures.astype(np.float32) / 255, str(folder)
    for folder in (args.DR / "Demo_Test", Path("Demo_Test")):
        path = folder / f"GT{video.name}.csv"
        if path.is_file():
            return _read_truth(path, length, size), str(path)
    return None


def _read_truth(path: Path, length: int, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    with path.open() as file:
        comma = "," in file.readline()
    try:
        rows = np.loadtxt(path, np.float32, delimiter="," if comma else None, ndmin=2)
    except ValueError as error:
        raise UserError(f"{path}: is not a table of numbers ({error})") from None
    if len(rows) < length or rows.shape[1] != 3 * height * width:
        raise UserError(
            f"{path}: {rows.shape[0]} rows of {rows.shape[1]} numbers; expected {length} rows "
            f"of {3 * height * width} (3 x {height} x {width})"
        )
    if not ((rows >= 0) & (rows <= 1)).all():
        raise UserError(f"{path}: holds values that are not numbers in [0, 1] (NaN, or 0..255?)")
    return rows[:length].reshape(length, 3, height, width).transpose(0, 2, 3, 1)
