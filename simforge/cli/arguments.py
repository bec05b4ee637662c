"""Arguments that several commands share: a parser that suggests, and readers of numbers."""

from __future__ import annotations

import argparse
import re
from decimal import Decimal
from typing import Any, TypeAlias

from simforge.errors import suggest

_MULTIPLIERS = {"": 1, "k": 10**3, "m": 10**6}


class Parser(argparse.ArgumentParser):
    """Reports an unknown option, with similar options, before any missing argument."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._subparsers is None:
            for word in args or ():
                option = word.split("=")[0]
                if (
                    option.startswith("--")
                    and option != "--"
                    and option not in self._option_string_actions
                ):
                    self.error(
                        f"there is no option {option}{suggest(option, self._option_string_actions)}"
                    )
        return super().parse_known_args(args, namespace)


def parse_count(text: str) -> int:
    """Parse a number of people: `500`, `10k`, `1.5M`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text.strip().replace("_", ""))
    number = Decimal(match[1]) * _MULTIPLIERS[match[2].lower()] if match else Decimal(0)
    if number < 1 or number != int(number):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of people; write 500, 10k or 1.5M"
        )
    return int(number)


def parse_positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def parse_amount(text: str) -> float:
    """Parse an amount of money: a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount above 0")
    return number


def parse_share(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return number


def shell_quote(text: str) -> str:
    import shlex

    return shlex.quote(text)


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"Where a group adds its commands."
