"""People as files: a cast is written to a table with its pack inside, and read from one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from simforge.catalog import records
from simforge.errors import SourceError, UsageError, suggest
from simforge.identity import digest
from simforge.personas.cast import (
    CAST_SUFFIXES,
    PACK_METADATA_KEY,
    Cast,
    Rejections,
    _check_complete,
)
from simforge.personas.loader import load_pack
from simforge.personas.pack import Pack, polars_schema
from simforge.personas.pack_checks import column_problem

if TYPE_CHECKING:
    import polars as pl


def write_cast(cast: Cast, path: Path) -> None:
    """Write people as .parquet (with their pack in the metadata, so that `--cast` needs no
    other file), .jsonl or .csv."""
    frame = cast.frame
    if cast.texts is not None:
        frame = frame.with_columns(cast.texts.alias("text"))
    if cast.profiles is not None:
        if path.suffix == ".csv":
            raise UsageError(
                f"{path}: a .csv cannot hold profiles; write .parquet or .jsonl."
            )
        frame = frame.with_columns(cast.profiles.alias("profile"))
    if path.suffix == ".parquet":
        frame.write_parquet(path, metadata={PACK_METADATA_KEY: pack_metadata(cast)})
    elif path.suffix == ".jsonl":
        frame.write_ndjson(path)
    elif path.suffix == ".csv":
        frame.write_csv(path)
    else:
        raise UsageError(f"{path}: people are written as {', '.join(CAST_SUFFIXES)}.")


def pack_metadata(cast: Cast) -> str:
    """Return the pack and its name as JSON, so that people can be read again without the
    pack file."""
    return json.dumps(
        {"name": cast.name, "pack": cast.pack.content()}, ensure_ascii=False
    )


def read_cast(path: Path, fallback: str, n: int | None, label: str) -> Cast:
    """Read the people of a cast file or of a run folder's personas table; only the first `n` if
    given.

    The pack is the one stored in the file, else `fallback`; the table must have all of its
    traits. `label` names the people in messages. Raises `SourceError`.
    """
    from simforge.identity import file_sha256

    files = _people_files(path, label)
    frame, meta = _read_people(files, label)
    n = frame.height if n is None else n
    if n > frame.height:
        raise SourceError(
            f"--cast {label} has {frame.height} people, and --personas asks for {n}."
        )
    name, pack = (
        _parse_pack_metadata(label, meta) if meta else (fallback, load_pack(fallback))
    )
    cast = Cast(
        pack=pack,
        name=name,
        frame=_traits_of(frame, pack, name, label).head(n),
        rejections=Rejections(n),
        texts=frame["text"].head(n) if "text" in frame.columns else None,
        profiles=frame["profile"].head(n) if "profile" in frame.columns else None,
        sha256=digest([file_sha256(file) for file in files]),
        external=meta is None,
    )
    _check_complete(cast, label)
    return cast


def _people_files(path: Path, label: str) -> list[Path]:
    """Return the files of a cast: one, or those of a run's personas table."""
    files = sorted(path.glob("data/personas/*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        problem_text = "is not a finished run" if path.is_dir() else "is not there"
        raise SourceError(
            f"--cast {label} {problem_text}; give a file of `personas sample --out`, a "
            "run folder, or a published version."
        )
    if not all(map(records.format_of, files)):
        raise SourceError(
            f"--cast {label}: people are read from {records.accepted_formats()}, or from a run "
            "folder."
        )
    return files


def _read_people(files: list[Path], label: str) -> tuple[pl.DataFrame, str | None]:
    """Read people in the order of their `index`, with the pack that a Parquet file holds."""
    import polars as pl

    try:
        frame = pl.concat(
            records.read_table(file, f"--cast {label}", as_text=True) for file in files
        )
        meta = (
            pl.read_parquet_metadata(files[0]).get(PACK_METADATA_KEY)
            if files[0].suffix == ".parquet"
            else None
        )
    except (OSError, pl.exceptions.PolarsError) as problem:
        raise SourceError(
            f"--cast {label} cannot be read: {str(problem).splitlines()[0]}."
        ) from None
    if not frame.height:
        raise SourceError(f"--cast {label} has no people.")
    return frame.sort("index") if "index" in frame.columns else frame, meta


def _traits_of(frame: pl.DataFrame, pack: Pack, name: str, label: str) -> pl.DataFrame:
    """Return the traits of a pack as typed columns."""
    import polars as pl

    kinds = polars_schema(pack)
    for column in kinds:
        if column not in frame.columns:
            suggestion = suggest(column, frame.columns)
            raise SourceError(
                f"--cast {label} has no column {column!r}{suggestion}. SimForge assumed "
                f"the pack {name}; choose another with --set cast.pack=PACK."
            )
    for trait_name, trait in pack.traits.items():
        why = column_problem(frame[trait_name], trait)
        if why:
            raise SourceError(f"--cast {label}: the column {trait_name!r} {why}.")
    try:
        return frame.select(pl.col(column).cast(kind) for column, kind in kinds.items())
    except pl.exceptions.PolarsError as problem:
        raise SourceError(
            f"--cast {label} does not fit {name}: {str(problem).splitlines()[0]}."
        ) from None


def read_pack(file: Path) -> Pack:
    """Read the pack stored in a Parquet file of people. Raises `SourceError`."""
    import polars as pl

    meta = pl.read_parquet_metadata(file).get(PACK_METADATA_KEY)
    if meta is None:
        raise SourceError(f"{file} does not contain the pack of its people.")
    return _parse_pack_metadata(str(file), meta)[1]


def _parse_pack_metadata(label: str, metadata: str) -> tuple[str, Pack]:
    try:
        content = json.loads(metadata)
        return str(content["name"]), Pack.model_validate(content["pack"])
    except (
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
        ValidationError,
    ) as problem:
        raise SourceError(
            f"--cast {label} was written by another version of SimForge "
            f"({str(problem).splitlines()[0]})."
        ) from None
