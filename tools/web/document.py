"""One HTML file from the page's scripts, the networks, the runtime and the motions."""

import base64
import gzip
import json
import re
from pathlib import Path
from urllib.parse import quote

from . import runtime
from .motions import Recorded

FOLDER = Path(__file__).resolve().parent
SCRIPTS = ("kinematics", "main", "motions", "network", "painter", "recorder", "stage")


def page(facts: dict, recorded: Recorded, graphs: dict[str, bytes], runtime_folder: Path) -> str:
    """The page.

    Args:
        facts: what the scripts know of the model, plain values.
        recorded: motions and start frames.
        graphs: the networks `first` and `step` as ONNX files.
        runtime_folder: with the files of onnxruntime-web.
    """
    facts = facts | {
        "motions": [
            {"name": name, "kind": kind} for name, kind in zip(recorded.names, recorded.kinds, strict=True)
        ],
        "starts": recorded.names,
        "unit": recorded.unit,
        "familiarDistance": recorded.familiar_distance,
    }
    binary = {
        "runtime": (runtime_folder / runtime.SCRIPT).read_bytes(),
        "runtime-wasm": (runtime_folder / runtime.CODE).read_bytes(),
        **{f"network-{name}": graph for name, graph in graphs.items()},
        "starts": recorded.starts.tobytes(),
        "familiar": recorded.familiar.tobytes(),
        **{f"motion-{index}": motion.tobytes() for index, motion in enumerate(recorded.motions)},
    }
    parts = [_part("facts", "application/json", json.dumps(facts).replace("<", "\\u003c"))]
    parts += [_part(name, "text/plain", _packed(content)) for name, content in binary.items()]
    addresses = {name: "data:text/javascript," + quote(_read(f"{name}.js")) for name in SCRIPTS}
    return _filled(
        _read("page.html"),
        style=_read("page.css"),
        parts="\n".join(parts),
        imports=json.dumps({"imports": addresses}),
        licence=_read("onnxruntime-licence.txt"),
    )


def _read(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def _packed(content: bytes) -> str:
    # Without a time, so that the same input gives the same page.
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _part(name: str, kind: str, text: str) -> str:
    return f'<script type="{kind}" id="{name}">{text}</script>'


def _filled(text: str, **values: str) -> str:
    """A text with values in place of names in braces."""
    return re.sub(r"\{(" + "|".join(values) + r")\}", lambda match: values[match[1]], text)
