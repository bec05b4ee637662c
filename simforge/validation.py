"""Validation: whether a folder is the dataset that it says it is.

    problems(Path("OUT"))     -> a sentence for each thing that is wrong; none for a sound one

Files against the manifest, columns against the declared schemas, rows against the JSON Schemas in `schemas/`, keys from
table to table, and splits against each other. The columns' types hold for every row; the JSON Schemas, which say no
more, are tried on the first rows of each file.
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

from simforge import personas, records
from simforge.errors import SimForgeError, UsageError, nearest
from simforge.identity import file_sha256
from simforge.schemas import row_schema
from simforge.types import Choice, Outcome, Told

TRIED = 200
"Rows of each file that are held against the JSON Schema."
SHOWN = 3
"Values that a sentence names."
KEYS = (
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
"Column of a table that names rows of another by their `id`."
WORDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("preferences", "label"): ("construction", "judge", "scorers", "tie"),
    ("judgments", "told"): tuple(Told),
    ("judgments", "outcome"): tuple(Outcome),
    ("judgments", "verdict_ab"): tuple(Choice),
    ("judgments", "verdict_ba"): tuple(Choice),
}
"Columns that hold one of a few words."
PEOPLE = ("train", "validation", "test_personas")
"Splits that share nobody."


def problems(folder: Path) -> list[str]:
    """What is wrong with a dataset's folder. Raises `UsageError` where there is none."""
    path = folder / "manifest.json"
    if not path.is_file():
        hint = " A version is pulled first: simforge pull." if "@" in str(folder) else ""
        raise UsageError(f"{folder} is no finished run: there is no manifest.json in it.{hint}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        named = dict(manifest["files"])
    except (ValueError, KeyError, TypeError) as problem:
        return [f"manifest.json cannot be read: {problem}"]
    found = list(_files(folder, named))
    if found:  # what is said of broken files is not worth reading
        return found
    found = [said for table in records.TABLES for said in _columns(folder, table, manifest.get("withheld", {}))]
    if found:
        return found
    return [*_keys(folder), *_words(folder), *_texts(folder), *_splits(folder)]


def _files(folder: Path, named: dict[str, dict[str, Any]]) -> Iterator[str]:
    there = {path.relative_to(folder).as_posix() for path in folder.glob("data/**/*") if path.is_file()}
    for name in sorted({*named} - there):
        yield f"{name} is missing"
    for name in sorted(there - {*named}):
        yield f"{name} is not in the manifest"
    for name in sorted(there & {*named}):
        if file_sha256(folder / name) != named[name]["sha256"]:
            yield f"{name} is not the file that the manifest describes (another sha256)"
        elif pq.read_metadata(folder / name).num_rows != named[name]["rows"]:
            yield f"{name} has another number of rows than the manifest says"


def _columns(folder: Path, table: str, withheld: dict[str, list[str]]) -> Iterator[str]:
    for path in sorted((folder / "data" / table).glob("*.parquet")):
        schema, name = pq.read_schema(path), path.relative_to(folder)
        try:
            wanted = records.SCHEMAS[table] if table != "personas" else _of_people(schema)
        except (SimForgeError, ValueError, KeyError) as problem:
            yield f"{name}: the pack in its metadata cannot be read: {problem}"
            continue
        hidden = {*withheld.get(table, ())}
        types = {field.name: field.type for field in wanted if field.name not in hidden}
        for column in schema.names:
            if column not in types:
                yield f"{name}: there is no column {column!r} in {table}{nearest(column, types)}"
        for column, kind in types.items():
            if column not in schema.names:
                yield f"{name}: the column {column!r} is missing"
            elif schema.field(column).type != kind:
                yield f"{name}: {column} is {schema.field(column).type}, and has to be {kind}"
        if [*schema.names] == [*types]:
            yield from _rows(path, str(name), row_schema(table, pa.schema([wanted.field(one) for one in types])))


def _of_people(schema: pa.Schema) -> pa.Schema:
    """The columns of people, as the pack inside the file has them."""
    meta = (schema.metadata or {})[personas.META.encode()].decode()
    return records.personas_schema(personas.Pack.model_validate(json.loads(meta)["pack"]))


def _rows(path: Path, name: str, schema: dict[str, Any]) -> Iterator[str]:
    validator = Draft202012Validator(schema)
    batch = next(pq.ParquetFile(path).iter_batches(TRIED), None)
    for number, row in enumerate(batch.to_pylist() if batch is not None else []):
        plain = {key: one.isoformat() if isinstance(one, datetime.date) else one for key, one in row.items()}
        problem = next(iter(validator.iter_errors(plain)), None)
        if problem is not None:
            where = ".".join(map(str, problem.absolute_path))
            yield f"{name}: row {number}: {where}: {problem.message[:160]}"
            return


def _table(folder: Path, table: str) -> pl.LazyFrame:
    return pl.scan_parquet(folder / "data" / table / "*.parquet")


def _keys(folder: Path) -> Iterator[str]:
    for table in ("personas", "dialogues", "candidates", "judgments", "preferences"):
        twice = _table(folder, table).group_by("id").len().filter(pl.col("len") > 1).select("id").collect()["id"]
        if len(twice):
            yield f"{table}: {len(twice)} ids stand in several rows, such as {_some(twice)}"
    for table, column, other in KEYS:
        known = _table(folder, other).select("id")
        used = _table(folder, table).select(column).drop_nulls().unique()
        lost = used.join(known, left_on=column, right_on="id", how="anti").collect()[column]
        if len(lost):
            yield f"{table}.{column}: {len(lost)} values are in no row of {other}, such as {_some(lost)}"


def _words(folder: Path) -> Iterator[str]:
    for (table, column), known in WORDS.items():
        said = _table(folder, table).select(pl.col(column).drop_nulls().unique()).collect()[column]
        strange = [one for one in said if one not in known]
        if strange:
            yield f"{table}.{column}: {_some(strange)} is none of: {', '.join(known)}"


def _texts(folder: Path) -> Iterator[str]:
    pairs = _table(folder, "preferences")
    same = pairs.filter(pl.col("chosen") == pl.col("rejected")).select("id").collect()["id"]
    if len(same):
        yield f"preferences: {len(same)} pairs have the same chosen and rejected, such as {_some(same)}"
    last = pl.col("prompt").list.last().struct.field("role") != "user"
    first = pl.any_horizontal(
        pl.col(side).list.first().struct.field("role") != "assistant" for side in ("chosen", "rejected")
    )
    strange = pairs.filter(last | first).select("id").collect()["id"]
    if len(strange):
        yield f"preferences: {len(strange)} pairs are not a person's message and two answers: {_some(strange)}"


def _splits(folder: Path) -> Iterator[str]:
    for table in ("preferences", "dialogues", "judgments", "discards"):
        seen: dict[str, str] = {}
        for split in PEOPLE:
            for path in (folder / "data" / table).glob(f"{split}-*.parquet"):
                people = pl.scan_parquet(path).select(pl.col("persona_id").unique()).collect()["persona_id"]
                leaked = [one for one in people if seen.setdefault(one, split) != split]
                if leaked:
                    yield f"{table}: {len(leaked)} people of {split} are in {seen[leaked[0]]} too: {_some(leaked)}"
    prompts: dict[str, set[str]] = {}
    for split in ("train", "validation", "test_prompts"):
        for path in (folder / "data" / "dialogues").glob(f"{split}-*.parquet"):
            known = pl.read_parquet(path, columns=["prompt_id"])["prompt_id"].drop_nulls()
            prompts.setdefault(split, set()).update(known)
    for split in ("train", "validation"):
        both = prompts.get("test_prompts", set()) & prompts.get(split, set())
        if both:
            yield f"dialogues: {len(both)} prompts of test_prompts are in {split} too, such as {_some(sorted(both))}"


def _some(values: Any) -> str:
    shown = [repr(one) for one in list(values)[:SHOWN]]
    return ", ".join(shown) + (", ..." if len(values) > SHOWN else "")
