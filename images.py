"""Find numbered image files, decode them to RGB, and resize them.

They are resized by torchvision, bilinear and antialiased, as in the course.
"""

import contextlib
import functools
import io
import os
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from runtime.cli import UserError, log

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FOREIGN = {"@eaDir", "__MACOSX", "Thumbs.db", "desktop.ini"}  # of file servers and other systems
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # of Pillow
DECODER_VERSION = 3  # to be raised when the same file is decoded to other pixels
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _folder(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path}: no such folder (a dataset has train/, val/ and test/; see README)")
    if not path.is_dir():
        raise UserError(f"{path}: expected a folder, not a file")
    return path


def visible(folder: Path) -> list[os.DirEntry]:
    """The entries of a folder, without hidden ones and those that other systems leave behind."""
    with os.scandir(_folder(folder)) as entries:
        return [entry for entry in entries if not entry.name.startswith(".") and entry.name not in FOREIGN]


def numbered_images(folder: Path) -> dict[int, os.DirEntry]:
    """The images of a folder, keyed and sorted by the last number in their names; other files are counted."""
    images: dict[int, os.DirEntry] = {}
    num_others, decimals = 0, {}
    for entry in visible(folder):
        if not entry.name.lower().endswith(SUFFIXES):
            num_others += 1
            continue
        stem = entry.name.rpartition(".")[0]
        digits = re.findall(r"\d+", stem)
        if not digits:
            raise UserError(f"{entry.path}: no frame number in the file name")
        number = int(digits[-1])
        if decimal := re.search(r"(\d+)[.,](\d+)$", stem):
            decimals[number] = float(f"{decimal[1]}.{decimal[2]}")
        if number in images:
            hint = "remove one, or rename so that the last number in a name is the frame's"
            raise UserError(f"{entry.path}: same number as {images[number].name}; {hint}")
        images[number] = entry
    if sorted(decimals) != sorted(decimals, key=decimals.get):
        raise UserError(f"{folder}: decimal frame numbers ({images[number].name}); use integers")
    if not images:
        raise UserError(f"{folder}: no images ({', '.join(SUFFIXES)})")
    if num_others:
        _log_once(f"{folder}: ignoring {num_others} entries that are not images")
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
        raise UserError(f"{path}: cannot decode the image ({error}); replace the file") from None


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
