import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import image_cache
from image_cache import load_images
from images import numbered_images, read_image
from runtime import run_dir
from tests.helpers import FORKS, start, wait, write_pictures


def load(root, size=(8, 16)):
    return load_images(root, "train-img", list(numbered_images(root / "img").values()), size, workers=2)


def cache_files(root):
    return sorted(path for path in (root / ".frame_cache").iterdir() if path.name != run_dir.LOCK)


@pytest.fixture
def root(tmp_path):
    write_pictures(tmp_path / "img", 5)
    return tmp_path


def test_cache_holds_the_images_and_is_used_again(root, monkeypatch):
    first = load(root)
    expected = [read_image(entry.path, (8, 16)) for entry in numbered_images(root / "img").values()]
    assert np.array_equal(first, expected)
    monkeypatch.setattr(image_cache, "read_image", None)  # a second decoding would fail
    again = load(root)
    assert np.array_equal(again, expected) and isinstance(again, np.memmap)


def test_another_size_has_another_cache(root):
    assert [load(root, size).shape[1:3] for size in ((8, 16), (4, 4))] == [(8, 16), (4, 4)]
    assert len(cache_files(root)) == 2


@pytest.mark.parametrize("change", ["content", "added", "removed", "renamed"])
def test_cache_follows_the_files(root, change):
    old = np.array(load(root))
    path = root / "img" / "frame000003.png"
    if change == "content":
        Image.new("RGB", (32, 16), "red").save(path)
    elif change == "added":
        Image.new("RGB", (32, 16), "red").save(root / "img" / "frame000009.png")
    elif change == "removed":
        path.unlink()
    else:
        path.rename(root / "img" / "frame000099.png")
    assert not np.array_equal(load(root), old)
    assert len(cache_files(root)) == 1


def test_other_image_of_the_same_size_and_time_is_noticed(root):
    path = root / "img" / "frame000003.png"
    Image.new("RGB", (32, 16), (200, 0, 0)).save(path, compress_level=0)
    old, before = np.array(load(root)), path.stat()
    Image.new("RGB", (32, 16), (0, 200, 0)).save(path, compress_level=0)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert not np.array_equal(load(root), old)


def test_damaged_cache_is_not_used(root):
    expected = np.array(load(root))
    (path,) = cache_files(root)
    for damage in (b"", path.read_bytes()[:-200], b"junk" * 50):
        path.unlink()  # it is mapped
        path.write_bytes(damage)
        assert np.array_equal(load(root), expected)


def test_interrupted_decoding_leaves_no_cache(root, monkeypatch):
    def interrupted(path, size):
        if path.endswith("3.png"):
            raise KeyboardInterrupt
        return read_image(path, size)

    monkeypatch.setattr(image_cache, "read_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(root)
    assert cache_files(root) == []


@pytest.mark.skipif(not FORKS, reason="kills copies of this process")
def test_file_of_killed_decoding_is_removed_but_not_that_of_a_living_process(root, monkeypatch):
    def decode_forever():
        monkeypatch.setattr(image_cache, "read_image", lambda *_: time.sleep(100))
        load(root)

    first, second = start(decode_forever), start(decode_forever)
    while len(cache_files(root)) < 2:
        time.sleep(0.01)
    os.kill(first, signal.SIGKILL)
    wait(first)
    load(root, (4, 4))
    assert len(cache_files(root)) == 3, "the second still writes"
    os.kill(second, signal.SIGKILL)
    wait(second)
    load(root, (4, 8))
    assert len(cache_files(root)) == 2


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux for the mapped files")
def test_cache_is_not_mapped_when_it_is_renamed(root, monkeypatch):
    """Windows renames no mapped file, and removes none that another process reads."""
    replace, unlink, mapped = Path.replace, Path.unlink, []

    def renamed(path, target):
        mapped.append(str(path) in Path("/proc/self/maps").read_text())
        return replace(path, target)

    def removed(path, missing_ok=False):
        if path.suffix == ".npy" and "tmp" not in path.name:
            raise PermissionError("used by another process")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "replace", renamed)
    monkeypatch.setattr(Path, "unlink", removed)
    for number in (7, 8):
        write_pictures(root / "img", 1, seed=number, numbers=[number])
        load(root)
    assert mapped == [False, False]


def test_cache_lies_in_the_user_s_folder_where_the_data_cannot_be_written(
    root, tmp_path_factory, monkeypatch
):
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    (root / ".frame_cache").write_text("a file where the folder would be")
    expected = np.array(load(root))
    assert len(expected) == 5 and len(list(home.rglob("*.npy"))) == 1
    with monkeypatch.context() as patch:
        patch.setattr(image_cache, "read_image", None)
        assert np.array_equal(load(root), expected)
    monkeypatch.setenv("XDG_CACHE_HOME", str(root / ".frame_cache"))
    assert np.array_equal(load(root), expected), "decoded to memory"
