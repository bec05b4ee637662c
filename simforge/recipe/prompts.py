"""Prompts: the first messages of dialogues that people do not open themselves.

A source is a set that ships with SimForge (`pipelines/prompts/*.jsonl`, by name) or the user's
own JSON lines, JSON, CSV or Parquet file, whose columns are mapped by name. Mistakes in a file are
reported before a run starts.

    load("everyday-instructions", {"text": "text"})[0].text
    load("mine.csv", {"text": "question"})
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from simforge import catalog
from simforge.catalog import records
from simforge.errors import NotFound, SourceError
from simforge.identity import digest
from simforge.types import Prompt

LICENCE = "Apache-2.0"
"Licence of the sets that ship with SimForge."


def load(source: str, columns: dict[Any, str]) -> list[Prompt]:
    """The prompts of a source, in its order, without exact duplicates. Raises `SourceError`,
    `NotFound`."""
    path = _path(source)
    table = records.read_table(path, source, as_text=True)
    if not table.height:
        raise SourceError(f"{source} is empty: a prompt file needs at least one row.")
    column_names = list(columns.values())
    present = table.columns
    for role, column in columns.items():
        if not records.has_column(table, column):
            raise SourceError(
                f"{source} has no column {column!r}; its columns are: "
                f"{', '.join(present)}. Say which one holds the {role} with --set "
                f"prompts.columns.{role}=COLUMN."
            )
    prompts_by_text: dict[str, Prompt] = {}
    values = [records.column(table, name, source) for name in column_names]
    for number, row in enumerate(zip(*values, strict=True), start=1):
        parts = [
            _text(value, column, number, source)
            for value, column in zip(row, column_names, strict=True)
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
            hint = "Or give the path of a .jsonl, .json, .csv or .parquet file."
            raise NotFound("prompt source", source, [*names(), "persona"], hint)
        return catalog.data_file("pipelines", f"prompts/{source}.jsonl")
    path = Path(source).expanduser()
    if not records.format_of(path):
        raise SourceError(
            f"{source}: prompts come as {records.accepted_formats()}, not "
            f"{path.suffix or 'a file without suffix'}."
        )
    if not path.is_file():
        raise SourceError(f"there is no prompt file {source}.")
    return path


def _text(value: Any, column: str, number: int, source: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise SourceError(
            f"{source}: row {number}, column {column!r} holds {type(value).__name__}, not text."
        )
    return value.strip()
