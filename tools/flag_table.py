"""docs/flags.md, written from the declarations of the flags.

python -m tools.flag_table > docs/flags.md
"""

from runtime.parser import Flag
from training.options import RECIPES, TEST, TRAINER


def flag_table() -> str:
    """docs/flags.md: every flag by group, with its default and its help; the recipes."""
    lines = [
        "# Flags",
        "",
        "The flags of Trainer.py, and those that only Tester.py has. With a checkpoint, a flag that is",
        "not given has the value of its run. Written by `python -m tools.flag_table > docs/flags.md`.",
        "",
        "| flag | default | description |",
        "|---|---|---|",
    ]
    tester_only = tuple(flag for flag in TEST if flag.name not in ("--ckpt_path", "--val_vi_len", "--test"))
    for title, flags in (TRAINER | {"Tester.py only": tester_only}).items():
        lines += [f"| **{title}** | | |", *map(_row, flags)]
    for name, values in RECIPES.items():
        flags = ", ".join(f"`--{flag} {value}`" for flag, value in values.items())
        lines += ["", f"`--recipe {name}` sets {flags}."] if values else []
    return "\n".join(lines)


def _row(flag: Flag) -> str:
    names = " ".join(f"`{name}`" for name in (flag.name, *flag.settings.get("choices", ())))
    return f"| {names} | {flag.default_text} | {flag.help.replace('%%', '%')} |"  # argparse needs %%


if __name__ == "__main__":
    print(flag_table())
