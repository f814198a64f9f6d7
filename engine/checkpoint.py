"""Checkpoints: written whole or not at all, read without running code, ours and the lab's.

Keys of the lab: `state_dict, optimizer, lr, tfr, last_epoch` (the last finished epoch). Ours beside
them: `format_version, args, step, history, rng`. Only tensors and plain values are stored.
"""

import io
import pickle
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

from . import files
from .console import UserError
from .options import MODEL_FLAGS

FORMAT_VERSION = 1


def write(path: Path, content: dict) -> None:
    """Save `content` so that `path` holds either what it held before, or all of this.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    # torch.save reports a full disk as a RuntimeError without a cause; writing bytes raises an OSError.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        files.write(path, buffer.getvalue())
    except OSError as error:
        kept = f"; {path.name} is what it was before" if path.exists() else ""
        raise UserError(f"cannot save {path}: {error.strerror}{kept}") from None


def read(path: Path) -> dict:
    """Load a checkpoint, ours or the lab's, to the CPU; never runs code that a file holds.

    Raises:
        UserError: no such file, damaged, not a checkpoint, or a pickle of more than plain values.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickles, which end in an error below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(_why_unreadable(path, error)) from None
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged, or not a checkpoint ({_first_line(error)})") from None
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise UserError(f"{path}: not a checkpoint, it has no state_dict")
    if content.get("format_version", 0) > FORMAT_VERSION:
        raise UserError(f"{path}: written by a newer version of this program")
    return content


def _why_unreadable(path: Path, error: Exception) -> str:
    if zipfile.is_zipfile(path) or "Unsupported" in str(error) or "GLOBAL" in str(error):
        return f"{path}: holds more than tensors and plain values, so it was not loaded (it may run code)"
    return f"{path}: damaged, or not a checkpoint"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120] or type(error).__name__


def is_ours(content: dict) -> bool:
    """Whether a checkpoint brings all that a full resume needs; the lab's bring weights alone."""
    return "format_version" in content


def stored_flags(content: dict) -> dict:
    """The flags that a checkpoint was trained with; the lab's hold none, and are of its networks."""
    return content.get("args", {"arch": "lab"})


def check_model_flags(path: Path, content: dict, given: dict) -> None:
    """Refuse flags on the command line that contradict the model that a checkpoint holds."""
    stored = stored_flags(content)
    for name in MODEL_FLAGS:
        if name in given and name in stored and given[name] != stored[name]:
            raise UserError(f"{path}: has --{name} {stored[name]}, not {given[name]}; leave the flag out")


def load_weights(model: nn.Module, path: Path, content: dict) -> None:
    """Put a checkpoint's weights into a model of the same sizes.

    Raises:
        UserError: other names or shapes than the model's; the first is named.
    """
    weights, own = content["state_dict"], model.state_dict()
    hint = "check --arch, --F_dim, --L_dim, --N_dim and --D_out_dim"
    if strange := sorted(weights.keys() ^ own.keys()):
        where = "lacks" if strange[0] in own else "has an unknown"
        raise UserError(f"{path}: {where} {strange[0]} ({len(strange)} names differ); {hint}")
    for name, tensor in own.items():
        if not isinstance(weights[name], torch.Tensor) or weights[name].shape != tensor.shape:
            found = list(getattr(weights[name], "shape", []))
            raise UserError(f"{path}: {name} is {found} where {list(tensor.shape)} is expected; {hint}")
    model.load_state_dict(weights)


def rng_state(device: torch.device) -> dict:
    """The states of torch's random generators, of the CPU and of the run's device if that is CUDA."""
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_rng(state: dict, device: torch.device) -> None:
    """Set the generators as `rng_state` found them; CUDA's only if the run was on CUDA before."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"]:
        torch.cuda.set_rng_state(state["cuda"][0], device)
