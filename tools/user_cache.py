"""Files of other projects that are fetched once into the user's cache, and checked each time."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from image_cache import USER_CACHE
from runtime.cli import UserError


def folder(name: str) -> Path:
    """The folder in the user's cache for the files of one package; it may not exist yet."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / USER_CACHE / name


def checked_folder(
    given: Path | None, name: str, digests: dict[str, str], package: str, fetch: Callable[[Path], None]
) -> Path:
    """The folder with the files of a package, which are fetched if the user's cache lacks them.

    Args:
        given: by the user, instead of the cache.
        name: of the folder in the cache.
        digests, package: as of `check`.
        fetch: writes the files to a folder.

    Raises:
        UserError: a file is missing in the given folder or is another; or they cannot be fetched.
    """
    where = given or folder(name)
    if given is None and not all((where / file).is_file() for file in digests):
        fetch(where)
    check(where, digests, package)
    return where


def check(where: Path, digests: dict[str, str], package: str) -> None:
    """Compare files with their SHA-256 digests.

    Args:
        where: the folder.
        digests: by the files' names.
        package: which the files are from, for the message.

    Raises:
        UserError: a file is missing, or is another.
    """
    for name, digest in digests.items():
        path = where / name
        if not path.is_file():
            raise UserError(f"{path}: no such file; the folder needs {' and '.join(digests)} of {package}")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise UserError(f"{path}: is damaged, or another file than that of {package}; delete it")
