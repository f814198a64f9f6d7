"""The two networks of BlazePose, downloaded once to the user's cache and checked."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from runtime import files
from runtime.cli import UserError, log
from tools import user_cache

PACKAGE = "mediapipe==0.10.21"  # its wheel holds the networks; it is not installed
# The wheels of all systems hold the same files.
SYSTEM = ("--python-version", "3.12", "--platform", "manylinux_2_28_x86_64")
DOWNLOAD = ("pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *SYSTEM, "--dest")
DETECTOR, LANDMARKS = "pose_detection.tflite", "pose_landmark_full.tflite"
MODELS = {  # path in the wheel, and SHA-256
    DETECTOR: (
        "mediapipe/modules/pose_detection/pose_detection.tflite",
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
    ),
    LANDMARKS: (
        "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    ),
}


def model_folder(given: Path | None) -> Path:
    """The folder with the networks, which are downloaded if there is none.

    Args:
        given: by the user, instead of the cache.

    Raises:
        UserError: a network is missing or damaged, or cannot be downloaded.
    """
    digests = {name: digest for name, (_, digest) in MODELS.items()}
    return user_cache.checked_folder(given, "blazepose", digests, PACKAGE, _download)


def _download(folder: Path) -> None:
    log(f"downloading the pose networks of {PACKAGE} (35 MB, once) to {folder}")
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", *DOWNLOAD, temporary, PACKAGE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode or not wheels:
            remedy = f"without internet, pass --pose_models FOLDER with {' and '.join(MODELS)} from its wheel"
            raise UserError(f"{PACKAGE} cannot be downloaded; {remedy}")
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheels[0]) as wheel:
            for name, (path, _) in MODELS.items():
                files.write(folder / name, wheel.read(path))
