import errno
import os

import pytest

from runtime import files


def test_file_is_replaced_only_when_it_was_written_completely(tmp_path):
    path = tmp_path / "a.txt"
    files.write(path, "old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as temporary:
        temporary.write_text("new, but not")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    files.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_are_those_of_any_new_file(tmp_path, umask):
    before = os.umask(umask)
    try:
        files.write(tmp_path / "a.txt", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("links", [True, False])
def test_copy_keeps_its_data_when_the_source_is_replaced(tmp_path, monkeypatch, links):
    if not links:

        def refuse(*_):
            raise OSError("no hard links here")

        monkeypatch.setattr(os, "link", refuse)
    files.write(tmp_path / "last", "first")
    files.copy(tmp_path / "last", tmp_path / "best")
    files.write(tmp_path / "last", "second")
    assert (tmp_path / "best").read_text() == "first"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["best", "last"]


def test_file_is_flushed_by_a_handle_that_may_write(tmp_path, monkeypatch):
    """As Windows demands, which otherwise refuses with EBADF."""
    fcntl = pytest.importorskip("fcntl")

    def fsync(descriptor):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(os, "fsync", fsync)
    files.write(tmp_path / "a.txt", "text")
    files.copy(tmp_path / "a.txt", tmp_path / "b.txt")
    assert (tmp_path / "b.txt").read_text() == "text"
