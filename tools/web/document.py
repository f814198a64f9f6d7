"""One HTML file with the scripts, the networks, the runtime and the motions."""

import base64
import gzip
import json
import re
from pathlib import Path
from urllib.parse import quote

from . import runtime
from .motions import Motions

FOLDER = Path(__file__).resolve().parent
SCRIPTS = ("kinematics", "main", "motions", "network", "recorder", "renderer", "stage")


def build_page(facts: dict, motions: Motions, graphs: dict[str, bytes], runtime_folder: Path) -> str:
    """The HTML file.

    Args:
        facts: about the model, for the scripts; plain values.
        graphs: the networks `reference` and `step` as ONNX files.
        runtime_folder: with the files of onnxruntime-web.
    """
    facts = facts | {
        "motions": motions.labels,
        "unit": motions.unit,
        "maxDistance": motions.max_distance,
    }
    binary = {
        "runtime": (runtime_folder / runtime.SCRIPT).read_bytes(),
        "runtime-wasm": (runtime_folder / runtime.CODE).read_bytes(),
        **{f"network-{name}": graph for name, graph in graphs.items()},
        "references": motions.references.tobytes(),
        "training-poses": motions.training_poses.tobytes(),
        **{f"motion-{index}": motion.tobytes() for index, motion in enumerate(motions.motions)},
    }
    parts = [_part("facts", "application/json", json.dumps(facts).replace("<", "\\u003c"))]
    parts += [_part(name, "text/plain", _compress(content)) for name, content in binary.items()]
    addresses = {name: "data:text/javascript," + quote(_read(f"{name}.js")) for name in SCRIPTS}
    return _fill(
        _read("page.html"),
        style=_read("page.css"),
        parts="\n".join(parts),
        imports=json.dumps({"imports": addresses}),
        licence=_read("onnxruntime-licence.txt"),
    )


def _read(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def _compress(content: bytes) -> str:
    # Without a time, so that the same input gives the same page.
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _part(name: str, kind: str, text: str) -> str:
    return f'<script type="{kind}" id="{name}">{text}</script>'


def _fill(text: str, **values: str) -> str:
    """Replace names in braces by values."""
    return re.sub(r"\{(" + "|".join(values) + r")\}", lambda match: values[match[1]], text)
