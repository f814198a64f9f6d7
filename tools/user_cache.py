"""Files of other projects, downloaded once to the user's cache and checked each time."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from image_cache import USER_CACHE
from runtime.cli import UserError


def checked_folder(
    given: Path | None, name: str, digests: dict[str, str], package: str, download: Callable[[Path], None]
) -> Path:
    """The folder with the files of a package, which are downloaded if the user's cache lacks them.

    Args:
        given: by the user, instead of the cache.
        name: of the folder in the cache.
        digests: SHA-256 by file name.
        package: the files' origin, for messages.
        download: writes the files to a folder.

    Raises:
        UserError: a file is missing or differs, or cannot be downloaded.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = given or home / USER_CACHE / name
    if given is None and not all((folder / file).is_file() for file in digests):
        download(folder)
    for file, digest in digests.items():
        path = folder / file
        if not path.is_file():
            raise UserError(f"{path}: no such file; the folder needs {' and '.join(digests)} from {package}")
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise UserError(f"{path}: damaged, or not the file of {package}; delete it")
    return folder
