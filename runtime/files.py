"""Atomic file writes; failures become one-line errors with the path."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from .cli import UserError

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.tmp(\..+)?")


class WriteError(UserError):
    """The system refuses to write a file, such as on a full disk."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder, which replaces `path` when the block succeeds.

    It is flushed to disk before it is renamed, so `path` always holds its old content or all of the new.
    Raises a `WriteError` if the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        try:
            temporary.touch(exist_ok=False)
            yield temporary
            with temporary.open("r+b") as file:  # Windows flushes no file that is open for reading only
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(f"cannot save {path}: {error.strerror or error}") from None


def save(path: Path, writer: Callable, *content) -> None:
    """Call `writer(temporary, *content)`, such as `utils.save_gif`, and move the result to `path`."""
    with replacing(path) as temporary:
        writer(temporary, *content)


def write(path: Path, data: bytes | str) -> None:
    """Write a whole file; text is UTF-8."""
    # A path in the text may have bytes that are no UTF-8; they stay what they are.
    encoded = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    save(path, Path.write_bytes, encoded)


def copy(source: Path, target: Path) -> None:
    """Copy a file, as a hard link where the file system has them."""
    with replacing(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files of killed writers; no process may be writing to the folder."""
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)
