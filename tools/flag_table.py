"""docs/flags.md, written from the declarations of the flags.

python -m tools.flag_table > docs/flags.md
"""

from modules import ARCHITECTURES
from training.options import TEST, TRAINER
from training.presets import LARGE_FRAMES, LONG_RUN, LONG_RUN_DEFAULTS, RECIPES


def flag_table() -> str:
    """docs/flags.md: every flag by group, with its default and its help."""
    lines = [
        "# Flags",
        "",
        "The flags of Trainer.py, and those that only Tester.py has. A flag of the model is read from the",
        "checkpoint where it is not given. Written by `python -m tools.flag_table > docs/flags.md`.",
        "",
        "| flag | default | what it does |",
        "|---|---|---|",
    ]
    tester_only = tuple(flag for flag in TEST if flag.name not in ("--ckpt_path", "--val_vi_len", "--test"))
    for title, flags in (TRAINER | {"Tester.py only": tester_only}).items():
        lines += [f"| **{title}** | | |", *(flag.table_row() for flag in flags)]
    presets = {"`--recipe lab`": RECIPES["lab"]}
    presets |= {f"`--arch {name}`": networks.DEFAULTS for name, networks in ARCHITECTURES.items()}
    presets |= {f"A frame of {least:,} pixels or more": values for least, values in LARGE_FRAMES.items()}
    presets |= {f"`--max_minutes {LONG_RUN}` or more, with `--arch unet`,": LONG_RUN_DEFAULTS}
    for preset, values in presets.items():
        listed = ", ".join(f"`--{name} {value}`" for name, value in values.items())
        lines += ["", f"{preset} sets {listed}."]
    return "\n".join(lines)


if __name__ == "__main__":
    print(flag_table())
