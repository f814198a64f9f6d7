"""Numbered image files -> one array on disk, decoded and resized once.

The images of a folder are one uint8 array `(N, H, W, 3)`, so a later run starts at once and a split may be
larger than memory. Images are resized by torchvision, bilinear and antialiased, as in the course.
"""

import contextlib
import functools
import hashlib
import io
import os
import re
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from runtime import files, run_dir
from runtime.cli import UserError, log
from runtime.progress import Progress

CACHE_FOLDER = ".frame_cache"
USER_CACHE = "pose-video-cvae"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FOREIGN = {"@eaDir", "__MACOSX", "Thumbs.db", "desktop.ini"}  # of file servers and other systems
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # of Pillow
DECODER_VERSION = b"2"  # of what a cache holds for the same files
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _folder(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path}: no such folder (a dataset has train/, val/ and test/; see README)")
    if not path.is_dir():
        raise UserError(f"{path}: is a file, a folder was expected")
    return path


def visible(folder: Path) -> list[os.DirEntry]:
    """The entries of a folder, without hidden ones and those that other systems leave behind."""
    with os.scandir(_folder(folder)) as entries:
        return [entry for entry in entries if not entry.name.startswith(".") and entry.name not in FOREIGN]


def numbered_images(folder: Path) -> dict[int, os.DirEntry]:
    """The images of a folder by the last number in their names, in that order; other files are counted."""
    images: dict[int, os.DirEntry] = {}
    num_others, decimals = 0, {}
    for entry in visible(folder):
        if not entry.name.lower().endswith(SUFFIXES):
            num_others += 1
            continue
        stem = entry.name.rpartition(".")[0]
        digits = re.findall(r"\d+", stem)
        if not digits:
            raise UserError(f"{entry.path}: no number in the name, so its place in the video is unknown")
        number = int(digits[-1])
        if decimal := re.search(r"(\d+)[.,](\d+)$", stem):
            decimals[number] = float(f"{decimal[1]}.{decimal[2]}")
        if number in images:
            hint = "remove one, or rename so that the last number in a name is the frame's"
            raise UserError(f"{entry.path}: same number as {images[number].name}; {hint}")
        images[number] = entry
    if sorted(decimals) != sorted(decimals, key=decimals.get):
        raise UserError(f"{folder}: decimal numbers in the names ({images[number].name}); use whole ones")
    if not images:
        raise UserError(f"{folder}: no images in it ({', '.join(SUFFIXES)})")
    if num_others:
        _log_once(f"{folder}: {num_others} entries are not used, because they are no images")
    return dict(sorted(images.items()))


_log_once = functools.cache(log)


def resized(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """An image in another size, `size = (H, W)`: uint8 `(H, W, 3)`."""
    # Imported here: it loads for seconds, and a run from a warm cache does not need it.
    from torchvision.transforms.v2.functional import resize

    return np.asarray(resize(image, list(size)))


def read_image(path: str | Path, size: tuple[int, int]) -> np.ndarray:
    """Decode an image, see `read_rgb`, and resize it: uint8 `(H, W, 3)`, `size = (H, W)`."""
    return resized(read_rgb(path), size)


def read_rgb(path: str | Path) -> Image.Image:
    """Decode an image of any size, format and mode to RGB, upright by its EXIF orientation.

    Transparent parts become white; 16-bit grey keeps its upper 8 bits.

    Raises:
        UserError: not an image, or damaged.
    """
    try:
        image = _decoded(path)
        is_png = image.format == "PNG"
        with contextlib.suppress(Exception):  # damaged EXIF data raises errors of any kind
            image = ImageOps.exif_transpose(image)
        if image.mode == "F" or (image.mode == "I" and not is_png):
            raise ValueError("pixels are 32-bit numbers of unknown range")
        if image.mode.startswith("I"):
            info = image.info
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
            image.info = info
        if image.has_transparency_data:
            background = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(background, image.convert("RGBA"))
        return image.convert("RGB")
    except UnidentifiedImageError:
        raise UserError(f"{path}: is not an image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be decoded ({error}); copy or draw it again") from None


def _decoded(path: str | Path) -> Image.Image:
    data = Path(path).read_bytes()
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        image.load()
    except (OSError, SyntaxError, ValueError):
        if not data.startswith(PNG_SIGNATURE):
            raise
        # Pillow refuses large or damaged metadata, which viewers pass over.
        image = Image.open(io.BytesIO(_without_metadata(data)), formats=FORMATS)
        image.load()
    if image.format == "PNG":
        _scale_transparency(image, bit_depth=data[24])
    return image


def _scale_transparency(image: Image.Image, bit_depth: int) -> None:
    """Scale the transparent colour of a PNG to 8 bits, as Pillow does with the pixels."""
    colour = image.info.get("transparency")
    if colour is None or image.mode == "P" or bit_depth not in (2, 4, 16):
        return
    scaled = [
        value >> 8 if bit_depth == 16 else value * 255 // (2**bit_depth - 1) for value in np.ravel(colour)
    ]
    image.info["transparency"] = tuple(map(int, scaled)) if isinstance(colour, tuple) else int(scaled[0])


def _without_metadata(png: bytes) -> bytes:
    """The chunks of a PNG that its pixels need (their names begin with a capital), transparency and EXIF."""
    kept, start = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while start < len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4], "big")
        name = png[start + 4 : start + 8]
        if name[:1].isupper() or name in (b"tRNS", b"eXIf"):
            kept.append(png[start:end])
        start = end
    return b"".join(kept)


def _fingerprint(entries: list[os.DirEntry]) -> str:
    """A digest of the names, sizes and times of the files; ctime cannot be set back."""
    digest = hashlib.sha256(DECODER_VERSION)
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
    except (OSError, ValueError, EOFError):  # damaged: it is built anew
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def load_images(
    root: Path, name: str, entries: list[os.DirEntry], size: tuple[int, int], workers: int
) -> np.ndarray:
    """The images, uint8 `(N, H, W, 3)`, memory-mapped; decoded unless there is a current cache file.

    The name of a cache file holds a digest of the files that it was made from, so an existing one is
    complete and current. Those of former states of the same folder are removed.

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
    log(f"{name}: no cache folder can be written, so images are decoded in each run")
    array = np.empty(shape, np.uint8)
    _decode_into(array, entries, workers, name)
    return array
