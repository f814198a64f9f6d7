"""The pose networks of the page, as ONNX."""

from pathlib import Path

from . import packages
from .tflite_to_onnx import convert


def load(size: str, folder: Path | None) -> dict[str, bytes]:
    """`pose-detector` and `pose-landmarks` of BlazePose.

    Args:
        size: of the landmark network, "lite" or "full".
        folder: see `packages.package_folder`.
    """
    folder = packages.package_folder(packages.POSE, folder)
    detector = (folder / packages.DETECTOR).read_bytes()
    landmarks = (folder / packages.LANDMARKS[size]).read_bytes()
    return {
        "pose-detector": convert(detector, {"Identity": "boxes", "Identity_1": "scores"}),
        "pose-landmarks": convert(landmarks, {"Identity": "landmarks", "Identity_1": "score"}),
    }
