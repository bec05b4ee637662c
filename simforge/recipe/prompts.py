"""Prompts: the first messages of dialogues that people do not open themselves.

A source is a set that ships with SimForge (`pipelines/prompts/*.jsonl`, by name) or the user's
own JSONL, CSV or Parquet file, whose columns are mapped by name. Mistakes in a file are
reported before a run starts.

    load("everyday-instructions", {"text": "text"})[0].text
    load("mine.csv", {"text": "question"})
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simforge import catalog
from simforge.errors import NotFound, SourceError
from simforge.identity import digest
from simforge.types import JsonObject, Prompt

if TYPE_CHECKING:
    import polars as pl


SUFFIXES = (".jsonl", ".csv", ".parquet")


LICENCE = "Apache-2.0"
"Licence of the sets that ship with SimForge."


def load(source: str, columns: dict[Any, str]) -> list[Prompt]:
    """The prompts of a source, in its order, without exact duplicates. Raises `SourceError`,
    `NotFound`."""
    path = _path(source)
    rows = _rows(path, source)
    if not rows:
        raise SourceError(f"{source} is empty: a prompt file needs at least one row.")
    column_names = list(columns.values())
    present = list(dict.fromkeys(key for row in rows[:100] for key in row))
    for role, column in columns.items():
        if column not in present:
            raise SourceError(
                f"{source} has no column {column!r}; its columns are: "
                f"{', '.join(present)}. Say which one holds the {role} with --set "
                f"prompts.columns.{role}=COLUMN."
            )
    prompts_by_text: dict[str, Prompt] = {}
    for number, row in enumerate(rows, start=1):
        parts = [
            _text(row.get(column), column, number, source) for column in column_names
        ]
        if not parts[0]:
            raise SourceError(
                f"{source}: row {number} has no text in column {column_names[0]!r}."
            )
        text = "\n\n".join(part for part in parts if part)
        prompts_by_text.setdefault(text, Prompt(id=digest(["prompt", text]), text=text))
    return list(prompts_by_text.values())


def names() -> list[str]:
    """The sets that ship with SimForge."""
    return sorted(
        path.stem for path in catalog.data_file("pipelines", "prompts").glob("*.jsonl")
    )


def _path(source: str) -> Path:
    if not catalog.is_path(source):
        if source not in names():
            hint = "Or give the path of a .jsonl, .csv or .parquet file."
            raise NotFound("prompt source", source, [*names(), "persona"], hint)
        return catalog.data_file("pipelines", f"prompts/{source}.jsonl")
    path = Path(source).expanduser()
    if path.suffix not in SUFFIXES:
        raise SourceError(
            f"{source}: prompts come as {', '.join(SUFFIXES)}, not "
            f"{path.suffix or 'a file without suffix'}."
        )
    if not path.is_file():
        raise SourceError(f"there is no prompt file {source}.")
    return path


def _rows(path: Path, source: str) -> list[JsonObject]:
    try:
        if path.stat().st_size == 0:
            return []
        return (
            _json_lines(path, source)
            if path.suffix == ".jsonl"
            else _frame(path, source).to_dicts()
        )
    except (OSError, UnicodeDecodeError) as problem:
        raise SourceError(f"{source} cannot be read: {problem}.") from None


def _json_lines(path: Path, source: str) -> list[JsonObject]:
    rows = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as problem:
                raise SourceError(
                    f"{source}, line {number}: broken JSON: {problem}."
                ) from None
            if not isinstance(row, dict):
                raise SourceError(
                    f"{source}, line {number}: must be an object with named columns, "
                    f"not {type(row).__name__}."
                )
            rows.append(row)
    return rows


def _frame(path: Path, source: str) -> pl.DataFrame:
    import polars as pl

    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        return pl.read_csv(path, infer_schema=False)
    except pl.exceptions.PolarsError as problem:
        raise SourceError(
            f"{source} cannot be read as {path.suffix[1:].upper()}: {str(problem).splitlines()[0]}."
        ) from None


def _text(value: Any, column: str, number: int, source: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise SourceError(
            f"{source}: row {number}, column {column!r} holds {type(value).__name__}, not text."
        )
    return value.strip()
