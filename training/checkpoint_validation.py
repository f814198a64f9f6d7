"""Checks of a checkpoint from a file before it is used: it may be damaged, or from another program."""

import math
from pathlib import Path

import torch
from torch import Tensor

from runtime.cli import UserError

# Larger weights mean divergence; in good runs they stay below 100.
MAX_WEIGHT = 1e4


REQUIRED_TYPES = {"state_dict": dict, "args": dict}
OPTIONAL_TYPES = {"optimizer": dict, "lr": (int, float), "last_epoch": int, "step": int, "history": dict}


def check_types(path: Path, checkpoint: dict) -> None:
    """Refuse a checkpoint of this project that lacks weights or flags, or has an entry of a wrong type."""
    for name, kind in (REQUIRED_TYPES | OPTIONAL_TYPES).items():
        if (name in checkpoint or name in REQUIRED_TYPES) and not isinstance(checkpoint.get(name), kind):
            raise UserError(f"{path}: damaged: {name} is missing or has the wrong type")
    if any(checkpoint.get(name, 0) < 0 for name in ("last_epoch", "step")):
        raise UserError(f"{path}: damaged: last_epoch or step is negative")
    rows = checkpoint.get("history", {}).get("rows", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) and _is_time(row) for row in rows):
        raise UserError(f"{path}: damaged: history has the wrong type")


def _is_time(row: dict) -> bool:
    return isinstance(row.get("seconds"), (int, float))


def _fits(value: object, expected: Tensor) -> bool:
    """Whether a value is a dense tensor of the expected shape and dtype."""
    dense = isinstance(value, Tensor) and value.layout is torch.strided
    dense = dense and not (value.is_quantized or value.is_nested)
    return dense and not value.is_meta and (value.dtype, value.shape) == (expected.dtype, expected.shape)


def check_weights(path: Path, weights: dict, own: dict[str, Tensor]) -> None:
    """Reject weights whose names, shapes or dtypes differ from the model's, or that have diverged.

    Args:
        own: the model's `state_dict`.
    """
    hint = "check --arch and the sizes of the networks"
    if different := sorted(map(str, weights.keys() ^ own.keys())):
        where = "lacks" if different[0] in own else "has an unknown"
        raise UserError(f"{path}: {where} {different[0]} ({len(different)} names differ); {hint}")
    for name, tensor in own.items():
        if not _fits(weights[name], tensor):
            expected = f"{list(tensor.shape)} and {tensor.dtype}"
            raise UserError(f"{path}: {name} is not a tensor of shape {expected}; {hint}")
    if problem := find_divergence(weights):
        raise UserError(f"{path}: {problem}: its run diverged; use an earlier checkpoint")


def find_divergence(weights: dict[str, Tensor]) -> str | None:
    """Describe non-finite or exploding weights; None if there are none."""
    for name, tensor in weights.items():
        # Written so that NaN counts, too.
        if "running" in name and not tensor.abs().max() < math.inf:
            return f"values of {name} are not finite"
        if "running" not in name and tensor.is_floating_point() and not tensor.abs().max() <= MAX_WEIGHT:
            return f"values of {name} are not finite or beyond {MAX_WEIGHT:g}"
        if name.endswith("running_var") and not tensor.min() >= 0:
            return f"values of {name} are negative"
    return None


def check_optimizer(path: Path, state: dict, optimizer: torch.optim.Optimizer) -> None:
    """Reject optimizer state that does not match: a fused update would write out of bounds.

    Args:
        optimizer: a new one of the same kind.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    num_groups = len(state["param_groups"])
    if num_groups != len(optimizer.param_groups) or numbers != list(range(len(parameters))):
        raise UserError(f"{path}: optimizer param_groups do not match this model")
    for number, moments in state["state"].items():
        parameter = parameters[number]
        names = optimizer.moments(parameter) if hasattr(optimizer, "moments") else ("exp_avg", "exp_avg_sq")
        expected = {"step": torch.zeros(()), **dict.fromkeys(names, parameter)}
        if moments.keys() != expected.keys() or not all(_fits(moments[n], expected[n]) for n in expected):
            raise UserError(f"{path}: the optimizer state of parameter {number} does not match this model")
