"""How a file is written: whole or not at all, and in one line with its path where that is refused."""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from runtime.cli import UserError

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.tmp(\..+)?")


class WriteError(UserError):
    """A file that the system refuses to write, such as on a full disk."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write into a line with the path.

    Raises:
        WriteError: the disk is full, or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        kept = ""
        with contextlib.suppress(OSError):  # the name may be too long to ask
            kept = f"; {path.name} is what it was before" if path.exists() else ""
        raise WriteError(f"cannot save {path}: {error.strerror or error}{kept}") from None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which replaces `path` when the block ends well, and is removed otherwise.

    The temporary file lies in the same folder, ends in the same suffix, and is flushed to disk before it is
    renamed, so that `path` holds at any time what it held before, or all of what is new. Its permissions are
    those of any new file of the user.

    Raises:
        WriteError: see `writing`.
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.tmp{path.suffix}")
    with writing(path):
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
        # A path in a text may have bytes that are no UTF-8; they stay what they are.
        temporary.write_bytes(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)


def copy(source: Path, target: Path) -> None:
    """Give `target` what `source` holds: as a hard link where the file system has them, else as a copy."""
    with replacing(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files of writers that were killed; nobody may be writing to the folder."""
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)
