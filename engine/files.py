"""How a file is written: whole or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which replaces `path` when the block ends well, and is removed otherwise.

    The temporary file lies in the same folder, ends in the same suffix, and is flushed to disk before it is
    renamed, so that `path` holds at any time what it held before, or all of what is new. Its permissions are
    those of any new file of the user.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write(path: Path, data: bytes | str) -> None:
    """Write a whole file; text is UTF-8. Raises as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def copy(source: Path, target: Path) -> None:
    """Give `target` what `source` holds: as a hard link where the file system has them, else as a copy."""
    with replacing(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
