"""Files that packs refer to: lists, conditional tables, datasets, other people's personas.

A file is named as everything else is: a path (it has a suffix) is relative to the pack that names it; a name
(`tables/languages`) is shipped with SimForge. A dataset on the Hub is fetched by the ordinary client. Content is told
by its digest, so that a pack is the same pack wherever its files lie.
"""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simforge import catalog
from simforge.errors import SourceError, nearest
from simforge.identity import file_sha256
from simforge.personas.pack import Source, bounds

if TYPE_CHECKING:
    import polars as pl

TABLES = (".csv", ".jsonl", ".parquet", ".txt")
"What a table can be; a folder holds .json files."


def place(reference: str, folder: Path, suffixes: tuple[str, ...]) -> Path:
    """Where a file lies; raises `SourceError`."""
    if catalog.is_path(reference) or reference.endswith("/"):
        path = folder / Path(reference).expanduser()
        if path.is_dir() and suffixes == TABLES:
            return path.resolve()
        if path.suffix not in suffixes:
            raise SourceError(f"{reference}: such a file ends in {' or '.join(suffixes)}.")
        if not path.is_file():
            raise SourceError(f"there is no file {reference} beside the pack.")
        return path.resolve()
    shipped = catalog.root() / "personas"
    for suffix in suffixes if ".." not in Path(reference).parts else ():
        if (shipped / f"{reference}{suffix}").is_file():
            return shipped / f"{reference}{suffix}"
    names = [path.relative_to(shipped).as_posix() for path in shipped.rglob("*") if path.suffix in suffixes]
    said = nearest(reference, [name.rpartition(".")[0] for name in names])
    raise SourceError(f"no shipped list or table is named {reference!r}{said}; a path has a suffix, as in ./mine.csv.")


def lines(path: Path) -> list[str]:
    """The entries of a list file: one a line; empty lines and lines that start with # are left out."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise SourceError(f"{path.name} cannot be read: {problem}.") from None
    found = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not found:
        raise SourceError(f"{path.name} has no entries.")
    return list(dict.fromkeys(found))


def weighted(path: Path, given: list[str], value: str | None) -> Iterator[tuple[tuple[str, ...], str, float]]:
    """The rows of a conditional table: condition, value, weight. Raises `SourceError` with the line."""
    wanted = [*given, *([value] if value else []), "weight"]
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines_ = file.readlines()
            comments = next((n for n, line in enumerate(lines_) if not line.startswith("#")), len(lines_))
            reader = csv.DictReader(lines_[comments:])
            missing = [name for name in wanted if name not in (reader.fieldnames or [])]
            unused = [name for name in reader.fieldnames or [] if name not in wanted]
            if unused and not missing:
                raise SourceError(
                    f"{path.name} has a column {unused[0]!r}, and nothing says what for: name it in `given`."
                )
            if missing:
                has = ", ".join(reader.fieldnames or []) or "none"
                raise SourceError(f"{path.name} has no column {missing[0]!r}; its columns are: {has}.")
            for row in reader:
                number = comments + reader.line_num
                try:
                    weight = float(row["weight"])
                except (TypeError, ValueError):
                    weight = -1.0
                if not 0 <= weight < float("inf"):
                    raise SourceError(f"{path.name}, line {number}: the weight {row['weight']!r} is not a number ≥ 0.")
                yield tuple(row[name] for name in given), row[value] if value else "", weight
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise SourceError(f"{path.name} cannot be read: {problem}.") from None


def draw_of(values: list[tuple[str, float]], numeric: bool, whole: bool, maximum: float | None) -> dict[str, Any]:
    """One row of a conditional table as a draw: categories, or a histogram for a number. Raises `ValueError`."""
    total = sum(weight for _, weight in values)
    if total <= 0:
        raise ValueError("the weights of a row are all 0")
    if not numeric:
        shares: dict[str, float] = {}
        for value, weight in values:
            shares[value] = shares.get(value, 0.0) + weight / total
        return {"categories": shares}
    bins = sorted((*_bin(value, whole, maximum), weight / total) for value, weight in values)
    edges = [bins[0][0]]
    for low, high, _ in bins:
        if low != edges[-1]:
            raise ValueError(f"the ranges leave a gap or overlap at {low:g}")
        edges.append(high)
    return {"histogram": {"edges": edges, "weights": [share for _, _, share in bins]}}


def located(source: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A source with its file's place and digest written in. Raises `SourceError`."""
    if source.get("hf"):
        paths = _fetched(str(source.get("file")), str(source["hf"]), source.get("revision"))
        found = hashlib.sha256("\n".join(f"{path.name} {file_sha256(path)}" for path in paths).encode()).hexdigest()
        path = Path(str(source["file"]))
    else:
        path = place(str(source.get("file")), folder, TABLES)
        found = _digest(path)
    if source.get("sha256") not in (None, found):
        raise SourceError(f"{source['file']} has the sha256 {found}, and the pack asks for {source['sha256']}.")
    return {**source, "file": str(path), "sha256": found}


def read(source: Source, columns: tuple[str, ...]) -> pl.DataFrame:
    """Columns of a table, in its order; `a.b` reaches into nested values, lists of texts are joined by `; `."""
    import polars as pl

    frame = _frame(source.file, source.hf, source.revision, source.sha256)
    found = []
    for column in columns:
        expression, kind = _reached(frame, column, source)
        if kind in (pl.Float32, pl.Float64):
            expression = expression.fill_nan(None)
        if isinstance(kind, pl.List) and kind.inner == pl.String:
            expression = expression.list.join("; ")
        found.append(expression.alias(column))
    return frame.select(found)


def _reached(frame: pl.DataFrame, column: str, source: Source) -> tuple[pl.Expr, Any]:
    import polars as pl

    head, *inner = [column] if column in frame.columns else column.split(".")
    if head not in frame.columns:
        said = nearest(head, frame.columns) or f"; it has: {', '.join(frame.columns)}"
        raise SourceError(f"{_called(source)} has no column {column!r}{said}")
    expression = pl.col(head)
    kind: Any = frame.schema[head]
    for part in inner:
        fields = {field.name: field.dtype for field in kind.fields} if isinstance(kind, pl.Struct) else {}
        if part not in fields:
            raise SourceError(f"{_called(source)} has no {column!r}{nearest(part, fields)}")
        expression, kind = expression.struct.field(part), fields[part]
    return expression, kind


@lru_cache(maxsize=4)
def _frame(file: str, hf: str | None, revision: str | None, sha256: str | None) -> pl.DataFrame:
    """A whole table; the digest is there so that a changed file is another table."""
    import polars as pl

    paths = _fetched(file, hf, revision) if hf else [Path(file)]
    try:
        return pl.concat([_one(path) for path in paths], how="vertical_relaxed")
    except pl.exceptions.PolarsError as problem:
        raise SourceError(f"{hf or Path(file).name} cannot be read: {str(problem).splitlines()[0]}.") from None


def _one(path: Path) -> pl.DataFrame:
    import polars as pl

    if path.is_dir():
        return pl.from_dicts(_profiles(path), infer_schema_length=None)
    if path.suffix == ".txt":
        return pl.DataFrame({"line": lines(path)})
    if path.suffix == ".csv":
        return pl.read_csv(path, comment_prefix="#", infer_schema_length=None)
    if path.suffix == ".jsonl":
        return pl.read_ndjson(path, infer_schema_length=None)
    return pl.read_parquet(path)


def _profiles(folder: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            profile = json.loads(path.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as problem:
            raise SourceError(f"{folder.name}/{path.name} is not JSON: {problem}.") from None
        if not isinstance(profile, dict):
            raise SourceError(f"{folder.name}/{path.name} must hold one object, not {type(profile).__name__}.")
        found.append(profile)
    if not found:
        raise SourceError(f"the folder {folder.name} has no .json files.")
    return found


def _fetched(pattern: str, owner_name: str, revision: str | None) -> list[Path]:
    """The files of a dataset on the Hub that match, by the ordinary client and its cache."""
    from huggingface_hub import snapshot_download

    from simforge.models.weights import hub_answers

    reached = hub_answers()
    try:
        folder = snapshot_download(
            owner_name,
            repo_type="dataset",
            revision=revision,
            allow_patterns=[pattern],
            local_files_only=not reached,
        )
    except (OSError, ValueError) as problem:
        why = str(problem).splitlines()[0] if reached else "the Hub cannot be reached, and the cache has nothing of it."
        raise SourceError(f"the dataset {owner_name} cannot be read: {why}") from None
    found = sorted(path for path in Path(folder).rglob("*") if path.suffix in TABLES)
    matching = [path for path in found if fnmatch.fnmatch(path.relative_to(folder).as_posix(), pattern)]
    if not matching:
        raise SourceError(f"the dataset {owner_name} has no file that matches {pattern!r}.")
    return matching


def _digest(path: Path) -> str:
    if path.is_file():
        return file_sha256(path)
    parts = [f"{one.name} {file_sha256(one)}" for one in sorted(path.glob("*.json"))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _bin(value: str, whole: bool, maximum: float | None) -> tuple[float, float]:
    found = bounds(value, whole)
    if found is None:
        raise ValueError(f"{value!r} is not a range such as 18-24 or 65+")
    if found[1] == float("inf"):
        if maximum is None:
            raise ValueError(f"{value!r} has no end: give the trait a maximum")
        return found[0], maximum + (1 if whole else 0)
    return found


def _called(source: Source) -> str:
    return f"hf {source.hf}" if source.hf else Path(source.file).name
