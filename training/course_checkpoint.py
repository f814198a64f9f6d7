"""Checkpoints of the course, as its students save them, converted to what this project reads.

Weights may be under any key, in any precision, and with wrapper prefixes (`module.`); other entries
hold flags, losses, or other networks.
"""

import argparse
import math
import pathlib
import re
import types
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from runtime.cli import UserError

KEYS = ("state_dict", "optimizer", "lr", "tfr", "last_epoch")
NETWORKS = (
    "frame_transformation", "label_transformation", "Gaussian_Predictor", "Decoder_Fusion", "Generator",
)  # fmt: skip
WRAPPERS = {"module", "_orig_mod"}  # of DataParallel and torch.compile
# The layer that has a size as its output channels, the channels per unit of it, and the least of these.
SIZE_LAYERS = {
    "F_dim": ("frame_transformation.6.weight", 1, 8), "L_dim": ("label_transformation.4.conv2.weight", 1, 2),
    "N_dim": ("Gaussian_Predictor.6.weight", 2, 4), "D_out_dim": ("Decoder_Fusion.5.weight", 1, 8),
}  # fmt: skip
# Names of averages and former states; under `optimizer` the course keeps a second copy.
OTHER_COPIES = re.compile("ema|shadow|avg|average|swa|prev|optimizer", re.IGNORECASE)
COUNTER = "label_transformation.2.num_batches_tracked"  # of BatchNorm
FLAG_ENTRIES = ("args", "opt", "config", "cfg", "hparams", "hyper_parameters")
MAX_DEPTH = 4  # of dicts
MIN_SIDE = 4  # of frames, as for --frame_H
MAX_NUMBER, MAX_DIGITS = 2**53, 16
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
    # The unpickler fills only dicts and lists.
    others = {"collections.defaultdict": lambda *_: {}, "collections.deque": lambda *_: []}
    plain = [bool, int, float, str, list, dict, set, frozenset, datetime, date, timedelta]
    dtypes = [type(np.dtype(code)) for code in "?bBhHiIlLqQefdFDUSMm"]
    functions = [_named(function, name) for name, function in (numpy | paths | others).items()]
    return [argparse.Namespace, types.SimpleNamespace, *plain, np.ndarray, np.dtype, *dtypes, *functions]


def _named(function: Callable, name: str) -> Callable:
    """The function under the name that stands in a checkpoint."""

    def call(*args):
        return function(*args)

    call.__module__, call.__name__ = name.rsplit(".", 1)
    call.__qualname__ = call.__name__
    return call


def converted(path: Path, content: dict) -> dict:
    """A checkpoint of the course as a dict of `state_dict, args, lr, tfr, last_epoch, left_out`.

    `args` are the flags to render with, with the sizes of the networks; `left_out` lists ignored entries.
    If there are several copies of the weights, the first that is not an average or an older state is used.

    Raises:
        UserError: it has no weights of the course's networks.
    """
    copies = sorted(_copies(content), key=lambda copy: bool(OTHER_COPIES.search(copy.place)))
    if not copies:
        raise UserError(f"{path}: not a checkpoint of this project or of the course's networks")
    used = copies[0]
    entries, left_out = [content], set(used.others)
    for key in used.keys:
        left_out |= {str(other) for other in entries[-1].keys() - {key}}
        entries.append(entries[-1][key])
    left_out -= {*KEYS, *FLAG_ENTRIES}
    keys = (*KEYS, *FLAG_ENTRIES)
    values = {key: next((e[key] for e in reversed(entries) if key in e), None) for key in keys}
    flags = {}
    for key in reversed(FLAG_ENTRIES):  # the course's entry wins
        flags |= values[key] if isinstance(values[key], dict) else getattr(values[key], "__dict__", {})
    sides = {name: _last_number(flags[name]) for name in ("frame_H", "frame_W") if name in flags}
    frame_size = {name: int(side) for name, side in sides.items() if side and side >= MIN_SIDE}
    left_out |= {f"{name} {flags[name]}" for name in sides.keys() - frame_size.keys()}
    sizes = {name: len(used.weights[layer]) // divisor for name, (layer, divisor, _) in SIZE_LAYERS.items()}
    epoch = _last_number(values["last_epoch"])
    return {
        "state_dict": used.weights,
        "args": FLAGS | sizes | frame_size,
        "lr": _last_number(values["lr"]),
        "tfr": _last_number(values["tfr"]),
        "last_epoch": None if epoch is None or epoch < 0 else int(epoch),
        "left_out": sorted(left_out),
    }


class _Copy(NamedTuple):
    """Weights of the course's networks, in fp32."""

    keys: tuple  # of the dicts around them
    prefix: str  # of their names
    weights: dict[str, Tensor]
    others: set[str]  # what else is in their dict

    @property
    def place(self) -> str:
        return ".".join([*map(str, self.keys), self.prefix])


def _copies(entry: dict, keys: tuple = ()) -> Iterator[_Copy]:
    """All complete copies of the weights in a dict and the dicts inside it, `state_dict` first."""
    by_prefix, others = defaultdict(dict), set()
    entry = dict(_flat(entry))
    for key in sorted(entry, key=lambda key: key != "state_dict"):
        if isinstance(entry[key], dict) and len(keys) < MAX_DEPTH:
            yield from _copies(entry[key], (*keys, key))
        parts = str(key).split(".")
        start = next((i for i, part in enumerate(parts) if part in NETWORKS), None)
        weight = _weight(entry[key])
        if start is None or (weight is None and parts[-1] != "num_batches_tracked"):
            others.add(parts[0])
            continue
        name = ".".join(part for part in parts[start:] if part not in WRAPPERS)
        by_prefix[".".join(parts[:start])][name] = weight
    for prefix, weights in by_prefix.items():
        weights[COUNTER] = torch.tensor(0)  # not used, and missing in some files
        if _has_sizes(weights):
            other_prefixes = {other or "weights without a prefix" for other in by_prefix.keys() - {prefix}}
            yield _Copy(keys, prefix, weights, others | other_prefixes)


def _flat(entry: dict) -> Iterator[tuple]:
    """The entries of a dict, in which each network may have a dict of weights."""
    for key, value in entry.items():
        is_network = isinstance(value, dict) and str(key).split(".")[-1] in NETWORKS
        if is_network and not any(isinstance(inner, dict) for inner in value.values()):
            yield from ((f"{key}.{name}", weight) for name, weight in value.items())
        else:
            yield key, value


def _has_sizes(weights: dict[str, Tensor]) -> bool:
    return all(
        layer in weights and weights[layer].ndim == 4 and len(weights[layer]) >= unit * least
        for layer, unit, least in SIZE_LAYERS.values()
    )


def _weight(value: object) -> Tensor | None:
    """A floating-point tensor or array in fp32; None if it is something else."""
    if isinstance(value, np.ndarray) and value.dtype in (np.float16, np.float32, np.float64):
        value = torch.from_numpy(value.copy())
    if not isinstance(value, Tensor) or value.is_nested or not value.is_floating_point():
        return None
    return value.float()


def _last_number(value: object) -> float | None:
    """A number, also of a tensor or a text, or the last one of a list; None if it is something else."""
    if isinstance(value, (list, tuple)) and value:
        value = value[-1]
    if isinstance(value, str) and value.isdecimal() and len(value) < MAX_DIGITS:
        value = int(value)
    if isinstance(value, (Tensor, np.ndarray, np.generic)) and math.prod(value.shape) == 1:
        value = math.nan if getattr(value, "is_meta", False) else value.item()
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and abs(value) < MAX_NUMBER else None
