"""The README keeps up with the flags."""

import pytest

from engine import options
from tests.helpers import ROOT


def shown(default) -> str:
    """A default as the README writes it."""
    if default is None or isinstance(default, bool):
        return {None: "", False: "off", True: "on"}[default]
    return f"{default:g}" if isinstance(default, float) else str(default)


@pytest.mark.parametrize("parser", [options.trainer_parser(), options.tester_parser()], ids=lambda p: p.prog)
def test_every_flag_stands_in_the_table_with_its_default_and_its_help(parser):
    lines = (ROOT / "README.md").read_text().splitlines()
    table = {line.split("`")[1]: line for line in lines if line.startswith("| `--")}
    shared = {action.dest for action in options.trainer_parser()._actions}
    for action in parser._actions:
        if action.dest == "help" or (parser.prog == "Tester.py" and action.dest in shared):
            continue
        default = "required" if action.required else shown(action.default)
        assert table[action.option_strings[0]].endswith(f"| {default} | {action.help} |")
