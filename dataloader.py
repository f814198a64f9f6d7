"""Dataset folders (docs/contract.md, "Data") -> training clips and whole sequences."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from image_cache import load_pictures, numbered_frames, visible
from runtime.cli import UserError
from training import memory
from training.augment import OVER_BACKGROUND
from training.background import backgrounds
from training.evaluate import Sequence
from training.schedules import fast_training
from utils import to_float


def _paired_frames(image_folder: Path, label_folder: Path) -> tuple[dict, dict]:
    images, labels = numbered_frames(image_folder), numbered_frames(label_folder)
    for number, entry in images.items():
        if number not in labels:
            raise UserError(f"{entry.path}: has no label in {label_folder}")
    for number, entry in labels.items():
        if number not in images:
            raise UserError(f"{entry.path}: has no image in {image_folder}")
    return images, labels


def shots(numbers: list[int]) -> list[np.ndarray]:
    """The shots: runs of frames whose numbers do not jump, as indices into `numbers`.

    A jump is a step that differs from the most frequent one.
    """
    steps = np.diff(numbers)
    values, counts = np.unique(steps, return_counts=True)
    usual = values[counts.argmax()] if len(steps) else 1
    return np.split(np.arange(len(numbers)), np.flatnonzero(steps != usual) + 1)


def clip_starts(numbers: list[int], length: int, rng: np.random.Generator | None) -> np.ndarray:
    """The first frames of clips of `length` frames, which are cut end to end within each shot.

    With `rng`, each shot is cut from a random offset, otherwise from its first frame.

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
        UserError: files are missing or damaged, or there are fewer frames than a clip has.
    """

    def __init__(self, args):
        self.args = args
        images, labels = _paired_frames(args.DR / "train" / "train_img", args.DR / "train" / "train_label")
        kept = max(1, int(len(images) * args.partial))
        self.numbers = list(images)[:kept]
        self.shots = shots(self.numbers)
        self.shot_of = np.repeat(np.arange(len(self.shots)), [len(shot) for shot in self.shots])
        size = (args.frame_H, args.frame_W)
        self.frames, self.poses = (
            load_pictures(args.DR, f"train-{kind}", list(files.values()), size, args.num_workers)
            for kind, files in (("img", images), ("label", labels))
        )
        # uint8 (shots, H, W, 4), see training.background
        needed = OVER_BACKGROUND & set(args.augment.split(","))
        self.backgrounds = backgrounds(self.frames, self.poses, self.shots) if needed else None
        if not len(clip_starts(self.numbers, args.train_vi_len, None)):
            raise UserError(
                f"{args.DR / 'train'}: no {args.train_vi_len} frames in a row among its {kept} "
                "(lower --train_vi_len, or raise --partial)"
            )

    def order(self, epoch: int, length: int | None = None) -> np.ndarray:
        """The first frames of the epoch's clips, in the order of training."""
        args = self.args
        rng = np.random.default_rng([args.seed, epoch]) if args.clips == "shuffled" else None
        starts = clip_starts(self.numbers, length or args.train_vi_len, rng)
        if fast_training(args, epoch):
            starts = starts[: max(1, int(len(starts) * args.fast_partial))]
        return starts if rng is None else rng.permutation(starts)

    def batches(
        self, epoch: int, rank: int = 0, ranks: int = 1, length: int | None = None, clips: int | None = None
    ) -> list[np.ndarray]:
        """The frames of each step of an epoch: `(B, T)` indices into `frames` and `poses`.

        An incomplete last batch is left out, as in the course lab, unless it is the only one. With
        `first_frame` "any", frame 0 of each clip is drawn from its whole shot: in a long rollout the given
        frame is long ago, and training has to show that.

        Args:
            rank, ranks: of the processes that share each step of `ranks * B` clips, B clips each.
            length: T, `train_vi_len` if not given.
            clips: B, `batch_size` if not given.
        """
        length, size = length or self.args.train_vi_len, (clips or self.args.batch_size) * ranks
        order = self.order(epoch, length)
        indices = order[:, None] + np.arange(length)
        if self.args.first_frame == "any":
            rng = np.random.default_rng([self.args.seed, epoch, 1])
            indices[:, 0] = [rng.choice(self.shots[self.shot_of[start]]) for start in order]
        if len(indices) < size and ranks > 1:  # every rank has clips, even if some are used twice
            indices = np.resize(indices, (size, length))
        steps = [indices[i : i + size] for i in range(0, max(1, len(indices) - size + 1), size)]
        return [step[rank * len(step) // ranks : (rank + 1) * len(step) // ranks] for step in steps]


class DeviceClips:
    """Training clips on a device. A GPU holds all pictures if they fit; otherwise each batch is copied.

    Args:
        clips: the pictures.
        device: where the clips are wanted.
    """

    # The rest of a GPU's free memory is for the computation of the training steps.
    SHARE_OF_FREE_MEMORY = 0.25

    def __init__(self, clips: TrainingClips, device: torch.device | str):
        self.clips, self.device = clips, torch.device(device)
        self.resident: list[Tensor] | None = None
        if self.device.type == "cuda" and self._fits():
            self.make_resident()

    def make_resident(self) -> None:
        """Copy all pictures to the device, so that a step only sends indices."""
        pictures = self.clips.frames, self.clips.poses
        self.resident = [torch.from_numpy(np.array(array)).to(self.device) for array in pictures]

    def _fits(self) -> bool:
        free, _ = torch.cuda.mem_get_info(self.device)
        return self.clips.frames.nbytes + self.clips.poses.nbytes < self.SHARE_OF_FREE_MEMORY * free

    def load(self, indices: np.ndarray) -> tuple[Tensor, ...]:
        """Frames and poses of the clips with the indices `(B, T)`: uint8 `(B, T, H, W, 3)` on the device.

        If the clips have backgrounds, these, too: uint8 `(B, H, W, 4)`.
        """
        if self.resident:
            on_device = self._copy(indices)
            clips = tuple(pictures[on_device] for pictures in self.resident)
        else:
            clips = self._copy(self.clips.frames[indices]), self._copy(self.clips.poses[indices])
        if self.clips.backgrounds is None:
            return clips
        return *clips, self._copy(self.clips.backgrounds[self.clips.shot_of[indices[:, -1]]])

    def _copy(self, values: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(values)
        if self.device.type != "cuda":
            return tensor
        # From pinned memory the copy does not wait for the work on the device.
        return tensor.pin_memory().to(self.device, non_blocking=True)


def _sequence_length(name: str, length: int, limit: int | None) -> int:
    if length < 2:
        raise UserError(f"{name}: {length} frame, at least 2 are needed")
    if limit is None:
        return length
    if length != limit:
        used = f"using the first {limit}" if length > limit else "using all of them"
        tqdm.write(f"{name}: {length} frames where --val_vi_len is {limit}; {used}")
    return min(length, limit)


def _require_memory(length: int, size: tuple[int, int]) -> None:
    height, width = size
    floats = 3 * 4 * length * height * width
    memory.require(2 * floats, f"videos of {length} frames of {width}x{height}, predicted and true,")


def validation_sequence(args) -> Sequence:
    """The validation video: its first `val_vi_len` frames, or all if there are fewer."""
    folder = args.DR / "val"
    images, labels = _paired_frames(folder / "val_img", folder / "val_label")
    length = _sequence_length(str(folder), len(images), args.val_vi_len)
    size = (args.frame_H, args.frame_W)
    _require_memory(length, size)
    frames, poses = (
        load_pictures(args.DR, f"val-{kind}", list(files.values()), size, args.num_workers)[:length]
        for kind, files in (("img", images), ("label", labels))
    )
    truth = to_float(frames)
    return Sequence("val", poses, frames[0], truth, str(folder / "val_img"), fill_poses=args.fill_poses)


def _sequence_names(folder: Path) -> list[str]:
    names = [entry.name for entry in visible(folder) if entry.is_dir()]
    if wrong := [name for name in names if not name.isdecimal()]:
        raise UserError(f"{folder / wrong[0]}: test sequences are folders named 0, 1, 2, ..")
    return sorted(names, key=int)


def load_test_sequences(args) -> list[Sequence]:
    """The test sequences in the order of their numbers, each with its truth where there is one."""
    images, labels = args.DR / "test" / "test_img", args.DR / "test" / "test_label"
    names = _sequence_names(labels)
    if alone := [name for name in _sequence_names(images) if name not in names]:
        raise UserError(f"{images / alone[0]}: has no poses, {labels / alone[0]} is missing")
    if not names:
        raise UserError(f"{labels}: no test sequences in it (folders 0, 1, ..)")
    sequences, size = [], (args.frame_H, args.frame_W)
    for name in names:
        if not (images / name).is_dir():
            raise UserError(f"{labels / name}: has no first frame, {images / name} is missing")
        first = list(numbered_frames(images / name).values())[:1]
        (first_frame,) = load_pictures(args.DR, f"test-img-{name}", first, size, args.num_workers)
        poses = list(numbered_frames(labels / name).values())
        length = _sequence_length(f"{labels / name}", len(poses), args.val_vi_len)
        _require_memory(length, size)
        pictures = load_pictures(args.DR, f"test-label-{name}", poses, size, args.num_workers)
        truth, source = _true_frames(args, name, length)
        sequence = Sequence(name, pictures[:length], first_frame, truth, source, fill_poses=args.fill_poses)
        sequences.append(sequence)
    return sequences


def _true_frames(args, name: str, length: int) -> tuple[Tensor | None, str | None]:
    """True frames of a test sequence, `(T, 3, H, W)` in [0, 1], and their source; None where there are none.

    Pictures in `DR/test/test_gt/{i}` come first, then `GT{i}.csv` in `DR/Demo_Test` or `./Demo_Test`
    (one line for each frame, channel first).

    Raises:
        UserError: the truth has another shape, or does not consist of numbers in [0, 1].
    """
    size = (args.frame_H, args.frame_W)
    folder = args.DR / "test" / "test_gt" / name
    if folder.is_dir():
        files = list(numbered_frames(folder).values())
        if len(files) < length:
            raise UserError(f"{folder}: {len(files)} true frames for {length} poses")
        pictures = load_pictures(args.DR, f"test-gt-{name}", files, size, args.num_workers)
        return to_float(pictures[:length]), str(folder)
    for folder in (args.DR / "Demo_Test", Path("Demo_Test")):
        path = folder / f"GT{name}.csv"
        if path.is_file():
            return _read_truth(path, length, size), str(path)
    return None, None


def _read_truth(path: Path, length: int, size: tuple[int, int]) -> Tensor:
    height, width = size
    try:
        with path.open() as file:
            comma = "," in file.readline()
        table = np.loadtxt(path, np.float32, delimiter="," if comma else None, ndmin=2)
    except ValueError as error:
        raise UserError(f"{path}: is not a table of numbers ({error})") from None
    if len(table) < length or table.shape[1] != 3 * height * width:
        raise UserError(
            f"{path}: {table.shape[0]} rows of {table.shape[1]} numbers; expected {length} rows "
            f"of {3 * height * width} (3 x {height} x {width})"
        )
    if not ((table >= 0) & (table <= 1)).all():
        raise UserError(f"{path}: holds values that are not numbers in [0, 1] (NaN, or 0..255?)")
    return torch.from_numpy(table[:length].reshape(length, 3, height, width))
