"""Conditions on rows, such as `age >= 60 AND NOT (job = 'judge' OR city IN ('Rome', 'Oslo'))`.

Conditions come from packs, spaces and command lines. They have a small grammar of their own and
become polars expressions: there are no functions, no tables and no files in them, so a condition
can only look at the row in front of it.

    condition := conjunction (OR conjunction)*
    conjunction := negation (AND negation)*
    negation := NOT negation | comparison
    comparison := sum [(= | != | <> | < | <= | > | >=) sum
                  | [NOT] IN (value, ...) | [NOT] BETWEEN sum AND sum | IS [NOT] NULL]
    sum := product ((+ | -) product)*       product := item ((* | / | %) item)*
    item := (condition) | column | "column" | 'text' | number | TRUE | FALSE | - value
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


MAX_CHARACTERS, MAX_PARTS, MAX_DEPTH = 2_000, 400, 20


_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d{1,3})?)"""
    r"""|'(?P<text>(?:[^']|'')*)'|"(?P<quoted>[^"]+)"|(?P<word>[^\W\d][\w.]*)"""
    r"""|(?P<sign><=|>=|<>|!=|==|[=<>+\-*/%(),]))"""
)


_KEYWORDS = ("AND", "OR", "NOT", "IN", "IS", "NULL", "TRUE", "FALSE", "BETWEEN")


_COMPARISONS = {
    "=": "eq",
    "==": "eq",
    "!=": "ne",
    "<>": "ne",
    "<": "lt",
    "<=": "le",
    ">": "gt",
    ">=": "ge",
}


Part = tuple[str, str]
"Kind of a part of a condition (`name`, `text`, `number`, `keyword`, `sign`, `end`), and its text."


@dataclass(frozen=True, slots=True)
class RowCondition:
    """A parsed condition."""

    expression: pl.Expr
    columns: tuple[str, ...]
    "Columns that it reads, in order."
    compared: tuple[tuple[str, str], ...]
    "Columns that are compared with a text, each with the text."


def parse_condition(text: str) -> RowCondition:
    """Parse a condition. Raises `ValueError` with what is wrong."""
    parser = _Parser(_parts_of(text))
    expression = parser.condition()
    kind, rest = parser.next_part
    if kind != "end":
        raise ValueError(f"{rest!r} is not expected here")
    return RowCondition(
        expression, tuple(dict.fromkeys(parser.columns)), tuple(parser.compared)
    )


def _parts_of(text: str) -> list[Part]:
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it is longer than {MAX_CHARACTERS} characters")
    parts: list[Part] = []
    place, text = 0, text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ValueError(f"{text[place : place + 12].strip()!r} is not understood")
        kind = str(match.lastgroup)
        word = match[kind]
        if kind == "text":
            parts.append(("text", word.replace("''", "'")))
        elif kind == "word" and word.upper() in _KEYWORDS:
            parts.append(("keyword", word.upper()))
        else:
            parts.append(("name" if kind in ("word", "quoted") else kind, word))
        place = match.end()
    if len(parts) > MAX_PARTS:
        raise ValueError(f"it has more than {MAX_PARTS} parts")
    return parts


class _Parser:
    """Reads a condition from left to right, a method for each rule of the grammar."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts, self._place, self._depth = parts, 0, 0
        self.columns: list[str] = []
        self.compared: list[tuple[str, str]] = []

    @property
    def next_part(self) -> Part:
        return self._part(self._place)

    def _part(self, place: int) -> Part:
        return self._parts[place] if place < len(self._parts) else ("end", "the end")

    def _take(self, kind: str, *texts: str) -> str | None:
        next_kind, text = self.next_part
        if next_kind != kind or text not in texts:
            return None
        self._place += 1
        return text

    def _require(self, kind: str, text: str) -> None:
        if self._take(kind, text) is None:
            raise ValueError(f"{text!r} is missing before {self.next_part[1]!r}")

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")

    def condition(self) -> pl.Expr:
        expression = self._conjunction()
        while self._take("keyword", "OR"):
            expression = expression | self._conjunction()
        return expression

    def _conjunction(self) -> pl.Expr:
        expression = self._negation()
        while self._take("keyword", "AND"):
            expression = expression & self._negation()
        return expression

    def _negation(self) -> pl.Expr:
        if not self._take("keyword", "NOT"):
            return self._comparison()
        self._enter()
        expression = ~self._negation()
        self._depth -= 1
        return expression

    def _comparison(self) -> pl.Expr:
        start = self._place
        left = self._sum()
        sign = self._take("sign", *_COMPARISONS)
        if sign is not None:
            second = self._place
            right = self._sum()
            self._note_text(self._part(start), self._part(second))
            self._note_text(self._part(second), self._part(start))
            expression: pl.Expr = getattr(left, _COMPARISONS[sign])(right)
            return expression
        is_negated = self._take("keyword", "NOT") is not None
        if self._take("keyword", "IN"):
            values = self._values()
            for value in values:
                if isinstance(value, str):
                    self._note_text(self._part(start), ("text", value))
            expression = left.is_in(values)
        elif self._take("keyword", "BETWEEN"):
            low = self._sum()
            self._require("keyword", "AND")
            expression = left.is_between(low, self._sum())
        elif is_negated:
            raise ValueError("NOT is followed by IN or BETWEEN here")
        elif self._take("keyword", "IS"):
            is_negated = self._take("keyword", "NOT") is not None
            self._require("keyword", "NULL")
            expression = left.is_null()
        else:
            return left
        return ~expression if is_negated else expression

    def _note_text(self, first: Part, second: Part) -> None:
        if first[0] == "name" and second[0] == "text":
            self.compared.append((first[1], second[1]))

    def _values(self) -> list[Any]:
        self._require("sign", "(")
        values = [self._value()]
        while self._take("sign", ","):
            values.append(self._value())
        self._require("sign", ")")
        if len({isinstance(value, str) for value in values}) > 1:
            raise ValueError("texts and numbers are mixed in IN")
        return values

    def _value(self) -> Any:
        kind, text = self.next_part
        self._place += 1
        if kind == "text":
            return text
        if kind == "number":
            return float(text) if re.search("[.eE]", text) else _whole_number(text)
        if (kind, text) == ("sign", "-"):
            value = self._value()
            if isinstance(value, int | float) and not isinstance(value, bool):
                return -value
        if kind == "keyword" and text in ("TRUE", "FALSE"):
            return text == "TRUE"
        raise ValueError(f"a value is missing before {text!r}")

    def _sum(self) -> pl.Expr:
        expression = self._product()
        while sign := self._take("sign", "+", "-"):
            other = self._product()
            expression = expression + other if sign == "+" else expression - other
        return expression

    def _product(self) -> pl.Expr:
        expression = self._item()
        while sign := self._take("sign", "*", "/", "%"):
            other = self._item()
            if sign == "*":
                expression = expression * other
            elif sign == "/":
                expression = expression / other
            else:
                expression = expression % other
        return expression

    def _item(self) -> pl.Expr:
        import polars as pl

        if self._take("sign", "("):
            self._enter()
            expression = self.condition()
            self._require("sign", ")")
            self._depth -= 1
            return expression
        kind, text = self.next_part
        if kind != "name":
            return pl.lit(self._value())
        self._place += 1
        if self.next_part == ("sign", "("):
            raise ValueError(
                f"there are no functions such as {text}() in a condition: it looks at one row only"
            )
        self.columns.append(text)
        return pl.col(text)


def _whole_number(text: str) -> int:
    if len(text) > 18:
        raise ValueError(f"the number {text[:12]}... is too large")
    return int(text)
