"""A command line that answers a mistake with one line and tells given flags from defaults."""

import argparse

from .console import USER_MISTAKE, complain


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that answers a mistake with one line, and lists defaults in its help."""

    def __init__(self, **settings):
        super().__init__(formatter_class=argparse.ArgumentDefaultsHelpFormatter, **settings)

    def error(self, message):
        complain(f"{message} (--help lists all flags)")
        raise SystemExit(USER_MISTAKE)

    def given(self, argv: list[str] | None) -> dict:
        """The flags that stand on the command line, and no defaults."""
        absent = object()
        names = [action.dest for action in self._actions if action.dest != "help"]
        parsed = self.parse_args(argv, argparse.Namespace(**dict.fromkeys(names, absent)))
        return {name: value for name, value in vars(parsed).items() if value is not absent}


def whole(least: int):
    """An argparse type: a whole number of at least `least`."""

    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, not {text}")
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

    def chosen(text: str) -> str:
        for name in text.split(",") if text != "none" else ():
            if name not in names:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(names)}; or give `none`")
        return text

    return chosen
