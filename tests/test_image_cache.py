import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import image_cache
from image_cache import load_pictures, numbered_frames, read_picture
from runtime.cli import UserError
from tests.helpers import write_pictures


def load(root, size=(8, 16), workers=2):
    return load_pictures(root, "train-img", list(numbered_frames(root / "img").values()), size, workers)


def cache_files(root):
    return sorted((root / ".frame_cache").iterdir())


@pytest.fixture
def root(tmp_path):
    write_pictures(tmp_path / "img", 5)
    return tmp_path


def test_pictures_are_sorted_by_number_not_by_name(tmp_path):
    for name in ("10.png", "9.png", "take2_frame000100.PNG", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"")
    assert list(numbered_frames(tmp_path)) == [9, 10, 100]


@pytest.mark.parametrize(
    ("names", "word"), [(["a.png"], "no number"), (["1.png", "x01.png"], "same number"), ([], "no PNG")]
)
def test_names_that_leave_the_order_open_are_refused(tmp_path, names, word):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=word):
        numbered_frames(tmp_path)


@settings(max_examples=15, deadline=None)
@given(width=st.integers(1, 90), height=st.integers(1, 90), seed=st.integers(0, 99))
def test_resizing_is_torchvision_s(tmp_path_factory, width, height, seed):
    from torchvision.transforms import Resize

    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("picture") / "1.png"
    Image.fromarray(pixels).save(path)
    expected = np.asarray(Resize((8, 16))(Image.open(path)))
    assert np.array_equal(read_picture(path, (8, 16)), expected)


def test_grey_sixteen_bit_palette_and_transparent_pictures_are_converted(tmp_path):
    grey = np.full((4, 4), 130, np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey.astype(np.uint16) << 8).save(tmp_path / "deep.png")
    Image.fromarray(grey).convert("RGB").quantize().save(tmp_path / "palette.png")
    for name in ("grey", "deep", "palette"):
        assert np.abs(read_picture(tmp_path / f"{name}.png", (4, 4)).astype(int) - 130).max() <= 1
    clear = np.zeros((4, 4, 4), np.uint8)
    clear[:2] = (200, 10, 10, 255)
    Image.fromarray(clear).save(tmp_path / "alpha.png")
    read = read_picture(tmp_path / "alpha.png", (4, 4))
    assert (read[:2] == (200, 10, 10)).all() and (read[2:] == 255).all()


@pytest.mark.parametrize("damage", ["text", "empty", "truncated", "garbled"])
def test_broken_picture_is_named(tmp_path, damage):
    path = tmp_path / "7.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    garbled = whole[:60] + bytes(len(whole) - 120) + whole[-60:]
    content = {"text": b"hello", "empty": b"", "truncated": whole[: len(whole) // 2], "garbled": garbled}
    path.write_bytes(content[damage])
    with pytest.raises(UserError, match=r"7\.png"):
        read_picture(path, (8, 16))


def test_cache_holds_the_pictures_and_is_used_again(root, monkeypatch):
    first = load(root)
    expected = [read_picture(e.path, (8, 16)) for e in numbered_frames(root / "img").values()]
    assert np.array_equal(first, expected)
    monkeypatch.setattr(image_cache, "read_picture", None)  # a second decoding would fail
    again = load(root)
    assert np.array_equal(again, expected)
    assert isinstance(again, image_cache.Pictures)


@pytest.mark.parametrize("change", ["content", "time", "added", "removed", "renamed"])
def test_cache_follows_the_files(root, change):
    old = np.array(load(root))
    picture = root / "img" / "frame000003.png"
    if change == "content":
        Image.new("RGB", (32, 16), "red").save(picture)
    elif change == "time":
        Image.new("RGB", (32, 16), "red").save(picture)
        os.utime(picture, (1, 1))
    elif change == "added":
        Image.new("RGB", (32, 16), "red").save(root / "img" / "frame000009.png")
    elif change == "removed":
        picture.unlink()
    else:
        picture.rename(root / "img" / "frame000099.png")
    new = load(root)
    assert not np.array_equal(new, old)
    assert len(cache_files(root)) == 1


def test_sizes_have_caches_of_their_own(root):
    assert load(root).shape == (5, 8, 16, 3)
    assert load(root, (4, 4)).shape == (5, 4, 4, 3)
    assert len(cache_files(root)) == 2


def test_half_written_or_damaged_cache_is_not_used(root, monkeypatch):
    expected = np.array(load(root))
    (path,) = cache_files(root)
    for damage in (b"", path.read_bytes()[:-200], b"junk" * 50):
        path.write_bytes(damage)
        assert np.array_equal(load(root), expected)


def test_interrupted_decoding_leaves_no_cache(root, monkeypatch):
    def interrupted(path, size):
        if path.endswith("3.png"):
            raise KeyboardInterrupt
        return read_picture(path, size)

    monkeypatch.setattr(image_cache, "read_picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(root)
    assert cache_files(root) == []


def test_cache_lies_elsewhere_where_the_data_cannot_be_written(root, tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    (root / ".frame_cache").write_text("a file where the folder would be")
    assert len(load(root)) == 5
    assert len(list(home.rglob("*.npy"))) == 1
    monkeypatch.setattr(image_cache, "read_picture", None)
    assert len(load(root)) == 5


def test_without_any_place_for_a_cache_pictures_are_decoded_to_memory(root, monkeypatch):
    (root / ".frame_cache").write_text("")
    (root / "home").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / "home"))
    assert load(root).shape == (5, 8, 16, 3)


def test_other_pictures_of_the_same_size_and_time_are_noticed(root):
    old = np.array(load(root))
    picture = root / "img" / "frame000003.png"
    before = picture.stat()
    data = bytearray(picture.read_bytes())
    image = np.asarray(Image.open(picture)).copy()
    image[:] = 255 - image
    Image.fromarray(image).save(picture)
    picture.write_bytes(picture.read_bytes()[: len(data)].ljust(len(data), b"\0"))
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (picture.stat().st_size, picture.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    try:
        assert not np.array_equal(load(root), old)
    except UserError as refusal:  # the picture was cut, and that is noticed, too
        assert "frame000003.png" in str(refusal)


def test_cache_that_is_cut_short_while_it_is_used_ends_in_one_line(root):
    pictures = load(root)
    whole = np.array(pictures)
    (path,) = cache_files(root)
    os.truncate(path, path.stat().st_size - 200)
    assert np.array_equal(pictures[:2], whole[:2])
    with pytest.raises(UserError, match="cut short"):
        pictures[[1, 4]]
    assert np.array_equal(load(root), whole)


def test_pictures_are_indexed_as_an_array_is(root):
    pictures = load(root)
    whole = np.array([pictures[i] for i in range(len(pictures))])
    for index in (0, -1, slice(1, 4), slice(None), [3, 3, 0], np.array([[0, 1], [4, 2]]), np.arange(5) > 2):
        assert np.array_equal(pictures[index], whole[index])
    assert pictures.nbytes == whole.nbytes and pictures.shape == whole.shape
    with pytest.raises(IndexError):
        pictures[5]
