"""One HTML file with the scripts, the networks, the runtime and the motions."""

import base64
import gzip
import html
import json
import re
from pathlib import Path
from urllib.parse import quote

from .motions import Motions

FOLDER = Path(__file__).resolve().parent
SCRIPTS = ("generation", "kinematics", "main", "motions", "network", "recorder", "renderer", "stage")
CAMERA_SCRIPTS = ("blazepose", "camera", "live_pose", "retarget", "webcam")
LICENCES, CAMERA_LICENCES = ("onnxruntime-web", "gifenc"), ("blazepose",)
# The browser refuses every request to a server.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'wasm-unsafe-eval' data: blob:; worker-src blob:; "
    "connect-src data: blob:; style-src 'unsafe-inline'; img-src data: blob:; media-src data: blob:"
)


def build_page(facts: dict, motions: Motions, networks: dict[str, bytes], libraries: dict[str, bytes]) -> str:
    """The HTML file.

    Args:
        facts: JSON-serializable values that the scripts read. `title` is also the page title; `camera` is
            None for a page without a camera.
        networks: ONNX files by the name of their part; `pose-detector` and `pose-landmarks` for a camera.
        libraries: `runtime` and `runtime-wasm` of onnxruntime-web, and `gifenc`.
    """
    has_camera = facts["camera"] is not None
    facts = facts | {
        "motions": motions.labels,
        "unit": motions.unit,
        "maxDistance": motions.max_distance,
    }
    data = {
        "references": motions.references.tobytes(),
        "training-poses": motions.training_poses.tobytes(),
        **{f"motion-{index}": motion.tobytes() for index, motion in enumerate(motions.motions)},
    }
    parts = [_part("facts", "application/json", json.dumps(facts).replace("<", "\\u003c"))]
    parts += [_binary(name, libraries[name]) for name in ("runtime", "runtime-wasm")]
    parts.append(_binary("worker", _read("worker.js").encode()))
    parts += [_network(name, content) for name, content in networks.items()]
    parts += [_binary(name, content) for name, content in data.items()]
    scripts = {name: _read(f"{name}.js") for name in SCRIPTS + CAMERA_SCRIPTS * has_camera}
    scripts["gifenc"] = libraries["gifenc"].decode()
    addresses = {name: "data:text/javascript," + quote(script) for name, script in scripts.items()}
    licences = [_read(f"licences/{name}.txt") for name in LICENCES + CAMERA_LICENCES * has_camera]
    return _fill(
        _read("page.html"),
        policy=POLICY,
        title=html.escape(facts["title"]),
        style=_read("page.css"),
        parts="\n".join(parts),
        imports=json.dumps({"imports": addresses}),
        licences="".join(f"<pre>{html.escape(licence)}</pre>" for licence in licences),
    )


def _read(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def _network(name: str, content: bytes) -> str:
    """A network; its 16-bit weights compress better with all low bytes before all high bytes."""
    # The detector's weights are sparse: runs of zeros compress better.
    if name == "pose-detector":
        return _binary(name, content)
    return _binary(name, content[::2] + content[1::2], " data-interleave")


def _binary(name: str, content: bytes, attributes: str = "") -> str:
    # No timestamp, to make the page reproducible.
    return _part(name, "text/plain", base64.b64encode(gzip.compress(content, mtime=0)).decode(), attributes)


def _part(name: str, kind: str, text: str, attributes: str = "") -> str:
    return f'<script type="{kind}" id="{name}"{attributes}>{text}</script>'


def _fill(text: str, **values: str) -> str:
    """Replace names in braces by values."""
    return re.sub(r"\{(" + "|".join(values) + r")\}", lambda match: values[match[1]], text)
