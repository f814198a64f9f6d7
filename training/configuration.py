"""How each flag gets its value: recipe < checkpoint < command line."""

import argparse
from pathlib import Path

from modules import ARCHITECTURES
from runtime.cli import UserError
from runtime.parser import REQUIRED, Flag

from .options import MODEL_FLAGS, NOT_INHERITED, RECIPES, TRAINER, WEIGHT_FLAGS, WHITE, parser


def resolve(
    groups: dict[str, tuple[Flag, ...]], cli_args: dict, checkpoint_args: dict | None = None
) -> argparse.Namespace:
    """The value of every flag: recipe < checkpoint < command line.

    Args:
        groups: `TRAINER` or `TESTER`.
        cli_args: the flags on the command line.
        checkpoint_args: the flags of the checkpoint to continue or test, its recipe included.
    """
    is_new, checkpoint_args = checkpoint_args is None, dict(checkpoint_args or {})
    if {"num_epoch", "max_minutes"} <= cli_args.keys():
        raise UserError("--num_epoch and --max_minutes are mutually exclusive")
    if "num_epoch" in cli_args:
        checkpoint_args.pop("max_minutes", None)
    flags = {flag.dest: flag for group in groups.values() for flag in group}
    # Flags that only Tester.py has share some names with flags of training.
    not_inherited = NOT_INHERITED | {flag.dest for flag in groups.get("test", ())} | cli_args.keys()
    inherited = {
        name: _from_checkpoint(flag, checkpoint_args[name])
        for name, flag in flags.items()
        if name in checkpoint_args and name not in not_inherited
    }
    own = checkpoint_args.get("recipe")
    recipe = cli_args.get("recipe") or own or "default"
    if own and recipe != own:
        raise UserError(f"--recipe {recipe}: the checkpoint has --recipe {own}; set single flags instead")
    if not is_new and inherited.get("pose_background") is None:
        inherited["pose_background"] = WHITE  # the course has no others
    values = {name: None if flag.default is REQUIRED else flag.default for name, flag in flags.items()}
    values |= RECIPES.get(str(recipe), {}) | inherited | cli_args
    _set_sizes(values, cli_args)
    args = argparse.Namespace(**{name: values[name] for name in flags})
    args.DR = args.DR and Path(args.DR)
    return args


def _from_checkpoint(flag: Flag, value: object) -> object:
    """The value of a flag in a checkpoint, which may be one that is gone, or damaged."""
    try:
        return flag.parse(value)
    except (ValueError, argparse.ArgumentTypeError):
        remedy = "" if flag.dest in (*WEIGHT_FLAGS, "recipe") else f"; give {flag.name}"
        raise UserError(f"the checkpoint's {flag.name} {value} is not valid{remedy}") from None


def require_dataset(args: argparse.Namespace, is_given: bool) -> None:
    """Raise a `UserError` unless --DR is given or the checkpoint's dataset exists.

    Args:
        is_given: --DR is on the command line.
    """
    if args.DR is None:
        raise UserError("--DR is required (--help lists all flags)")
    if not is_given and not args.DR.is_dir():
        raise UserError(f"{args.DR}: the checkpoint's dataset was not found; set --DR")


def _set_sizes(values: dict, cli_args: dict) -> None:
    """Set missing network sizes to the architecture's defaults."""
    arch, sizes = values["arch"], ARCHITECTURES[values["arch"]].DEFAULTS
    for name in MODEL_FLAGS[1:]:
        if name not in sizes and name in cli_args:
            raise UserError(f"--{name} is not a flag of --arch {arch}")
        value = values[name] if name in sizes else None
        values[name] = sizes.get(name) if value is None else value
    if (values["patch_size"] or 1) >= max(values["frame_H"], values["frame_W"]):
        raise UserError(f"--patch_size {values['patch_size']} must be smaller than the frame")


def trainer_args(argv: list[str] | None = None) -> argparse.Namespace:
    """All flags of a new run, from its command line."""
    cli_args = vars(parser(TRAINER).parse_args(argv))
    args = resolve(TRAINER, cli_args)
    require_dataset(args, "DR" in cli_args)
    return args


def plain_values(args: argparse.Namespace) -> dict:
    """The flags as plain values, for a checkpoint and for args.json."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
