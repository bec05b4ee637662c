"""Loading: a dataset's tables in Python, wherever it is.

    simforge.scan("OUT", "personas")                        -> polars.LazyFrame
    simforge.load("OWNER/NAME@1.2.0", split="train")        -> datasets.Dataset

A source is a run's folder, a URL that fsspec knows (`s3://bucket/run`), or a version on the Hub (`OWNER/NAME@1.2.0`,
`@latest`) or at a URL (`s3://bucket/run@1.2.0`), told apart by how it is written. Without SimForge,
`datasets.load_dataset` reads the same files.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simforge import __version__, hub, stores
from simforge.errors import NotFound, SourceError, UsageError, nearest
from simforge.identity import digest
from simforge.records import TABLES

if TYPE_CHECKING:
    import datasets
    import polars as pl
    import pyarrow as pa

SPLITS = ("train", "validation", "test_personas", "test_prompts")
"Who and what is held out: nobody; people, while tuning; people; prompts."
BATCH = 5_000
"Rows read at a time where not all of them are held."


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
        place = stores.located(str(source)).commit if stores.is_version(str(source)) else str(source)
        return _at_url(place, table, pattern, split)
    folder = hub.pull(str(source), tables=(table,), split=split) if hub.is_version(str(source)) else Path(source)
    files = sorted((folder / "data" / table).glob(pattern))
    if not files:
        raise _nothing(source, table, split, sorted((folder / "data" / table).glob("*.parquet")))
    return pl.scan_parquet(files)


def manifest(source: str | Path) -> dict[str, Any]:
    """What is known of how a dataset was made. Raises `SourceError`, `HubError`."""
    import fsspec

    if hub.is_version(str(source)):
        return hub.located(str(source)).manifest
    if stores.is_version(str(source)):
        return stores.located(str(source)).manifest
    place = f"{str(source).rstrip('/')}/manifest.json"
    try:
        with fsspec.open(place, encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
    except (OSError, ValueError, ImportError):
        there = "://" in str(source) or Path(source).exists()
        why = "there is no manifest.json in it" if there else "there is no such folder"
        raise SourceError(f"{source} is no dataset: {why}.{_hint(source)}") from None
    return found


def audit(source: str | Path) -> dict[str, Any] | None:
    """The figures of a dataset's audit, where it has been audited. Raises `HubError`, `SourceError`."""
    import fsspec

    if hub.is_version(str(source)):
        place = str(hub.pull(str(source), tables=("discards",)))
    else:
        place = stores.located(str(source)).commit if stores.is_version(str(source)) else str(source)
    try:
        with fsspec.open(f"{place.rstrip('/')}/audit.json", encoding="utf-8") as file:
            found: dict[str, Any] = json.load(file)
    except (OSError, ValueError):
        return None
    return found


def load(
    source: str | Path,
    table: str = "preferences",
    split: str | None = "train",
    where: str | None = None,
    view: str | None = None,
    streaming: bool = False,
    system: bool = False,
) -> datasets.Dataset | datasets.IterableDataset:
    """A table as the `datasets` library has it, or a view of the dataset (`view="trl_sft"`), with the wish before each
    prompt where `system` says so.

    `where` is an SQL condition over the table's columns, of a view over those of the pairs that it is made from
    (`label = 'judge'`). The rows are mapped from a file in that library's cache, which is made once; with `streaming`
    they are read as they are asked for and no file is made (a version on the Hub is fetched first).

    Raises what `scan` raises, and `UsageError` where the library is missing or the condition is none.
    """
    try:
        import datasets
    except ImportError:
        raise UsageError("simforge.load gives a datasets.Dataset: install datasets, or use simforge.scan.") from None
    if view is not None:
        from simforge import views

        if table != "preferences":
            raise UsageError(f"a view is made of several tables: give view={view!r} or table={table!r}, not both.")
        frame = views.rows(source, view, split, system, where)
    else:
        frame = filtered(scan(source, table, split), where)
    schema = _usual(frame.limit(0).collect().to_arrow().schema)
    if streaming:
        features = datasets.Features.from_arrow_schema(schema)
        return datasets.IterableDataset.from_generator(_rows, features=features, gen_kwargs={"frame": frame})
    wanted = [_content(source), table, split, where, view, system, __version__]
    path = Path(datasets.config.HF_DATASETS_CACHE) / "simforge" / f"{digest(wanted)}.arrow"
    if not path.is_file():
        _keep(frame, schema, path)
    return datasets.Dataset.from_file(str(path))


@contextmanager
def readable(*sources: str | Path) -> Iterator[None]:
    """Turn what is said of spoilt files into a sentence."""
    import polars as pl

    try:
        yield
    except (pl.exceptions.ComputeError, pl.exceptions.SchemaError, OSError) as problem:
        said = str(problem).splitlines()[0][:200]
        raise SourceError(
            f"{' or '.join(map(str, sources))} cannot be read: {said}. simforge validate DIR says which file is spoilt."
        ) from None


def filtered(frame: pl.LazyFrame, where: str | None) -> pl.LazyFrame:
    """The rows that an SQL condition holds for. Raises `UsageError` where it is none over these columns."""
    import polars as pl

    if where is None:
        return frame
    try:
        found = frame.filter(pl.sql_expr(where))
        pl.DataFrame(schema=frame.collect_schema()).clear(1).filter(
            pl.sql_expr(where)
        )  # its types are seen with rows only
    except pl.exceptions.PolarsError as problem:
        said = str(problem).splitlines()[0].partition("; valid columns")[0]
        columns = ", ".join(frame.collect_schema().names())
        raise UsageError(
            f"where: {where!r} does not fit: {said}; the columns are: {columns}. Texts stand in single quotes."
        ) from None
    return found


def _rows(frame: pl.LazyFrame) -> Iterator[dict[str, Any]]:
    for batch in frame.collect_batches(chunk_size=BATCH, lazy=True, engine="streaming"):
        yield from batch.iter_rows(named=True)


def _keep(frame: pl.LazyFrame, schema: pa.Schema, path: Path) -> None:
    """Write rows as the stream of Arrow batches that `datasets` maps, whole or not at all."""
    import pyarrow as pa

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        with pa.OSFile(str(made), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for batch in frame.collect_batches(chunk_size=BATCH, lazy=True, engine="streaming"):
                writer.write_table(batch.to_arrow().cast(schema))
        made.replace(path)


def _content(source: str | Path) -> Any:
    """What decides the rows of a source: of a version that it is this one; of a folder or a URL, which may be written
    to, its files with their sizes and times."""
    import fsspec

    found = manifest(source)
    if hub.is_version(str(source)) or stores.is_version(str(source)):
        return [found["digest"], {name: about["sha256"] for name, about in found["files"].items()}]
    system, root = fsspec.core.url_to_fs(str(source))
    about = (system.info(path) for path in system.find(f"{root.rstrip('/')}/data"))
    return [
        [one["name"], one["size"], str(one.get("mtime") or one.get("LastModified") or one.get("ETag"))] for one in about
    ]


def _usual(schema: pa.Schema) -> pa.Schema:
    """A schema of polars with the types that Parquet files are read with."""
    import pyarrow as pa

    return pa.schema([field.with_type(_plain(field.type)) for field in schema])


def _plain(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _plain(field.type)) for field in kind])
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


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
    return SourceError(f"{source} is no dataset: there is no data/{table} in it.{_hint(source)}")


def _hint(source: str | Path) -> str:
    """What a source may have been meant for."""
    said = str(source)
    if "@" in said or Path(said).exists():
        return ""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", said) or "://" in said:
        return f" Say which version it is, as in {said}@1.2.0 or {said}@latest; simforge versions {said} lists them."
    return " A version is written OWNER/NAME@1.2.0, or s3://bucket/NAME@1.2.0."
