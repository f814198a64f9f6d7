"""Values that come from a checkpoint, checked before they are used: anybody may have written the file."""

import math
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from runtime.cli import UserError
from training import options

LARGEST_COUNT = 2**40  # of epochs, steps, frames: more is nonsense
LARGEST_NUMBER = 1e30  # of a loss, for example
# Weights beyond this belong to a run that has diverged; those of a good one stay under 100.
LARGEST_WEIGHT = 1e4
SEQUENCES = (list, tuple)
ADAM_MOMENTS = ("exp_avg", "exp_avg_sq")


def check_intact(path: Path) -> None:
    """Compare a checkpoint's contents with the checksums that it holds.

    torch.load does not, so a bit that was flipped on a disk would change a weight.

    Raises:
        UserError: the file is damaged.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged, or not a checkpoint ({error})") from None
    if damaged:
        raise UserError(f"{path}: damaged ({damaged} differs from its checksum)")


class Checked:
    """The entries of a dict from a file; each is refused unless it is what is expected.

    Args:
        path: of the file, for the message.
        values: the dict.
        where: its own key in the file, for the message.
    """

    def __init__(self, path: Path, values: object, where: str = ""):
        self.path, self.where = path, where
        if not isinstance(values, dict):
            self.refuse("a dict")
        self.values = values

    def refuse(self, expected: str, key: object = "") -> None:
        """Raise a `UserError` that names the key."""
        name = " ".join(str(part) for part in (self.where, key) if part != "") or "the file"
        raise UserError(f"{self.path}: {name} is not {expected}")

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def entry(self, key: object) -> "Checked":
        """A dict in the dict."""
        return Checked(self.path, self.values.get(key), f"{self.where} {key}".strip())

    def count(self, key: object) -> int:
        """A whole number that is not negative."""
        value = self.values.get(key)
        if type(value) is not int or not 0 <= value <= LARGEST_COUNT:
            self.refuse("a whole number", key)
        return value

    def number(self, key: object) -> float:
        """A finite number."""
        value = self.values.get(key)
        if type(value) not in (int, float) or not math.isfinite(value):
            self.refuse("a finite number", key)
        return value

    def row(self, key: object) -> list:
        """A list."""
        value = self.values.get(key)
        if not isinstance(value, SEQUENCES):
            self.refuse("a list", key)
        return list(value)

    def tensor(self, key: object, shapes: tuple[torch.Size, ...], dtype: torch.dtype) -> Tensor:
        """An ordinary tensor of one of some shapes, all of its values finite."""
        value = self.values.get(key)
        if not _is_ordinary(value, dtype) or value.shape not in shapes:
            expected = " or ".join(str(list(shape)) for shape in shapes)
            self.refuse(f"a tensor of shape {expected} and {dtype}", key)
        if not torch.isfinite(value).all():
            self.refuse("finite", key)
        return value


def _is_ordinary(value: object, dtype: torch.dtype) -> bool:
    """Whether a value is a tensor of a type with memory of its own: not sparse, quantized or meta."""
    dense = isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized
    return dense and value.dtype is dtype and not value.is_meta


def check_flags(path: Path, stored: object) -> None:
    """Refuse stored flags that the command line could not have given."""
    checked = Checked(path, stored, "args")
    for flags in options.TRAINER.values():
        for flag in flags:
            inherited = flag.dest in checked and flag.dest not in options.NOT_INHERITED
            if inherited and not flag.accepts(checked.values[flag.dest]):
                checked.refuse(f"a value of {flag.name}", flag.dest)


def check_values(path: Path, checkpoint: dict, columns: tuple[str, ...]) -> None:
    """Check all of a complete checkpoint but its weights and its optimizer's state, which need a model.

    Args:
        columns: of the history.
    """
    checked = Checked(path, checkpoint)
    for key in ("last_epoch", "step"):
        checked.count(key)
    for key in ("lr", "tfr"):
        checked.number(key)
    checked.entry("optimizer")
    check_flags(path, checkpoint.get("args"))
    if not isinstance(checkpoint.get("kept", False), bool):
        checked.refuse("true or false", "kept")
    history = checked.entry("history")
    rows = history.row("rows")
    if not rows:
        history.refuse("a list of at least one epoch", "rows")
    for index, row in enumerate(rows):
        _check_row(Checked(path, row, f"history row {index}"), columns)
    if "branch_point" in history and history.count("branch_point") >= len(rows):
        history.refuse("one of the rows", "branch_point")
    curves = history.entry("psnr_by_frame")
    lengths = {len(curves.row(name)) for name in curves.values}
    if len(lengths) > 1 or 0 in lengths or not curves.values.keys() <= {"last", "best"}:
        history.refuse("curves of one length", "psnr_by_frame")
    if "last" not in curves and any(row.get("val_psnr") is not None for row in rows):
        history.refuse("that of the last validation", "psnr_by_frame")
    for name in curves.values:
        curve = Checked(path, dict(enumerate(curves.row(name))), f"history psnr_by_frame {name}")
        for index in curve.values:
            curve.number(index)
    size = torch.get_rng_state().shape
    rng = checked.entry("rng")
    rng.tensor("cpu", (size,), torch.uint8)
    for index, state in enumerate(rng.row("cuda")):
        shapes = (state.shape,) if isinstance(state, Tensor) else ()
        Checked(path, {index: state}, "rng cuda").tensor(index, shapes, torch.uint8)


def _check_row(row: Checked, columns: tuple[str, ...]) -> None:
    row.count("epoch")
    for column in ("lr", "tfr", "seconds"):
        row.number(column)
    for column in columns:
        value = row.values.get(column)
        # A loss may be NaN where no update of an epoch was finite.
        if value is not None and (type(value) not in (int, float) or abs(value) > LARGEST_NUMBER):
            row.refuse("a number", column)


def check_weights(path: Path, weights: dict, own: dict[str, Tensor], hint: str) -> None:
    """Refuse weights with other names, shapes or types than the model's, or of a run that has diverged.

    Args:
        own: the model's `state_dict`.
        hint: what to do about other names or shapes.
    """
    if different := sorted(map(str, weights.keys() ^ own.keys())):
        where = "lacks" if different[0] in own else "has an unknown"
        raise UserError(f"{path}: {where} {different[0]} ({len(different)} names differ); {hint}")
    for name, tensor in own.items():
        stored = weights[name]
        if not _is_ordinary(stored, tensor.dtype):
            raise UserError(f"{path}: {name} is not an ordinary tensor of {tensor.dtype}")
        if stored.shape != tensor.shape:
            shapes = f"{list(stored.shape)} where {list(tensor.shape)} is expected"
            raise UserError(f"{path}: {name} is {shapes}; {hint}")
    if wrong := not_sane(weights):
        raise UserError(f"{path}: {wrong}, so the run that wrote it has diverged; use an earlier checkpoint")


def not_sane(weights: dict[str, Tensor]) -> str | None:
    """What is wrong with the weights of a model that has diverged; None for a good one."""
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or "running" in name:
            continue
        if count := int((~torch.isfinite(tensor)).sum()):
            return f"{count} values of {name} are not finite"
        if tensor.numel() and float(tensor.abs().max()) > LARGEST_WEIGHT:
            return f"values of {name} are beyond {LARGEST_WEIGHT:g}"
    return None


def check_optimizer(path: Path, state: object, optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimizer's state that does not fit: a fused update would write beyond a tensor.

    Args:
        optimizer: of the same kind, new.
    """
    checked = Checked(path, state, "optimizer")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    groups = [Checked(path, group, "optimizer param_groups") for group in checked.row("param_groups")]
    numbers = [number for group in groups for number in group.row("params")]
    if len(groups) != len(optimizer.param_groups) or numbers != list(range(len(parameters))):
        checked.refuse("those of this model", "param_groups")
    states = checked.entry("state")
    for number in states.values:
        if number not in range(len(parameters)):
            states.refuse("of a parameter", number)
        parameter, moments = parameters[number], states.entry(number)
        names = optimizer.moments(parameter) if hasattr(optimizer, "moments") else ADAM_MOMENTS
        if moments.values.keys() != {*names, "step"}:
            states.refuse(f"of the entries step, {', '.join(names)}", number)
        moments.tensor("step", (torch.Size([]),), torch.float32)
        for name in names:
            moments.tensor(name, (parameter.shape,), parameter.dtype)
