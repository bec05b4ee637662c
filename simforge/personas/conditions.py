"""Conditions of a persona pack on people, as expressions over the columns of the cast."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from simforge.catalog.documents import KeyPath as KeyPath

if TYPE_CHECKING:
    import polars as pl


def sql_condition(text: str) -> pl.Expr:
    """Parse a constraint as an expression over columns. Raises `ValueError` if it is not
    SQL."""
    import polars as pl

    try:
        return pl.sql_expr(text)
    except pl.exceptions.PolarsError as problem:
        raise ValueError(str(problem).splitlines()[0]) from None


def compared_strings(text: str) -> Iterator[tuple[str, str]]:
    """Yield the (column, string) pairs that a condition compares, so that misspelt values
    can be found."""
    for name, word in re.findall(r"(\w+)\s*(?:=|!=|<>)\s*'((?:[^']|'')*)'", text):
        yield name, word.replace("''", "'")
    for name, words in re.findall(
        r"(\w+)\s+(?:NOT\s+)?IN\s*\(([^()]*)\)", text, re.IGNORECASE
    ):
        for word in re.findall(r"'((?:[^']|'')*)'", words):
            yield name, word.replace("''", "'")


def is_per_person(text: str) -> bool:
    """Return whether a condition looks at one person only, without aggregates or window
    functions."""
    return not re.search(
        r"\b(OVER|AVG|SUM|COUNT|MIN|MAX|MEDIAN|STDDEV|STDEV|VARIANCE|FIRST|LAST)\s*\(",
        text,
        re.I,
    )
