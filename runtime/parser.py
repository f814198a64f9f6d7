"""A command line that answers a mistake with one line: its flags, and the types of their values."""

import argparse
from collections.abc import Iterable
from dataclasses import dataclass, field

from runtime.cli import USER_MISTAKE, complain


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that answers a mistake with one line, and lists defaults in its help."""

    def __init__(self, **settings):
        super().__init__(formatter_class=argparse.ArgumentDefaultsHelpFormatter, **settings)

    def error(self, message):
        complain(f"{message} (--help lists all flags)")
        raise SystemExit(USER_MISTAKE)


REQUIRED = object()
LARGEST = 2**40  # of a whole number, unless a flag has a limit of its own


@dataclass(frozen=True)
class Flag:
    """One flag: its name, its default (None: no value), its help, and what else argparse wants to know."""

    name: str
    default: object
    help: str
    settings: dict = field(default_factory=dict)

    @property
    def dest(self) -> str:
        """Its name as an attribute."""
        return self.name.lstrip("-")

    @property
    def default_text(self) -> str:
        """The default as people read it; empty where there is none."""
        if self.default is REQUIRED or self.default is None:
            return "required" if self.default is REQUIRED else ""
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    def add_to(self, group) -> None:
        """Declare it; absent from what the parser returns where it is not on the command line."""
        note = f" (default: {self.default_text})" if self.default_text not in ("", "required") else ""
        settings = {"default": argparse.SUPPRESS, "help": self.help + note, **self.settings}
        group.add_argument(self.name, required=self.default is REQUIRED, **settings)

    def accepts(self, value: object) -> bool:
        """Whether a value from a file is one that the command line could have given."""
        if value is None:
            return self.default is None
        if isinstance(self.default, bool):
            return isinstance(value, bool)
        if "choices" in self.settings:
            return value in self.settings["choices"]
        if type(value) not in (int, float, str):
            return False
        try:
            return self.settings["type"](str(value)) == value
        except (ValueError, argparse.ArgumentTypeError):
            return False

    def table_row(self) -> str:
        """Its row in a Markdown table: name and choices, default, help."""
        choices = "".join(f" `{choice}`" for choice in self.settings.get("choices", ()))
        help = self.help.replace("%%", "%")  # argparse needs it doubled
        return f"| `{self.name}`{choices} | {self.default_text} | {help} |"


def value(name: str, kind, default, help: str) -> Flag:
    """A flag with a value of a kind, which converts and checks its text."""
    return Flag(name, default, help, {"type": kind})


def choice(name: str, choices: Iterable[str], default: str, help: str) -> Flag:
    """A flag with one of some values."""
    return Flag(name, default, help, {"choices": list(choices)})


def switch(name: str, help: str) -> Flag:
    """A flag that is off unless it is given."""
    return Flag(name, False, help, {"action": "store_true"})


def whole(least: int, most: int = LARGEST):
    """An argparse type: a whole number from `least` to `most`."""

    def integer(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            bound = f"at least {least}" if value < least else f"at most {most}"
            raise argparse.ArgumentTypeError(f"must be {bound}, not {text}")
        return value

    return integer


def real(least: float, most: float = float("inf"), above: bool = False):
    """An argparse type: a number in [least, most], or in (least, most] with `above`."""

    def number(text: str) -> float:
        value = float(text)
        if not least <= value <= most or (above and value == least) or value == float("inf"):
            bounds = f"{'above' if above else 'at least'} {least:g}"
            bounds += "" if most == float("inf") else f" and at most {most:g}"
            raise argparse.ArgumentTypeError(f"must be {bounds}, not {text}")
        return value

    return number


def subset(names: tuple[str, ...]):
    """An argparse type: some of `names`, separated by commas, or "none"."""

    def selection(text: str) -> str:
        for name in text.split(",") if text != "none" else ():
            if name not in names:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(names)}; or give `none`")
        return text

    return selection
