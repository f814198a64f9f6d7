"""Checkpoints of the course, as its students save them, converted to what this project reads.

Their weights may stand under any entry, in any precision, and with the prefixes of wrappers; other entries
hold flags, losses, or other networks.
"""

import argparse
import math
import pathlib
import types
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from runtime.cli import UserError

KEYS = ("state_dict", "optimizer", "lr", "tfr", "last_epoch", "args")
NETWORKS = (
    "frame_transformation", "label_transformation", "Gaussian_Predictor", "Decoder_Fusion", "Generator",
)  # fmt: skip
WRAPPERS = {"module", "_orig_mod"}  # of DataParallel and torch.compile
# The layer that has a size as its output channels, the channels per unit of it, and its minimum.
SIZE_LAYERS = {
    "F_dim": ("frame_transformation.6.weight", 1, 8), "L_dim": ("label_transformation.4.conv2.weight", 1, 2),
    "N_dim": ("Gaussian_Predictor.6.weight", 2, 4), "D_out_dim": ("Decoder_Fusion.5.weight", 1, 8),
}  # fmt: skip
FLAGS = {"recipe": "lab", "arch": "lab", "z": "mean"}  # z = 0 scores higher than samples


def harmless_types() -> list[Callable]:
    """Types in students' checkpoints that run no code, for `torch.serialization.safe_globals`."""
    # NumPy 1 and 2 have other modules; paths of another system cannot be created, but pure ones can.
    array, scalar = np.zeros(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    numpy = {
        f"numpy.{package}.multiarray.{function.__name__}": function
        for package in ("core", "_core")
        for function in (array, scalar)
    }
    paths = {
        f"{module}.{name}": pure
        for module in ("pathlib", "pathlib._local")
        for name, pure in (("PosixPath", pathlib.PurePosixPath), ("WindowsPath", pathlib.PureWindowsPath))
    }
    # The unpickler fills no defaultdict; what it is made of does not matter.
    others = {"collections.defaultdict": lambda *_: {}}
    dtypes = [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]
    functions = [_named(function, name) for name, function in (numpy | paths | others).items()]
    return [argparse.Namespace, types.SimpleNamespace, list, np.ndarray, np.dtype, *dtypes, *functions]


def _named(function: Callable, name: str) -> Callable:
    """The function under the name that stands in a checkpoint."""

    def call(*args):
        return function(*args)

    call.__module__, call.__name__ = name.rsplit(".", 1)
    call.__qualname__ = call.__name__
    return call


def converted(path: Path, content: object) -> dict:
    """A checkpoint of the course as a dict of `state_dict, args, lr, tfr, last_epoch, left_out`.

    `args` are the flags to render with, with the sizes of the networks; `left_out` names what is not used.

    Raises:
        UserError: it has no weights of the course's networks.
    """
    for source in _dicts(content):
        weights, others = _course_weights(source)
        if weights:
            break
    else:
        raise UserError(f"{path}: not a checkpoint of this project or of the course's networks")
    if source is not content:
        others |= {
            str(key) for key, value in content.items() if key not in KEYS and not _holds(value, source)
        }
    args = content.get("args")
    flags = args if isinstance(args, dict) else getattr(args, "__dict__", {})
    frame_size = {name: flags[name] for name in ("frame_H", "frame_W") if type(flags.get(name)) is int}
    sizes = {name: len(weights[layer]) // divisor for name, (layer, divisor, _) in SIZE_LAYERS.items()}
    epoch = _last_number(content.get("last_epoch"))
    return {
        "state_dict": weights,
        "args": FLAGS | sizes | frame_size,
        "lr": _last_number(content.get("lr")),
        "tfr": _last_number(content.get("tfr")),
        "last_epoch": None if epoch is None else int(epoch),
        "left_out": sorted(others),
    }


def _holds(value: object, source: dict) -> bool:
    return value is source or (isinstance(value, dict) and any(item is source for item in value.values()))


def _dicts(content: object, depth: int = 3) -> Iterator[dict]:
    """The dicts in a checkpoint, `state_dict` first, then those inside it, then itself."""
    if isinstance(content, dict) and depth:
        values = [content.get("state_dict"), *content.values()]
        for value in values:
            yield from _dicts(value, depth - 1)
        yield content


def _course_weights(entry: dict) -> tuple[dict[str, Tensor], set[str]]:
    """The weights of the course's networks in a dict, in fp32, and what else is in it; empty if not all are.

    Of several copies, such as an average of the weights, the one with the shortest prefix is taken.
    """
    by_prefix, others = defaultdict(dict), set()
    for key, value in entry.items():
        parts = [part for part in str(key).split(".") if part not in WRAPPERS]
        start = next((i for i, part in enumerate(parts) if part in NETWORKS), None)
        if start is None or not isinstance(value, Tensor) or value.is_quantized:
            others.add(str(key).split(".")[0])
            continue
        dtype = torch.int64 if parts[-1] == "num_batches_tracked" else torch.float32
        by_prefix[".".join(parts[:start])][".".join(parts[start:])] = value.to(dtype)
    prefix = min(by_prefix, key=len, default=None)
    weights = by_prefix.pop(prefix, {})
    for layer, divisor, minimum in SIZE_LAYERS.values():
        if layer not in weights or weights[layer].ndim != 4 or len(weights[layer]) < divisor * minimum:
            return {}, set()
    return weights, others | by_prefix.keys()


def _last_number(value: object) -> float | None:
    """A number, also of a tensor, or the last one of a list; None if it is something else."""
    if isinstance(value, (list, tuple)) and value:
        value = value[-1]
    if isinstance(value, (Tensor, np.ndarray, np.generic)) and math.prod(value.shape) == 1:
        value = math.nan if getattr(value, "is_meta", False) else value.item()
    return value if isinstance(value, (int, float)) and math.isfinite(value) else None
