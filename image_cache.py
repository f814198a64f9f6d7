"""Numbered PNG files -> one file of pictures, decoded and resized once.

The pictures of a folder are uint8 `(N, H, W, 3)` in a file of their own, so that a later run starts at once
and a split may be larger than memory. Pictures are resized by torchvision, bilinear and antialiased, as
the course lab does.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from runtime import files
from runtime.cli import UserError
from runtime.progress import Progress
from training import memory

CACHE_FOLDER = ".frame_cache"
USER_CACHE = "pose-video-cvae"


class Pictures:
    """Pictures in a cache file, of which only those that are asked for are read.

    A memory-mapped array would do the same, but the process ends at once if its file is cut short.

    Args:
        path: of an .npy file.

    Attributes:
        shape: `(N, H, W, 3)`.

    Raises:
        OSError, ValueError: no such file, or not one of pictures.
    """

    def __init__(self, path: Path):
        if not path.is_file():  # opening a pipe would wait for ever
            raise FileNotFoundError(path)
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if mapped.dtype != np.uint8 or mapped.ndim != 4 or not mapped.flags.c_contiguous:
            raise ValueError(f"{path}: not a file of pictures")
        self.path, self.shape, self._offset = path, mapped.shape, mapped.offset
        self.file = path.open("rb", buffering=0)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Of all pictures."""
        return int(np.prod(self.shape))

    def __getitem__(self, index) -> np.ndarray:
        """The pictures with an index as of NumPy along the first axis; uint8 `(.., H, W, 3)`.

        Raises:
            UserError: the file was cut short.
        """
        numbers = np.arange(len(self))[index]
        pictures = np.empty((*numbers.shape, *self.shape[1:]), np.uint8)
        size = self.nbytes // len(self)
        for number, picture in zip(numbers.ravel(), pictures.reshape(-1, size), strict=True):
            self.file.seek(self._offset + int(number) * size)
            if self.file.readinto(picture) != size:
                raise UserError(
                    f"{self.path}: was cut short while it was in use; start again, and it is built anew"
                )
        return pictures


def _folder(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path}: no such folder (a dataset has train/, val/ and test/; see README)")
    if not path.is_dir():
        raise UserError(f"{path}: is a file, a folder was expected")
    return path


def visible(folder: Path) -> list[os.DirEntry]:
    with os.scandir(_folder(folder)) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def numbered_frames(folder: Path) -> dict[int, os.DirEntry]:
    """The PNGs of a folder by the last number in their names, in the order of the numbers."""
    frames: dict[int, os.DirEntry] = {}
    for entry in visible(folder):
        if not entry.name.lower().endswith(".png"):
            continue
        digits = re.findall(r"\d+", entry.name[:-4])
        if not digits:
            raise UserError(f"{entry.path}: no number in the name, so its place in the video is unknown")
        number = int(digits[-1])
        if number in frames:
            raise UserError(f"{entry.path}: same number as {frames[number].name}; remove one")
        frames[number] = entry
    if not frames:
        raise UserError(f"{folder}: no PNG pictures in it")
    return dict(sorted(frames.items()))


def resized(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """A picture in another size, `size = (H, W)`: uint8 `(H, W, 3)`."""
    # Imported here: it takes as long to load as torch, and a run from a warm cache needs none of it.
    from torchvision.transforms.v2.functional import resize

    return np.asarray(resize(image, list(size)))


def read_picture(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """Decode a picture of any size and kind to RGB, uint8 `(H, W, 3)`, `size = (H, W)`.

    Transparent parts become white, the background of pose pictures; 16-bit grey keeps its upper 8 bits.

    Raises:
        UserError: not a picture, or truncated.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith("I"):
                image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
            if image.has_transparency_data:
                background = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(background, image.convert("RGBA"))
            return resized(image.convert("RGB"), size)
    except UnidentifiedImageError:
        raise UserError(f"{path}: is not a picture") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be decoded ({error}); copy or draw it again") from None


def _fingerprint(entries: list[os.DirEntry]) -> str:
    """A digest of the names, sizes and times of the files: another value means other pictures.

    The time of the last change of a file's entry is among them, because it cannot be set back.
    """
    digest = hashlib.sha256()
    for entry in entries:
        status = entry.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise UserError(f"{entry.path}: is not a file")
        times = f"{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n"
        digest.update(os.fsencode(entry.name) + b"\0" + times.encode())
    return digest.hexdigest()[:20]


def _cache_folders(root: Path) -> Iterator[Path]:
    """The folders for a cache, in order of preference: beside the data, then the user's cache folder."""
    yield root / CACHE_FOLDER
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    yield home / USER_CACHE / hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]


def _decode_into(array: np.ndarray, entries: list[os.DirEntry], workers: int, what: str) -> None:
    def decode(index: int) -> None:
        array[index] = read_picture(entries[index].path, array.shape[1:3])

    pool = ThreadPoolExecutor(max(1, workers))
    try:
        jobs = pool.map(decode, range(len(entries)))
        for _ in Progress(jobs, (f"decode {what}",), total=len(entries), leave=False):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _build_cache(path: Path, shape: tuple, entries: list, workers: int, what: str) -> None:
    """Decode into a file that takes the name `path` when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        array = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        with temporary.open("r+b") as file:
            # A write to a mapped file on a full disk kills the process; a refused reservation is an error.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
        _decode_into(array, entries, workers, what)
        array.flush()


def _open_cache(path: Path, shape: tuple) -> Pictures | None:
    try:
        pictures = Pictures(path)
    except (OSError, ValueError, EOFError):
        return None
    return pictures if pictures.shape == shape else None


def load_pictures(
    root: Path, what: str, entries: list[os.DirEntry], size: tuple[int, int], workers: int
) -> Pictures | np.ndarray:
    """The pictures, uint8 `(N, H, W, 3)`, decoded unless a current cache file exists.

    The name of a cache file holds the digest of the files that it was made from, so a cache file that
    exists is complete and current; those of former states of the same folder are removed.

    Args:
        root: the dataset's folder.
        what: a name for the folder that the pictures come from, such as "train-img".
        size: (H, W).
        workers: number of decoding threads.
    """
    height, width = size
    shape = (len(entries), height, width, 3)
    prefix = f"{what}-{width}x{height}-"
    name = f"{prefix}{_fingerprint(entries)}.npy"
    for folder in _cache_folders(root):
        if (pictures := _open_cache(folder / name, shape)) is not None:
            return pictures
    for folder in _cache_folders(root):
        try:
            _build_cache(folder / name, shape, entries, workers, what)
        except (OSError, files.WriteError):
            continue
        for old in folder.glob(f"{prefix}*.npy"):
            if old.name != name:
                old.unlink(missing_ok=True)
        return Pictures(folder / name)
    tqdm.write(f"{what}: no folder for a frame cache can be written, so the pictures are decoded in each run")
    memory.require(np.prod(shape, dtype=float), f"{len(entries)} pictures of {width}x{height}")
    array = np.empty(shape, np.uint8)
    _decode_into(array, entries, workers, what)
    return array
