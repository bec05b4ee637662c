"""Arguments that several commands share: a parser that suggests, and readers of numbers."""

from __future__ import annotations

import argparse
import re
from decimal import Decimal
from typing import Any, NoReturn, TypeAlias

from simforge.errors import suggest

_MULTIPLIERS = {"": 1, "k": 10**3, "m": 10**6}


SYNONYMS = {
    "run": "generate",
    "make": "generate",
    "create": "generate",
    "list": "show",
    "ls": "show",
    "check": "validate",
    "publish": "push",
    "download": "pull",
    "help": "--help",
    "-o": "--out",
    "-m": "--model",
    "-n": "--personas",
}
"What people type who know other tools."


class Parser(argparse.ArgumentParser):
    """Reports an unknown option or command with similar ones, in one line, before any missing
    argument."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. See `{self.prog} --help`.\n")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Suggest the nearest choice for a wrong one."""
        choices = list(map(str, action.choices or ()))
        if action.choices is None or value in action.choices:
            return
        kind = "command" if action.dest == argparse.SUPPRESS else "choice"
        if kind == "command" and str(value).startswith("-"):
            self.error(
                "options come after the command, as in simforge generate --seed 1"
            )
        near = SYNONYMS.get(str(value))
        hint = f"; did you mean {near!r}?" if near else suggest(str(value), choices)
        self.error(f"there is no {kind} {value!r}{hint}".rstrip("?"))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._subparsers is None:
            for word in args or ():
                option = word.split("=")[0]
                if (
                    option.startswith("--")
                    and option != "--"
                    and option not in self._option_string_actions
                ):
                    known = [
                        name for name in self._option_string_actions if name[1] == "-"
                    ]
                    self.error(
                        f"there is no option {option}{suggest(option, known)}".rstrip(
                            "?"
                        )
                    )
                if option in SYNONYMS and option not in self._option_string_actions:
                    self.error(
                        f"there is no option {option}; did you mean {SYNONYMS[option]}"
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
