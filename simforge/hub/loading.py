"""Access to a dataset's tables from Python, wherever it is stored.

    simforge.scan("OUT", "personas")                        -> polars.LazyFrame
    simforge.load("OWNER/NAME@1.2.0", split="train")        -> datasets.Dataset

A source is the folder of a run, a URL supported by fsspec (`s3://bucket/run`), or a version on
the Hub (`OWNER/NAME@1.2.0`, `@latest`) or at a URL (`s3://bucket/run@1.2.0`). The form of the
text decides which. Without SimForge, `datasets.load_dataset` reads the same files.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simforge import __version__
from simforge.catalog import files, records
from simforge.dataset.manifest import Manifest, parse_manifest
from simforge.dataset.tables import TABLES
from simforge.errors import NotFound, SourceError, UsageError, suggest
from simforge.hub import huggingface, urls
from simforge.identity import digest
from simforge.text.conditions import parse_condition
from simforge.types import JsonObject

if TYPE_CHECKING:
    import datasets
    import polars as pl
    import pyarrow as pa


SPLITS = ("train", "validation", "test_personas", "test_prompts")
"Splits: training, people held out for tuning, people held out for testing, prompts held out."


BATCH_ROWS = 5_000
"Number of rows read at a time when streaming."


def scan(
    source: str | Path, table: str = "preferences", split: str | None = None
) -> pl.LazyFrame:
    """Scan a table lazily; `split` is one of its splits, by default all of them.

    Raises `NotFound` for an unknown table or split, `SourceError` if the dataset does not
    exist, and `HubError`.
    """
    if table not in TABLES:
        raise NotFound("table", table, TABLES)
    if split is not None and split not in SPLITS:
        raise NotFound("split", split, SPLITS)
    pattern = f"{split or '*'}-*.parquet"
    if "://" in str(source):
        location = (
            urls.locate(str(source)).commit
            if urls.is_version(str(source))
            else str(source)
        )
        return _scan_url(location, table, pattern, split)
    folder = (
        huggingface.pull(str(source), tables=(table,), split=split)
        if huggingface.is_version(str(source))
        else Path(source)
    )
    paths = records.table_files(folder, table, split)
    if not paths:
        raise _missing_error(source, table, split, records.table_files(folder, table))
    return records.scan_parquet(paths)


def is_published(source: str) -> bool:
    """Return whether a source has the form of a published version, on the Hub or at a URL."""
    return huggingface.is_version(source) or urls.is_version(source)


@contextmanager
def fetched(reference: str, table: str) -> Iterator[Path]:
    """Fetch a table of a published version; its folder is there until the end of the `with`.
    Raises `UsageError`, `NotFound`, `HubError`, `SourceError`."""
    if huggingface.is_version(reference):
        yield huggingface.pull(reference, tables=(table,))
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield urls.pull(reference, Path(scratch), tables=(table,))


def manifest(source: str | Path) -> Manifest:
    """Read the manifest of a dataset. Raises `SourceError`, `HubError`."""
    import fsspec

    if huggingface.is_version(str(source)):
        return huggingface.locate(str(source)).manifest
    if urls.is_version(str(source)):
        return urls.locate(str(source)).manifest
    location = f"{str(source).rstrip('/')}/manifest.json"
    try:
        with fsspec.open(location, "rb") as file:
            text = file.read(files.MAX_JSON_BYTES)
    except (OSError, ValueError, ImportError):
        exists = "://" in str(source) or Path(source).exists()
        why = "there is no manifest.json in it" if exists else "there is no such folder"
        if (Path(source) / "work" / "run.json").is_file():
            raise SourceError(
                f"{source} is a run that is not finished: repeat the command that began it."
            ) from None
        raise SourceError(f"{source} is not a dataset: {why}.{_hint(source)}") from None
    return parse_manifest(text, location)


def audit(source: str | Path) -> JsonObject | None:
    """Read the figures of a dataset's audit; `None` if there is none. Raises `HubError`,
    `SourceError`."""
    import fsspec

    if huggingface.is_version(str(source)):
        location = str(huggingface.pull(str(source), tables=("discards",)))
    else:
        location = (
            urls.locate(str(source)).commit
            if urls.is_version(str(source))
            else str(source)
        )
    try:
        with fsspec.open(f"{location.rstrip('/')}/audit.json", "rb") as file:
            text = file.read(files.MAX_JSON_BYTES)
    except (OSError, ValueError):
        return None
    return files.parse_json_object(text, f"{location}/audit.json")


def to_dataset(
    frame: pl.LazyFrame, source: str | Path, request: Sequence[object], streaming: bool
) -> datasets.Dataset | datasets.IterableDataset:
    """Turn a lazy table into a `datasets` object.

    The rows are memory-mapped from a file in the cache of `datasets`, which is written once
    for each content of the source and each `request` (what was selected from it). With
    `streaming`, they are read on demand and no file is written.
    """
    import datasets

    schema = _parquet_schema(frame.limit(0).collect().to_arrow().schema)
    if streaming:
        features = datasets.Features.from_arrow_schema(schema)
        return datasets.IterableDataset.from_generator(
            _rows, features=features, gen_kwargs={"frame": frame}
        )
    key = digest([_content_identity(source), *request, __version__])
    path = Path(datasets.config.HF_DATASETS_CACHE) / "simforge" / f"{key}.arrow"
    if not path.is_file():
        _write_stream(frame, schema, path)
    return datasets.Dataset.from_file(str(path))


@contextmanager
def read_errors(*sources: str | Path) -> Iterator[None]:
    """Turn errors about damaged files into a `SourceError`."""
    import polars as pl

    try:
        yield
    except (pl.exceptions.ComputeError, pl.exceptions.SchemaError, OSError) as problem:
        reason = str(problem).splitlines()[0][:200]
        raise SourceError(
            f"{' or '.join(map(str, sources))} cannot be read: {reason}. simforge "
            "validate DIR names the damaged file."
        ) from None


def filtered(frame: pl.LazyFrame, where: str | None) -> pl.LazyFrame:
    """Keep the rows that satisfy a condition (see `simforge.text.conditions`). Raises
    `UsageError` if it is not valid for these columns."""
    import polars as pl

    if where is None:
        return frame
    try:
        condition = parse_condition(where).expression
        rows = frame.filter(condition)
        # type errors appear only with rows
        pl.DataFrame(schema=frame.collect_schema()).clear(1).filter(condition)
    except (ValueError, pl.exceptions.PolarsError) as problem:
        reason = str(problem).splitlines()[0].partition("; valid columns")[0]
        columns = ", ".join(frame.collect_schema().names())
        raise UsageError(
            f"where: {where!r} does not fit: {reason}; the columns are: {columns}. Put "
            "text values in single quotes."
        ) from None
    return rows


def _rows(frame: pl.LazyFrame) -> Iterator[JsonObject]:
    for batch in frame.collect_batches(
        chunk_size=BATCH_ROWS, lazy=True, engine="streaming"
    ):
        yield from batch.iter_rows(named=True)


def _write_stream(frame: pl.LazyFrame, schema: pa.Schema, path: Path) -> None:
    """Write rows atomically, as the stream of Arrow batches that `datasets` memory-maps."""
    import pyarrow as pa

    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        temporary = Path(scratch) / path.name
        with (
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_stream(sink, schema) as writer,
        ):
            for batch in frame.collect_batches(
                chunk_size=BATCH_ROWS, lazy=True, engine="streaming"
            ):
                writer.write_table(batch.to_arrow().cast(schema))
        temporary.replace(path)


def _content_identity(source: str | Path) -> Any:
    """Return a value that identifies the content of a source: for a version, digest and
    checksums; for a folder or a URL, which may change, the files with sizes and times."""
    import fsspec

    stored_manifest = manifest(source)
    if huggingface.is_version(str(source)) or urls.is_version(str(source)):
        return [
            stored_manifest["digest"],
            {name: about["sha256"] for name, about in stored_manifest["files"].items()},
        ]
    system, root = fsspec.core.url_to_fs(str(source))
    file_infos = (system.info(path) for path in system.find(f"{root.rstrip('/')}/data"))
    return [
        [
            info["name"],
            info["size"],
            str(info.get("mtime") or info.get("LastModified") or info.get("ETag")),
        ]
        for info in file_infos
    ]


def _parquet_schema(schema: pa.Schema) -> pa.Schema:
    """Convert a polars schema to the types used when reading Parquet files."""
    import pyarrow as pa

    return pa.schema([field.with_type(_parquet_type(field.type)) for field in schema])


def _parquet_type(kind: pa.DataType) -> pa.DataType:
    import pyarrow as pa

    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(_parquet_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _parquet_type(field.type)) for field in kind])
    return (
        pa.string()
        if pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        else kind
    )


def _scan_url(source: str, table: str, pattern: str, split: str | None) -> pl.LazyFrame:
    import fsspec
    import polars as pl
    import pyarrow.dataset as ds

    try:
        system, root = fsspec.core.url_to_fs(source)
        # listed and compared, since a store's own patterns would expand the folder's name
        place = f"{root.rstrip('/')}/data/{table}"
        listed = system.find(place) if system.exists(place) else []
        paths = sorted(
            path for path in listed if fnmatch(path.rpartition("/")[2], pattern)
        )
    except (OSError, ValueError, ImportError) as problem:
        raise SourceError(f"{source} cannot be read: {problem}.") from None
    if not paths:
        raise _missing_error(source, table, split, [])
    dataset: Any = ds.dataset(paths, filesystem=system, format="parquet")
    return pl.scan_pyarrow_dataset(dataset)


def _missing_error(
    source: str | Path, table: str, split: str | None, files: list[Path]
) -> SourceError:
    if files:
        splits = sorted({path.name.partition("-")[0] for path in files})
        return SourceError(
            f"{source}: {table} has no split {split!r}{suggest(str(split), splits)}."
        )
    return SourceError(
        f"{source} is not a dataset: there is no data/{table} in it.{_hint(source)}"
    )


def _hint(source: str | Path) -> str:
    """Suggest what the user may have meant by a source."""
    text = str(source)
    if "@" in text or Path(text).exists():
        return ""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text) or "://" in text:
        return (
            f" Give a version, as in {text}@1.2.0 or {text}@latest; simforge versions "
            f"{text} lists them."
        )
    return " The form of a version is OWNER/NAME@1.2.0, or s3://bucket/NAME@1.2.0."
