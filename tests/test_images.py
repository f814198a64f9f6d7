import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from images import SUFFIXES, numbered_images, read_image, read_rgb
from runtime.cli import UserError


def test_images_are_sorted_by_number_not_by_name(tmp_path):
    for name in ("10.png", "9.png", "take2_frame000100.PNG", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"")
    assert list(numbered_images(tmp_path)) == [9, 10, 100]


@pytest.mark.parametrize(
    ("names", "words"),
    [(["a.png"], "no frame number"), (["1.png", "x01.png"], "same number"), ([], "no images")],
)
def test_names_that_leave_the_order_open_are_refused(tmp_path, names, words):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=words):
        numbered_images(tmp_path)


def test_names_that_are_times_in_seconds_are_refused_but_not_numbers_after_a_dot(tmp_path):
    for name in ("0.00.png", "0.15.png", "1.05.png"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match="decimal frame numbers"):
        numbered_images(tmp_path)
    (tmp_path / "1.05.png").rename(tmp_path / "1.30.png")  # shot and frame
    assert list(numbered_images(tmp_path)) == [0, 15, 30]


@settings(max_examples=15, deadline=None)
@given(width=st.integers(1, 90), height=st.integers(1, 90), seed=st.integers(0, 99))
def test_resizing_is_torchvision_s(tmp_path_factory, width, height, seed):
    from torchvision.transforms import Resize

    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("image") / "1.png"
    Image.fromarray(pixels).save(path)
    expected = np.asarray(Resize((8, 16))(Image.open(path)))
    assert np.array_equal(read_image(path, (8, 16)), expected)


def test_grey_sixteen_bit_palette_and_transparent_images_are_converted(tmp_path):
    grey = np.full((4, 4), 130, np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) << 8).save(tmp_path / "deep.png")
    Image.fromarray(grey).convert("RGB").quantize().save(tmp_path / "palette.png")
    for name in ("grey", "deep", "palette"):
        assert np.abs(read_image(tmp_path / f"{name}.png", (4, 4)).astype(int) - 130).max() <= 1
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[:2] = (200, 10, 10, 255)
    Image.fromarray(clear).save(tmp_path / "alpha.png")
    read = read_image(tmp_path / "alpha.png", (4, 4))
    assert (read[:2] == (200, 10, 10)).all() and (read[2:] == 255).all()


@pytest.mark.parametrize(
    ("colour_type", "bit_depth", "shown", "clear"),
    [
        (0, 1, 1, 0),
        (0, 2, 1, 2),
        (0, 4, 5, 9),
        (0, 8, 85, 153),
        (0, 16, 0x5500, 0x9912),
        (2, 16, 0x5500, 0x9912),
    ],
)
def test_transparent_colour_of_a_png_of_any_depth_is_white(tmp_path, colour_type, bit_depth, shown, clear):
    """Two rows of 8 pixels: one colour, and the transparent one."""
    channels = 3 if colour_type == 2 else 1

    def row(value):
        bits = f"{value:0{bit_depth}b}" * 8 * channels
        return b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")

    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 8, 2, bit_depth, colour_type, 0, 0, 0)),
        (b"tRNS", struct.pack(">H", clear) * channels),
        (b"IDAT", zlib.compress(row(shown) + row(clear))),
        (b"IEND", b""),
    ]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    (tmp_path / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    pixels = np.asarray(read_rgb(tmp_path / "1.png"))
    assert (pixels[1] == 255).all()
    assert np.unique(pixels[0]).tolist() == [255 if bit_depth == 1 else 85]


TWO_COLOURS = np.repeat(np.array([[[220, 30, 30]], [[30, 30, 220]]], np.uint8), 8, axis=0).repeat(24, axis=1)


def mean_difference(path, expected=TWO_COLOURS):
    return np.abs(np.asarray(read_rgb(path), float) - expected).mean()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_common_format_is_read(tmp_path, suffix):
    path = tmp_path / f"frame1{suffix.upper()}"
    Image.fromarray(TWO_COLOURS).save(path, **({} if suffix == ".bmp" else {"quality": 95}))
    assert list(numbered_images(tmp_path)) == [1] and mean_difference(path) < 12
    path.rename(tmp_path / "1.png")  # the content counts
    assert mean_difference(tmp_path / "1.png") < 12


def test_pixels_of_unknown_range_are_refused(tmp_path):
    for dtype in (np.float32, np.int32):
        Image.fromarray(np.full((8, 16), 1, dtype)).save(tmp_path / "1.tif")
        with pytest.raises(UserError, match="unknown range"):
            read_rgb(tmp_path / "1.tif")


def with_chunk(png, name, data, checksum_error=0):
    checksum = (zlib.crc32(name + data) + checksum_error) % 2**32
    return png[:33] + struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum) + png[33:]


@pytest.mark.parametrize(
    ("name", "data", "checksum_error"),
    [
        (b"iCCP", b"icc\0\0" + zlib.compress(bytes(3 << 20)), 0),
        (b"zTXt", b"note\0\0" + zlib.compress(b"a" * (3 << 20)), 0),
        (b"iTXt", b"note\0\1\0\0\0" + zlib.compress(b"a" * (3 << 20)), 0),
        (b"tEXt", b"a\0b", 1),
        (b"tIME", b"\0\0", 7),
        (b"gAMA", b"", 0),
    ],
)
def test_metadata_does_not_keep_a_png_from_being_read(tmp_path, name, data, checksum_error):
    buffer = io.BytesIO()
    Image.fromarray(TWO_COLOURS).save(buffer, "PNG")
    path = tmp_path / "1.png"
    path.write_bytes(with_chunk(buffer.getvalue(), name, data, checksum_error))
    assert mean_difference(path) == 0
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"cannot decode"):
        read_rgb(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_orientation_is_applied(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees to the right
    path = tmp_path / f"1{suffix}"
    Image.fromarray(np.rot90(TWO_COLOURS)).save(path, exif=exif)
    assert mean_difference(path) < 12
    if suffix == ".jpg":  # damaged EXIF data is passed over
        data = path.read_bytes()
        path.write_bytes(data.replace(b"MM\0*", b"MM\xff*").replace(b"II*\0", b"II\xff\0"))
        assert read_rgb(path).size[0] > 0


def test_entries_of_other_systems_are_passed_over_and_others_counted_once(tmp_path, capsys):
    for name in ("1.png", "2.jpg", "notes.txt", "desktop.ini", ".hidden"):
        (tmp_path / name).touch()
    for name in ("@eaDir", "__MACOSX", "more"):
        (tmp_path / name).mkdir()
    for _ in range(2):
        assert list(numbered_images(tmp_path)) == [1, 2]
    assert capsys.readouterr().out == f"{tmp_path}: ignoring 2 entries that are not images\n"


@pytest.mark.parametrize("damage", ["text", "empty", "truncated", "garbled"])
def test_damaged_image_is_named(tmp_path, damage):
    path = tmp_path / "7.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    garbled = whole[:60] + bytes(len(whole) - 120) + whole[-60:]
    content = {"text": b"hello", "empty": b"", "truncated": whole[: len(whole) // 2], "garbled": garbled}
    path.write_bytes(content[damage])
    with pytest.raises(UserError, match=r"7\.png"):
        read_image(path, (8, 16))
