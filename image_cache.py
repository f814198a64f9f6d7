"""Numbered image files -> one array on disk, decoded and resized once.

The images of a folder are one uint8 array `(N, H, W, 3)`, so later runs start immediately and a split may be
larger than memory.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from images import DECODER_VERSION, read_image
from runtime import files, run_dir
from runtime.cli import UserError, log
from runtime.progress import Progress

CACHE_FOLDER = ".frame_cache"
USER_CACHE = "pose-video-cvae"


def _fingerprint(entries: list[os.DirEntry]) -> str:
    """A digest of the names, sizes and times of the files; ctime cannot be set back."""
    digest = hashlib.sha256(str(DECODER_VERSION).encode())
    for entry in entries:
        status = entry.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would block
            raise UserError(f"{entry.path}: is not a file")
        times = f"{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n"
        digest.update(os.fsencode(entry.name) + b"\0" + times.encode())
    return digest.hexdigest()[:20]


def _cache_folders(root: Path) -> Iterator[Path]:
    """Where a cache may be: beside the data, else in the user's cache folder."""
    yield root / CACHE_FOLDER
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    yield home / USER_CACHE / hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]


def _decode_into(array: np.ndarray, entries: list[os.DirEntry], workers: int, name: str) -> None:
    def decode(index: int) -> None:
        array[index] = read_image(entries[index].path, array.shape[1:3])

    pool = ThreadPoolExecutor(max(1, workers))
    try:
        jobs = pool.map(decode, range(len(entries)))
        for _ in Progress(jobs, (f"decode {name}",), total=len(entries), leave=False):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _build_cache(path: Path, shape: tuple, entries: list, workers: int, name: str) -> None:
    """Decode into a file that is renamed to `path` when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with run_dir.shared(path.parent), files.replacing(path) as temporary:
        array = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        with temporary.open("r+b") as file:
            # A write to a mapped file on a full disk kills the process; a refused reservation is an error.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
        _decode_into(array, entries, workers, name)
        array.flush()
        del array  # Windows renames no file that is mapped


def _open_cache(path: Path, shape: tuple) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):  # damaged: rebuild it
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def load_images(
    root: Path, name: str, entries: list[os.DirEntry], size: tuple[int, int], workers: int
) -> np.ndarray:
    """The images, uint8 `(N, H, W, 3)`, memory-mapped; decoded unless there is a current cache file.

    A cache file's name contains a hash of its source files, so an existing file is complete and up to
    date. Outdated cache files of the same folder are removed.

    Args:
        root: the dataset's folder.
        name: for the folder of the images, such as "train-img".
        size: (H, W).
        workers: number of decoding threads.
    """
    height, width = size
    shape = (len(entries), height, width, 3)
    prefix = f"{name}-{width}x{height}-"
    file_name = f"{prefix}{_fingerprint(entries)}.npy"
    for folder in _cache_folders(root):
        if (images := _open_cache(folder / file_name, shape)) is not None:
            return images
    for folder in _cache_folders(root):
        try:
            _build_cache(folder / file_name, shape, entries, workers, name)
        except (OSError, files.WriteError):
            continue
        for old in folder.glob(f"{prefix}*.npy"):
            if old.name != file_name:
                with contextlib.suppress(PermissionError):  # on Windows, while another process reads it
                    old.unlink(missing_ok=True)
        return _open_cache(folder / file_name, shape)
    log(f"{name}: no writable cache folder; images will be decoded on every run")
    array = np.empty(shape, np.uint8)
    _decode_into(array, entries, workers, name)
    return array
