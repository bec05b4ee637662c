"""Files that packs refer to: lists, conditional tables, datasets and existing personas.

A file is referenced like everything else: a path (it has a suffix) is relative to the pack
that names it; a name (`tables/languages`) refers to a file shipped with SimForge. A dataset
on the Hub is downloaded with `huggingface_hub`. Content is identified by its digest, so a
pack does not change when its files move.
"""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import io
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from simforge import catalog
from simforge.catalog import files, records
from simforge.errors import SourceError, suggest
from simforge.identity import file_sha256
from simforge.personas.pack import Source, parse_range
from simforge.types import JsonObject

if TYPE_CHECKING:
    import polars as pl


TABLE_SUFFIXES = (
    *(f"{suffix}{packed}" for packed in ("", ".gz") for suffix in records.FORMATS),
    ".txt",
)
"Allowed file types of a table; a folder holds .json files."


def find_file(reference: str, folder: Path, suffixes: tuple[str, ...]) -> Path:
    """Return the path of a file. Raises `SourceError`."""
    if catalog.is_path(reference) or reference.endswith("/"):
        path = folder / Path(reference).expanduser()
        if path.is_dir() and suffixes == TABLE_SUFFIXES:
            return path.resolve()
        if not path.name.endswith(suffixes):
            raise SourceError(
                f"{reference}: the file name must end in {' or '.join(suffixes)}."
            )
        if not path.is_file():
            raise SourceError(f"there is no file {reference} beside the pack.")
        return path.resolve()
    shipped = catalog.root() / "personas"
    for suffix in suffixes if ".." not in Path(reference).parts else ():
        if (shipped / f"{reference}{suffix}").is_file():
            return shipped / f"{reference}{suffix}"
    names = [
        path.relative_to(shipped).as_posix()
        for path in shipped.rglob("*")
        if path.suffix in suffixes
    ]
    suggestion = suggest(reference, [name.rpartition(".")[0] for name in names])
    raise SourceError(
        f"no shipped list or table is named {reference!r}{suggestion}; a path has a "
        "suffix, as in ./mine.csv."
    )


def read_list(path: Path) -> list[str]:
    """Return the entries of a list file: one per line, without empty lines and lines that
    start with #."""
    text = files.read_text(path, path.name)
    entries = [
        line.strip()
        for line in text.splitlines()
        if line.strip() and not line.startswith("#")
    ]
    if not entries:
        raise SourceError(f"{path.name} has no entries.")
    return list(dict.fromkeys(entries))


def read_weighted_rows(
    path: Path, given: list[str], value: str | None
) -> Iterator[tuple[tuple[str, ...], str, float]]:
    """Yield the rows of a conditional table: condition, value, weight. Raises `SourceError`
    with the line number."""
    wanted = [*given, *([value] if value else []), "weight"]
    try:
        with io.StringIO(files.read_text(path, path.name), newline="") as file:
            raw_lines = file.readlines()
            comments = next(
                (n for n, line in enumerate(raw_lines) if not line.startswith("#")),
                len(raw_lines),
            )
            reader = csv.DictReader(raw_lines[comments:])
            missing = [name for name in wanted if name not in (reader.fieldnames or [])]
            unused = [name for name in reader.fieldnames or [] if name not in wanted]
            if unused and not missing:
                raise SourceError(
                    f"{path.name} has an unused column {unused[0]!r}: name it in "
                    "`given`, or remove it."
                )
            if missing:
                has = ", ".join(reader.fieldnames or []) or "none"
                raise SourceError(
                    f"{path.name} has no column {missing[0]!r}; its columns are: {has}."
                )
            for row in reader:
                number = comments + reader.line_num
                try:
                    weight = float(row["weight"])
                except (TypeError, ValueError):
                    weight = -1.0
                if not 0 <= weight < float("inf"):
                    raise SourceError(
                        f"{path.name}, line {number}: the weight {row['weight']!r} is "
                        "not a number ≥ 0."
                    )
                yield (
                    tuple(row[name] for name in given),
                    row[value] if value else "",
                    weight,
                )
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise SourceError(f"{path.name} cannot be read: {problem}.") from None


def draw_from_weights(
    values: list[tuple[str, float]], numeric: bool, integer: bool, maximum: float | None
) -> JsonObject:
    """Turn one row of a conditional table into a draw: categories, or a histogram for a
    number. Raises `ValueError`."""
    total = sum(weight for _, weight in values)
    if total <= 0:
        raise ValueError("the weights of a row are all 0")
    if not numeric:
        shares: dict[str, float] = {}
        for value, weight in values:
            shares[value] = shares.get(value, 0.0) + weight / total
        return {"categories": shares}
    bins = sorted(
        (*_parse_bin(value, integer, maximum), weight / total)
        for value, weight in values
    )
    edges = [bins[0][0]]
    for low, high, _ in bins:
        if low != edges[-1]:
            raise ValueError(f"the ranges leave a gap or overlap at {low:g}")
        edges.append(high)
    return {"histogram": {"edges": edges, "weights": [share for _, _, share in bins]}}


def resolve_source(source: JsonObject, folder: Path) -> JsonObject:
    """Return a source with the path and digest of its file filled in. Raises `SourceError`."""
    if source.get("hf"):
        paths = _download(
            str(source.get("file")), str(source["hf"]), source.get("revision")
        )
        digest = hashlib.sha256(
            "\n".join(f"{path.name} {file_sha256(path)}" for path in paths).encode()
        ).hexdigest()
        path = Path(str(source["file"]))
    else:
        path = find_file(str(source.get("file")), folder, TABLE_SUFFIXES)
        digest = _digest(path)
    if source.get("sha256") not in (None, digest):
        raise SourceError(
            f"{source['file']} has the sha256 {digest}, and the pack asks for {source['sha256']}."
        )
    return {**source, "file": str(path), "sha256": digest}


def read_columns(source: Source, columns: tuple[str, ...]) -> pl.DataFrame:
    """Read columns of a table in the given order; `a.b` addresses nested values, and lists
    of strings are joined by `; `."""
    import polars as pl

    frame = _read_table(source.file, source.hf, source.revision, source.sha256)
    series = []
    for name in columns:
        values = records.column(frame, name, _source_name(source))
        if values.dtype in (pl.Float32, pl.Float64):
            values = values.fill_nan(None)
        if isinstance(values.dtype, pl.List) and values.dtype.inner == pl.String:
            values = values.list.join("; ")
        series.append(values.alias(name))
    return pl.DataFrame(series)


@lru_cache(maxsize=4)
def _read_table(
    file: str, hf: str | None, revision: str | None, sha256: str | None
) -> pl.DataFrame:
    """Read a whole table. The digest is a parameter so that a changed file is not read from
    the cache."""
    import polars as pl

    paths = _download(file, hf, revision) if hf else [Path(file)]
    try:
        return pl.concat([_read_file(path) for path in paths], how="vertical_relaxed")
    except pl.exceptions.PolarsError as problem:
        raise SourceError(
            f"{hf or Path(file).name} cannot be read: {str(problem).splitlines()[0]}."
        ) from None


def _read_file(path: Path) -> pl.DataFrame:
    import polars as pl

    if path.is_dir():
        return pl.from_dicts(_read_json_folder(path), infer_schema_length=None)
    if path.suffix == ".txt":
        return pl.DataFrame({"line": read_list(path)})
    return records.read_table(path, path.name, comments=True)


def _read_json_folder(folder: Path) -> list[JsonObject]:
    profiles = []
    for path in sorted(folder.glob("*.json")):
        profiles.append(files.read_json_object(path, f"{folder.name}/{path.name}"))
    if not profiles:
        raise SourceError(f"the folder {folder.name} has no .json files.")
    return profiles


def _download(pattern: str, dataset: str, revision: str | None) -> list[Path]:
    """Download (or find in the cache) the files of a Hub dataset that match a pattern."""
    from huggingface_hub import snapshot_download

    from simforge.models.downloads import hub_is_reachable

    online = hub_is_reachable()
    try:
        folder = snapshot_download(
            dataset,
            repo_type="dataset",
            revision=revision,
            allow_patterns=[pattern],
            local_files_only=not online,
        )
    except (OSError, ValueError) as problem:
        reason = (
            str(problem).splitlines()[0]
            if online
            else "the Hub cannot be reached, and the dataset is not in the cache."
        )
        raise SourceError(f"the dataset {dataset} cannot be read: {reason}") from None
    paths = sorted(
        path for path in Path(folder).rglob("*") if path.name.endswith(TABLE_SUFFIXES)
    )
    matching = [
        path
        for path in paths
        if fnmatch.fnmatch(path.relative_to(folder).as_posix(), pattern)
    ]
    if not matching:
        raise SourceError(
            f"the dataset {dataset} has no file that matches {pattern!r}."
        )
    return matching


def _digest(path: Path) -> str:
    if path.is_file():
        return file_sha256(path)
    parts = [f"{file.name} {file_sha256(file)}" for file in sorted(path.glob("*.json"))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _parse_bin(value: str, integer: bool, maximum: float | None) -> tuple[float, float]:
    interval = parse_range(value, integer)
    if interval is None:
        raise ValueError(f"{value!r} is not a range such as 18-24 or 65+")
    if interval[1] == float("inf"):
        if maximum is None:
            raise ValueError(f"{value!r} has no upper end: set `maximum` on the trait")
        return interval[0], maximum + (1 if integer else 0)
    return interval


def _source_name(source: Source) -> str:
    return f"hf {source.hf}" if source.hf else Path(source.file).name
