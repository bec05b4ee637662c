"""Tables in files, of any common format: rows of people, prompts, pairs and dialogues.

A path is a name, never a pattern: `run[1]` is the folder of that name. Only this module calls the
readers of polars, which expand patterns by default.

    read_table(Path("people.csv"))                  -> a data frame
    column(frame, "meta.city", "people.csv")        -> the values of a nested field
    scan_parquet(table_files(Path("OUT"), "turns")) -> a lazy frame

Formats are Parquet, JSON lines, JSON (a list of objects, an object with one object for each id, an
object with one list of objects, or an object of columns) and CSV, each also compressed with gzip.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simforge.catalog import files
from simforge.errors import SourceError, suggest
from simforge.types import JsonObject

if TYPE_CHECKING:
    import polars as pl


FORMATS = (".parquet", ".jsonl", ".json", ".csv")


MAX_BYTES = 4 * 2**30
"Maximum size of a table's file, after decompression."


MAX_FIELD = 16 * 2**20
"Maximum length of one field of a CSV file."


def format_of(path: Path) -> str:
    """Return the format of a file by its name, without `.gz`; empty if it is none of
    `FORMATS`."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in FORMATS if name.endswith(suffix)), "")


def accepted_formats() -> str:
    """The formats, as they are listed in messages."""
    return f"{', '.join(FORMATS)}, also compressed (.gz)"


def table_files(folder: Path, table: str, split: str | None = None) -> list[Path]:
    """List the Parquet files of a table in a dataset's folder, in order."""
    return sorted((folder / "data" / table).glob(f"{split or '*'}-*.parquet"))


def scan_parquet(paths: Sequence[Path]) -> pl.LazyFrame:
    """Scan Parquet files lazily, by their names."""
    import polars as pl

    return pl.scan_parquet([str(path) for path in paths], glob=False)


def scan_table(folder: Path, table: str, split: str | None = None) -> pl.LazyFrame:
    """Scan a table in a dataset's folder. Raises `SourceError` if it has no files."""
    paths = table_files(folder, table, split)
    if not paths:
        raise SourceError(f"{folder} is not a dataset: there is no data/{table} in it.")
    return scan_parquet(paths)


def read_table(
    path: Path, name: str = "", as_text: bool = False, comments: bool = False
) -> pl.DataFrame:
    """Read a table. `name` stands for the file in messages; with `as_text`, the values of a CSV
    file stay text; with `comments`, its leading lines that start with # are passed over. Raises
    `SourceError`, with the line of a broken row."""
    import polars as pl

    name = name or str(path)
    kind = format_of(path)
    if not kind:
        raise SourceError(f"{name}: the file type is none of {accepted_formats()}.")
    content = _content(path, name)
    if not content.strip():
        raise SourceError(f"{name} is empty.")
    if kind == ".parquet":
        try:
            return _unpacked(pl.read_parquet(io.BytesIO(content)), name)
        except pl.exceptions.PolarsError as problem:
            raise SourceError(
                f"{name} cannot be read as Parquet: {str(problem).splitlines()[0]}."
            ) from None
    text = files.decode_text(content, name)
    if kind == ".csv":
        if "\n" not in text:
            text = text.replace("\r", "\n")
        return _csv_table(text, name, as_text, comments)
    text = LONE_SURROGATE.sub("\\\\ufffd", text)
    if kind == ".jsonl":
        fast = _read_json_lines(text)
        if fast is not None:
            return _unpacked(fast, name)
    return _unpacked(table_of(_json_rows(text, name, kind), name), name)


def column(frame: pl.DataFrame, path: str, name: str) -> pl.Series:
    """Return a column, or with `a.b` the value `b` in the objects of `a`, which may be JSON in
    text. Raises `SourceError`."""
    import polars as pl

    head, *inner = [path] if path in frame.columns else path.split(".")
    if head not in frame.columns:
        near = suggest(head, frame.columns) or f"; it has: {', '.join(frame.columns)}"
        raise SourceError(f"{name} has no column {path!r}{near}")
    series = frame[head]
    for part in inner:
        if series.dtype == pl.String:
            series = _parsed_cells(series, name)
        fields = (
            [field.name for field in series.dtype.fields]
            if isinstance(series.dtype, pl.Struct)
            else []
        )
        if part not in fields:
            raise SourceError(f"{name} has no {path!r}{suggest(part, fields)}")
        series = series.struct.field(part)
    return series.alias(path)


def has_column(frame: pl.DataFrame, path: str) -> bool:
    """Return whether a table has a column, or the first part of a nested one."""
    return path in frame.columns or path.split(".")[0] in frame.columns


def table_of(rows: Sequence[JsonObject], name: str) -> pl.DataFrame:
    """Return rows as a table. A column whose values are of several kinds becomes text, with
    objects as JSON."""
    import polars as pl

    names = list(dict.fromkeys(key for row in rows for key in row))
    return pl.DataFrame(
        {key: _column_of(key, [row.get(key) for row in rows]) for key in names}
    )


def _column_of(name: str, values: list[Any]) -> pl.Series:
    import polars as pl

    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        values = [None if value is None else float(value) for value in values]
    try:
        if any(_holds_object(value) for value in values):
            # the objects may have different fields, which a series takes from the first
            lines = "\n".join(json.dumps({"value": value}) for value in values)
            return pl.read_ndjson(io.BytesIO(lines.encode()), infer_schema_length=None)[
                "value"
            ].alias(name)
        return pl.Series(name, values, strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        return pl.Series(name, [_as_text(value) for value in values], pl.String)


def _holds_object(value: Any) -> bool:
    return isinstance(value, dict) or (
        isinstance(value, list) and any(map(_holds_object, value))
    )


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _content(path: Path, name: str) -> bytes:
    """Return the bytes of a file, decompressed and bounded."""
    if not path.exists():
        raise SourceError(f"there is no file {name}.")
    if not path.is_file():
        raise SourceError(f"{name} is not a regular file.")
    if path.stat().st_size > MAX_BYTES:
        raise SourceError(f"{name} is larger than {MAX_BYTES >> 30} GB.")
    try:
        if not path.name.lower().endswith(".gz"):
            return path.read_bytes()
        with gzip.open(path) as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as problem:
        raise SourceError(f"{name} cannot be read: {problem}.") from None
    if len(content) > MAX_BYTES:
        raise SourceError(f"{name} holds more than {MAX_BYTES >> 30} GB.")
    return content


LONE_SURROGATE = re.compile(
    r"(?<!\\)\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    r"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
"Half of a character, which JSON can hold and a text cannot."


def _read_json_lines(text: str) -> pl.DataFrame | None:
    """Read JSON lines with polars, which is four times as fast; `None` if it cannot, and the
    line that is wrong, or of another kind than the others, has to be found."""
    import polars as pl

    try:
        return pl.read_ndjson(io.BytesIO(text.encode()), infer_schema_length=None)
    except pl.exceptions.PolarsError:
        return None


def _json_rows(text: str, name: str, kind: str) -> list[JsonObject]:
    if kind == ".jsonl":
        rows = []
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                place = f"{name}, line {number}"
                rows.append(_row(_parsed(line, place), place))
        return rows
    value = files.parse_json(text, name)
    return list(_rows_of_value(value, name))


def _rows_of_value(value: Any, name: str) -> Iterator[JsonObject]:
    """Yield the rows of a JSON file that holds one value."""
    if isinstance(value, dict):
        lists = {key: part for key, part in value.items() if isinstance(part, list)}
        if value and all(isinstance(part, dict) for part in value.values()):
            numbers = [str(number) for number in range(len(next(iter(value.values()))))]
            if numbers and all([*part] == numbers for part in value.values()):
                # columns of numbered values, as pandas writes them
                yield from (
                    {name: part[number] for name, part in value.items()}
                    for number in numbers
                )
                return
            for key, row in value.items():
                yield {("key" if "id" in row else "id"): key, **row}
            return
        if len(lists) == 1 and all(
            isinstance(row, dict) for row in next(iter(lists.values()))
        ):
            value = next(iter(lists.values()))
        elif (
            lists and len(lists) == len(value) and len({*map(len, lists.values())}) == 1
        ):
            yield from (
                dict(zip(lists, row, strict=True))
                for row in zip(*lists.values(), strict=True)
            )
            return
    if not isinstance(value, list):
        raise SourceError(
            f"{name} must hold a list of objects, or an object with one object for each id."
        )
    for number, row in enumerate(value, start=1):
        yield _row(row, f"{name}, row {number}")


def _row(value: Any, place: str) -> JsonObject:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        value = _parsed(value, place)  # a row that is JSON in a text
    if not isinstance(value, dict):
        raise SourceError(
            f"{place}: must be an object with named columns, not {type(value).__name__}."
        )
    return value


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise SourceError(f"{place}: it is nested too deeply.") from None
    except ValueError as problem:
        message = getattr(problem, "msg", "a number is too large")
        raise SourceError(f"{place}: broken JSON: {message}.") from None


def _csv_table(text: str, name: str, as_text: bool, comments: bool) -> pl.DataFrame:
    import polars as pl

    skipped = 0
    if comments:
        lines = text.split("\n")
        while skipped < len(lines) and lines[skipped].startswith("#"):
            skipped += 1
        text = "\n".join(lines[skipped:])
    header = text.partition("\n")[0]
    separator = next((mark for mark in ",;\t" if mark in header), ",")
    try:
        frame = pl.read_csv(
            io.BytesIO(text.encode()),
            infer_schema=not as_text,
            infer_schema_length=None,
            separator=separator,
        )
        # polars reads empty lines as rows without values
        return frame.filter(~pl.all_horizontal(pl.all().is_null()))
    except pl.exceptions.PolarsError as problem:
        reason = str(problem).splitlines()[0]
        raise SourceError(
            f"{name}{_csv_line(text, skipped)}: it cannot be read as CSV: {reason}."
        ) from None


def _csv_line(text: str, skipped: int) -> str:
    """Name the first line of a CSV file whose number of fields differs from the header's; empty
    if there is none."""
    csv.field_size_limit(MAX_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""))
    width = 0
    try:
        for fields in reader:
            width = width or len(fields)
            if fields and len(fields) != width:
                return (
                    f", line {skipped + reader.line_num} ({len(fields)} fields, and the "
                    f"header has {width})"
                )
    except csv.Error:
        return f", line {skipped + reader.line_num}"
    return ""


def _unpacked(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return the rows of a table whose only column holds them as JSON in text; any other table
    unchanged. Prompts can be JSON themselves."""
    import polars as pl

    if frame.width != 1 or frame.dtypes[0] != pl.String or not frame.height:
        return frame
    if frame.columns[0] in ("prompt", "text", "question", "instruction"):
        return frame
    rows = []
    for text in frame.to_series():
        try:
            row = json.loads(text or "")
        except (ValueError, RecursionError):
            return frame
        if not isinstance(row, dict):
            return frame
        rows.append(row)
    return table_of(rows, name)


def _parsed_cells(series: pl.Series, name: str) -> pl.Series:
    """Return a column of JSON in text as the values that it holds."""
    values = [
        None if text is None else _parsed(text, f"{name}, row {number}")
        for number, text in enumerate(series, start=1)
    ]
    return table_of([{"value": value} for value in values], name)["value"]
