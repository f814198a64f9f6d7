"""Command lines: flags declared as data, checked values, and errors of one line."""

import argparse
import re
import sys

from PIL import ImageColor

from .cli import USER_ERROR, print_error

REQUIRED = object()
MAX_INT = 2**40


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports an error in one line, and knows the former names of renamed flags."""

    def __init__(self, renamed: dict[str, str] | None = None, **settings):
        super().__init__(**settings)
        self.renamed = renamed or {}

    def parse_known_args(self, args=None, namespace=None):
        for word in sys.argv[1:] if args is None else args:
            name = word.partition("=")[0]
            if name in self.renamed:
                self.error(f"{name} is now {self.renamed[name]}")
        return super().parse_known_args(args, namespace)

    def error(self, message):
        print_error(f"{message} (--help lists all flags)")
        raise SystemExit(USER_ERROR)


class Flag:
    """One flag: name, default (None: no value), help, and the settings of argparse's `add_argument`."""

    def __init__(self, name: str, default: object, help: str, **settings):
        self.name, self.default, self.help, self.settings = name, default, help, settings
        self.dest = name.lstrip("-")

    @property
    def default_text(self) -> str:
        """The default, for people; empty if there is none."""
        if self.default is REQUIRED or self.default is None:
            return "required" if self.default is REQUIRED else ""
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    def parse(self, value: object) -> object:
        """Check and convert a checkpoint's value like a command-line argument; raises the same errors."""
        if value is None and self.default is None:
            return None
        if "action" in self.settings:
            if not isinstance(value, bool):
                raise ValueError(f"{value} is not true or false")
            return value
        parsed = self.settings.get("type", str)(str(value))
        if parsed not in self.settings.get("choices", [parsed]):
            raise ValueError(f"{value} is not one of the choices")
        return parsed

    def add_to(self, group) -> None:
        """Declare it. A flag that is not on the command line is absent from the parsed namespace."""
        note = f" (default: {self.default_text})" if self.default_text not in ("", "required") else ""
        settings = {"default": argparse.SUPPRESS, "help": self.help + note, **self.settings}
        group.add_argument(self.name, required=self.default is REQUIRED, **settings)


def int_range(minimum: int, maximum: int = MAX_INT):
    """An argparse type: an integer in [minimum, maximum]."""

    def integer(text: str) -> int:
        value = int(text)
        if not minimum <= value <= maximum:
            bound = f"at least {minimum}" if value < minimum else f"at most {maximum}"
            raise argparse.ArgumentTypeError(f"must be {bound}, not {text}")
        return value

    return integer


def float_range(minimum: float, maximum: float = float("inf"), exclusive: bool = False):
    """An argparse type: a finite number in [minimum, maximum], or in (minimum, maximum] if `exclusive`."""

    def number(text: str) -> float:
        value = float(text)
        if not minimum <= value <= maximum or (exclusive and value == minimum) or value == float("inf"):
            bounds = f"{'above' if exclusive else 'at least'} {minimum:g}"
            bounds += "" if maximum == float("inf") else f" and at most {maximum:g}"
            raise argparse.ArgumentTypeError(f"must be {bounds}, not {text}")
        return value

    return number


def colour(text: str) -> str:
    """An argparse type: a colour's name, or `rrggbb`; returns `#rrggbb`."""
    try:
        red, green, blue = ImageColor.getrgb(f"#{text}" if re.fullmatch("[0-9a-fA-F]{6}", text) else text)
        return f"#{bytes([red, green, blue]).hex()}"
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a colour such as black or 808080") from None


def subset(names: tuple[str, ...], renamed: dict[str, str]):
    """An argparse type: a comma-separated subset of `names`, or "none"; `renamed` has former names."""

    def selection(text: str) -> str:
        for name in text.split(",") if text != "none" else ():
            if name in renamed:
                raise argparse.ArgumentTypeError(f"{name!r} is now {renamed[name]!r}")
            if name not in names:
                raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(names)}, or `none`")
        return text

    return selection
