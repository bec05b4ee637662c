"""Loading: a dataset's tables in Python, wherever it is.

    simforge.scan("OUT", "personas")                        -> polars.LazyFrame
    simforge.load("OWNER/NAME@1.2.0", split="train")        -> datasets.Dataset

A source is a run's folder, a URL that fsspec knows (`s3://bucket/run`), or a version on the Hub (`OWNER/NAME@1.2.0`,
`@latest`), told apart by how it is written. Without SimForge, `datasets.load_dataset` reads the same files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simforge import hub
from simforge.errors import NotFound, SourceError, UsageError, nearest
from simforge.records import TABLES

if TYPE_CHECKING:
    import datasets
    import polars as pl

SPLITS = ("train", "validation", "test_personas", "test_prompts")
"Who and what is held out: nobody; people, while tuning; people; prompts."


def scan(source: str | Path, table: str = "preferences", split: str | None = None) -> pl.LazyFrame:
    """A table, lazily; `split` is one of its splits, by default all of them.

    Raises `NotFound` for a table or split that there is none of, `SourceError` where there is no such dataset, and
    `HubError`.
    """
    import polars as pl

    if table not in TABLES:
        raise NotFound("table", table, TABLES)
    if split is not None and split not in SPLITS:
        raise NotFound("split", split, SPLITS)
    pattern = f"{split or '*'}-*.parquet"
    if "://" in str(source):
        return _at_url(str(source), table, pattern, split)
    folder = hub.pull(str(source), tables=(table,)) if hub.is_version(str(source)) else Path(source)
    files = sorted((folder / "data" / table).glob(pattern))
    if not files:
        raise _nothing(source, table, split, sorted((folder / "data" / table).glob("*.parquet")))
    return pl.scan_parquet(files)


def manifest(source: str | Path) -> dict[str, Any]:
    """What is known of how a dataset was made. Raises `SourceError`, `HubError`."""
    import fsspec

    if hub.is_version(str(source)):
        return hub.located(str(source)).manifest
    place = f"{str(source).rstrip('/')}/manifest.json"
    try:
        with fsspec.open(place, encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
    except (OSError, ValueError, ImportError):
        raise SourceError(f"{source} is no dataset: there is no manifest.json in it.") from None
    return found


def load(
    source: str | Path,
    table: str = "preferences",
    split: str | None = "train",
    where: str | None = None,
    view: str | None = None,
) -> datasets.Dataset:
    """A table as the `datasets` library has it, or a view of the dataset (`view="trl_sft"`).

    `where` is an SQL condition over its columns (`label = 'judge'`).

    Raises what `scan` raises, and `UsageError` where the library is missing or the condition is none.
    """
    import polars as pl

    try:
        import datasets
    except ImportError:
        raise UsageError("simforge.load gives a datasets.Dataset: install datasets, or use simforge.scan.") from None
    if view is not None:
        from simforge import views

        frame = views.rows(source, view, split)
    else:
        frame = scan(source, table, split)
    columns = frame.collect_schema().names()
    if where is not None:
        try:
            frame = frame.filter(pl.sql_expr(where))
            frame.collect_schema()
        except pl.exceptions.PolarsError as problem:
            said = str(problem).splitlines()[0]
            raise UsageError(f"where: {where!r} does not fit: {said}; the columns are: {', '.join(columns)}.") from None
    return datasets.Dataset(frame.collect().to_arrow())


def _at_url(source: str, table: str, pattern: str, split: str | None) -> pl.LazyFrame:
    import fsspec
    import polars as pl
    import pyarrow.dataset as ds

    try:
        system, root = fsspec.core.url_to_fs(source)
        files = sorted(system.glob(f"{root.rstrip('/')}/data/{table}/{pattern}"))
    except (OSError, ValueError, ImportError) as problem:
        raise SourceError(f"{source} cannot be read: {problem}.") from None
    if not files:
        raise _nothing(source, table, split, [])
    found: Any = ds.dataset(files, filesystem=system, format="parquet")
    return pl.scan_pyarrow_dataset(found)


def _nothing(source: str | Path, table: str, split: str | None, files: list[Path]) -> SourceError:
    if files:
        there = sorted({path.name.partition("-")[0] for path in files})
        return SourceError(f"{source}: {table} has no split {split!r}{nearest(str(split), there)}.")
    hint = "" if "@" in str(source) else " A version on the Hub is written OWNER/NAME@1.2.0."
    return SourceError(f"{source} is no dataset: there is no data/{table} in it.{hint}")
