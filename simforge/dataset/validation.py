"""Validation of a dataset folder against its own manifest and schemas.

    problems(Path("OUT"))     -> a sentence for each problem; empty for a valid dataset

Checked are files against the manifest, columns against the declared schemas, rows against the
JSON Schemas in `schemas/`, keys between tables, and overlap between splits. Column types are
checked for every row; the JSON Schemas, which are no stricter, are tested on the first rows of
each file.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from jsonschema import Draft202012Validator

from simforge.catalog import records
from simforge.dataset import tables
from simforge.dataset.manifest import FileEntry, read_manifest
from simforge.dataset.schemas import row_schema
from simforge.errors import SimForgeError, SourceError, UsageError, suggest
from simforge.identity import file_sha256
from simforge.personas.cast import PACK_METADATA_KEY
from simforge.personas.pack import Pack
from simforge.types import Choice, JsonObject, Outcome, ProfileShown

SCHEMA_ROWS = 200
"Number of rows of each file that are checked against the JSON Schema."


MAX_EXAMPLES = 3
"Maximum number of example values in a message."


FOREIGN_KEYS = (
    ("preferences", "persona_id", "personas"),
    ("preferences", "dialogue_id", "dialogues"),
    ("preferences", "chosen_id", "candidates"),
    ("preferences", "rejected_id", "candidates"),
    ("preferences", "judgment_id", "judgments"),
    ("dialogues", "persona_id", "personas"),
    ("dialogues", "parent", "dialogues"),
    ("turns", "dialogue_id", "dialogues"),
    ("turns", "parent", "candidates"),
    ("candidates", "dialogue_id", "dialogues"),
    ("candidates", "parent", "candidates"),
    ("judgments", "dialogue_id", "dialogues"),
    ("judgments", "persona_id", "personas"),
    ("judgments", "a", "candidates"),
    ("judgments", "b", "candidates"),
    ("discards", "dialogue_id", "dialogues"),
    ("discards", "persona_id", "personas"),
)
"Foreign keys: a column of a table, and the table whose `id` it refers to."


ALLOWED_VALUES: dict[tuple[str, str], tuple[str, ...]] = {
    ("preferences", "label"): ("construction", "judge", "scorers", "tie"),
    ("judgments", "profile_shown"): tuple(ProfileShown),
    ("judgments", "outcome"): tuple(Outcome),
    ("judgments", "verdict_ab"): tuple(Choice),
    ("judgments", "verdict_ba"): tuple(Choice),
}
"Columns with a fixed set of values."


PERSON_SPLITS = ("train", "validation", "test_personas")
"Splits that have no people in common."


def problems(folder: Path) -> list[str]:
    """Describe what is wrong with a dataset folder. Raises `UsageError` if it has no
    manifest."""
    path = folder / "manifest.json"
    if not path.is_file():
        hint = (
            " To validate a published version, fetch it first with simforge pull."
            if "@" in str(folder)
            else ""
        )
        raise UsageError(
            f"{folder} is not a finished run: there is no manifest.json in it.{hint}"
        )
    try:
        manifest = read_manifest(folder)
    except SourceError as problem:
        return [str(problem)]
    errors = list(_check_files(folder, manifest["files"]))
    if errors:  # further checks on broken files would give misleading results
        return errors
    errors = [
        message
        for table in tables.TABLES
        for message in _check_columns(folder, table, manifest.get("withheld", {}))
    ]
    if errors:
        return errors
    return [
        *_check_keys(folder),
        *_check_values(folder),
        *_check_texts(folder),
        *_check_splits(folder),
    ]


def _check_files(folder: Path, listed: dict[str, FileEntry]) -> Iterator[str]:
    present = {
        path.relative_to(folder).as_posix()
        for path in folder.glob("data/**/*")
        if path.is_file()
    }
    for name in sorted({*listed} - present):
        yield f"{name} is missing"
    for name in sorted(present - {*listed}):
        yield f"{name} is not in the manifest"
    for name in sorted(present & {*listed}):
        if file_sha256(folder / name) != listed[name]["sha256"]:
            yield f"{name} is not the file that the manifest describes (another sha256)"
            continue
        try:
            rows = pq.read_metadata(folder / name).num_rows
        except (pa.ArrowException, OSError) as problem:
            yield f"{name} is not a Parquet file: {str(problem).splitlines()[0][:200]}"
            continue
        if rows != listed[name]["rows"]:
            yield f"{name} has a different number of rows than the manifest says"


def _check_columns(
    folder: Path, table: str, withheld: dict[str, list[str]]
) -> Iterator[str]:
    for path in sorted((folder / "data" / table).glob("*.parquet")):
        schema, name = pq.read_schema(path), path.relative_to(folder)
        try:
            expected = (
                tables.SCHEMAS[table]
                if table != "personas"
                else _personas_schema_of(schema)
            )
        except (SimForgeError, ValueError, KeyError) as problem:
            yield f"{name}: the pack in its metadata cannot be read: {problem}"
            continue
        hidden = {*withheld.get(table, ())}
        types = {
            field.name: field.type for field in expected if field.name not in hidden
        }
        for column in schema.names:
            if column not in types:
                yield f"{name}: there is no column {column!r} in {table}{suggest(column, types)}"
        for column, kind in types.items():
            if column not in schema.names:
                yield f"{name}: the column {column!r} is missing"
            elif schema.field(column).type != kind:
                yield f"{name}: {column} is {schema.field(column).type}, but must be {kind}"
        if [*schema.names] == [*types]:
            yield from _check_rows(
                path,
                str(name),
                row_schema(
                    table,
                    pa.schema([expected.field(column_name) for column_name in types]),
                ),
            )


def _personas_schema_of(schema: pa.Schema) -> pa.Schema:
    """Schema of the personas table, built from the pack that is stored in the file."""
    meta = (schema.metadata or {})[PACK_METADATA_KEY.encode()].decode()
    return tables.personas_schema(Pack.model_validate(json.loads(meta)["pack"]))


def _check_rows(path: Path, name: str, schema: JsonObject) -> Iterator[str]:
    validator = Draft202012Validator(schema)
    batch = next(pq.ParquetFile(path).iter_batches(SCHEMA_ROWS), None)
    for number, row in enumerate(batch.to_pylist() if batch is not None else []):
        plain = {
            key: value.isoformat() if isinstance(value, datetime.date) else value
            for key, value in row.items()
        }
        problem = next(iter(validator.iter_errors(plain)), None)
        if problem is not None:
            where = ".".join(map(str, problem.absolute_path))
            yield f"{name}: row {number}: {where}: {problem.message[:160]}"
            return


def _scan(folder: Path, table: str) -> pl.LazyFrame:
    return records.scan_table(folder, table)


def _check_keys(folder: Path) -> Iterator[str]:
    for table in ("personas", "dialogues", "candidates", "judgments", "preferences"):
        duplicate_ids = (
            _scan(folder, table)
            .group_by("id")
            .len()
            .filter(pl.col("len") > 1)
            .select("id")
            .collect()["id"]
        )
        if len(duplicate_ids):
            yield (
                f"{table}: {len(duplicate_ids)} ids occur in more than one row, such as "
                f"{_examples(duplicate_ids)}"
            )
    for table, column, target in FOREIGN_KEYS:
        target_ids = _scan(folder, target).select("id")
        references = _scan(folder, table).select(column).drop_nulls().unique()
        dangling = references.join(
            target_ids, left_on=column, right_on="id", how="anti"
        ).collect()[column]
        if len(dangling):
            yield (
                f"{table}.{column}: {len(dangling)} values are in no row of {target}, "
                f"such as {_examples(dangling)}"
            )


def _check_values(folder: Path) -> Iterator[str]:
    for (table, column), allowed in ALLOWED_VALUES.items():
        values = (
            _scan(folder, table)
            .select(pl.col(column).drop_nulls().unique())
            .collect()[column]
        )
        unexpected = [value for value in values if value not in allowed]
        if unexpected:
            yield f"{table}.{column}: {_examples(unexpected)} is none of: {', '.join(allowed)}"


def _check_texts(folder: Path) -> Iterator[str]:
    pairs = _scan(folder, "preferences")
    identical = (
        pairs.filter(pl.col("chosen") == pl.col("rejected"))
        .select("id")
        .collect()["id"]
    )
    if len(identical):
        yield (
            f"preferences: {len(identical)} pairs have the same chosen and rejected, "
            f"such as {_examples(identical)}"
        )
    bad_prompt = pl.col("prompt").list.last().struct.field("role") != "user"
    bad_answer = pl.any_horizontal(
        pl.col(side).list.first().struct.field("role") != "assistant"
        for side in ("chosen", "rejected")
    )
    malformed = pairs.filter(bad_prompt | bad_answer).select("id").collect()["id"]
    if len(malformed):
        yield (
            f"preferences: {len(malformed)} pairs are not a user message and two "
            f"answers: {_examples(malformed)}"
        )


def _check_splits(folder: Path) -> Iterator[str]:
    for table in ("preferences", "dialogues", "judgments", "discards"):
        split_by_person: dict[str, str] = {}
        for split in PERSON_SPLITS:
            for path in (folder / "data" / table).glob(f"{split}-*.parquet"):
                people = (
                    records.scan_parquet([path])
                    .select(pl.col("persona_id").unique())
                    .collect()["persona_id"]
                )
                leaked = [
                    person
                    for person in people
                    if split_by_person.setdefault(person, split) != split
                ]
                if leaked:
                    yield (
                        f"{table}: {len(leaked)} people of {split} are in "
                        f"{split_by_person[leaked[0]]} too: {_examples(leaked)}"
                    )
    prompts: dict[str, set[str]] = {}
    for split in ("train", "validation", "test_prompts"):
        for path in (folder / "data" / "dialogues").glob(f"{split}-*.parquet"):
            prompt_ids = (
                records.scan_parquet([path])
                .select("prompt_id")
                .collect()["prompt_id"]
                .drop_nulls()
            )
            prompts.setdefault(split, set()).update(prompt_ids)
    for split in ("train", "validation"):
        shared = prompts.get("test_prompts", set()) & prompts.get(split, set())
        if shared:
            yield (
                f"dialogues: {len(shared)} prompts of test_prompts are in {split} too, "
                f"such as {_examples(sorted(shared))}"
            )


def _examples(values: Any) -> str:
    shown = [repr(value) for value in list(values)[:MAX_EXAMPLES]]
    return ", ".join(shown) + (", ..." if len(values) > MAX_EXAMPLES else "")
