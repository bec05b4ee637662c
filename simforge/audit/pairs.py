"""Pairs: preference data as the audit reads it, from SimForge or from elsewhere.

    read("OUT")                                       a run, a URL, or a version on the Hub
    read("mine.parquet", {"persona": "user_id"})      a file from elsewhere, columns named

If a column holds a dialogue, its last message is the text. All that is known about the
person is a row of numbers: the profile in data of SimForge, the columns named as profile in
other data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simforge.audit import figures
from simforge.audit.figures import Array
from simforge.dataset.manifest import Manifest
from simforge.errors import SourceError, UsageError, suggest
from simforge.hub import loading
from simforge.personas import spaces

if TYPE_CHECKING:
    import polars as pl


COLUMNS = (
    "prompt",
    "chosen",
    "rejected",
    "persona",
    "profile",
    "wish",
    "dimension",
    "chosen_model",
    "rejected_model",
)
"Columns that can be named in data from elsewhere; `chosen` and `rejected` are required."


SUFFIXES = (".parquet", ".jsonl", ".csv")


MAX_PAIRS = 100_000
"Most pairs that are read, approximately."


MAX_LEVELS = 60
"Most different words of a profile column that get a 0/1 column of their own."


@dataclass(frozen=True)
class Pairs:
    """Preference pairs and the people who prefer."""

    source: str
    frame: pl.DataFrame
    """One row a pair: `prompt`, `chosen`, `rejected` (texts), `persona`, `wish`, `dimension`,
    `chosen_model`, `rejected_model`, `split` (null if unknown), `label`, `p_chosen` (by a
    judge)."""
    profiles: Array | None
    "Profiles of the people as numbers (pairs, columns); `None` if nothing is known of them."
    manifest: Manifest | None
    "Manifest of a SimForge dataset; `None` for other data."

    unusable: int = 0
    "Pairs from elsewhere that were left out: both texts are equal, or one is missing."
    descriptions: list[str] | None = None
    "Profile of the person in words, for data from elsewhere."

    def __len__(self) -> int:
        return self.frame.height

    @property
    def owners(self) -> list[str]:
        """Group of each pair that intervals resample as a whole: the person if ten or more are
        known, otherwise the prompt (the people then count as fixed), or the pair itself if
        there are fewer than ten prompts."""
        for name in ("persona", "prompt"):
            if (
                self.frame[name].null_count() == 0
                and self.frame[name].n_unique() >= figures.MIN_CLUSTERS
            ):
                return [str(owner) for owner in self.frame[name]]
        return [str(number) for number in range(self.frame.height)]


def read(source: str, columns: Mapping[str, str] | None = None) -> Pairs:
    """Read the pairs of a dataset. Raises `SourceError`, `UsageError`, and what `loading.scan`
    raises."""
    return (
        _read_simforge(source)
        if is_simforge_dataset(source, columns)
        else _read_external(Path(source), dict(columns or {}))
    )


def is_simforge_dataset(source: str, columns: Mapping[str, str] | None = None) -> bool:
    """Return `True` if the source is a dataset of SimForge and not a file from elsewhere."""
    path = Path(source)
    return not columns and (path.suffix not in SUFFIXES or path.is_dir())


def _read_simforge(source: str) -> Pairs:
    import polars as pl

    manifest = loading.manifest(source)
    counts = manifest["counts"]["preferences"]
    if not sum(counts.values()):
        raise SourceError(f"{source} has no pairs to audit.")
    # sample whole prompts, so that people who got the same answers stay together
    parts = -(-sum(counts.values()) // MAX_PAIRS)
    selected = pl.coalesce("prompt_id", "dialogue_id").hash(seed=0) % parts == 0
    splits = [split for split in loading.SPLITS if counts.get(split)]
    table = pl.concat(
        loading.scan(source, "preferences", split)
        .filter(selected)
        .with_columns(split=pl.lit(split))
        .collect()
        for split in splits
    )
    frame = table.select(
        prompt=_last_content("prompt"),
        chosen=_last_content("chosen"),
        rejected=_last_content("rejected"),
        persona="persona_id",
        wish="system",
        dimension="dimension",
        chosen_model="chosen_model",
        rejected_model="rejected_model",
        split="split",
        label="label",
        p_chosen="p_chosen",
    )
    space = spaces.space_from_manifest(manifest)
    return Pairs(source, frame, _profile_points(table, space), manifest)


def _last_content(name: str) -> pl.Expr:
    import polars as pl

    return pl.col(name).list.last().struct.field("content")


def _profile_points(table: pl.DataFrame, space: spaces.Space) -> Array:
    """Wishes of each person as numbers: only in the pair's dimension, or in all if it has none."""
    values = np.array(table["profile"].struct.field("values").to_list(), dtype=object)
    numbers = np.array(table["profile"].struct.field("vector").to_list(), dtype=float)
    names = [
        (place, pole)
        for place, name in enumerate(space.dimensions)
        for pole in space.poles[name]
    ]
    if space.kind in ("weights", "bipolar"):  # one number a dimension is enough
        point_columns = [numbers[:, place] for place in range(numbers.shape[1])]
        dimension_of_column = list(range(numbers.shape[1]))
    else:
        point_columns = [
            (values[:, place] == pole).astype(float) for place, pole in names
        ]
        dimension_of_column = [place for place, _ in names]
    points = np.stack(point_columns, axis=1)
    dimension_of_pair = np.array(
        [
            list(space.dimensions).index(name) if name in space.dimensions else -1
            for name in table["dimension"]
        ]
    )
    elsewhere = (dimension_of_pair[:, None] >= 0) & (
        dimension_of_pair[:, None] != np.array(dimension_of_column)[None, :]
    )
    return np.where(elsewhere, 0.0, points)


def _read_external(path: Path, columns: dict[str, str]) -> Pairs:
    import polars as pl

    unknown = [name for name in columns if name not in COLUMNS]
    if unknown:
        raise UsageError(
            f"--columns: {unknown[0]!r} is none of: "
            f"{', '.join(COLUMNS)}{suggest(unknown[0], COLUMNS)}".rstrip("?")
            + "."
        )
    table = _read_table(path)
    column_of = {name: columns.get(name, name) for name in COLUMNS}
    for name in ("chosen", "rejected"):
        if column_of[name] not in table.columns:
            raise SourceError(
                f"{path} has no column {column_of[name]!r} for {name}; it has: "
                f"{', '.join(table.columns)}. Name it with --columns {name}=COLUMN."
            )
    missing = [
        f"{part!r} for {name}{suggest(part, table.columns).removesuffix('?')}"
        for name, column in columns.items()
        for part in column.split("+")
        if part not in table.columns
    ]
    if missing:
        raise SourceError(
            f"{path} has no column {', and none '.join(missing)}; it has: "
            f"{', '.join(table.columns)}."
        )
    texts = {
        name: _text_column(table, column_of[name], path)
        for name in ("prompt", "chosen", "rejected", "wish")
    }
    optional = {
        name: table[column_of[name]].cast(pl.String)
        if column_of[name] in table.columns
        else pl.Series([None] * table.height, dtype=pl.String)
        for name in ("persona", "dimension", "chosen_model", "rejected_model")
    }
    frame = pl.DataFrame({**texts, **optional}).with_columns(
        pl.col("prompt", "wish").fill_null(""),
        split=pl.lit(None, pl.String),
        label=pl.lit(None, pl.String),
        p_chosen=pl.lit(None, pl.Float64),
    )
    usable = (
        frame["chosen"].is_not_null()
        & frame["rejected"].is_not_null()
        & (frame["chosen"] != frame["rejected"])
    )
    if not usable.any():
        raise SourceError(f"{path} has no pair of two different texts.")
    parts = -(-frame.height // MAX_PAIRS)
    kept = usable & (frame["prompt"].hash(seed=0) % parts == 0)
    kept = kept if kept.any() else usable  # all pairs share one prompt
    profile_columns = (
        column_of["profile"].split("+")
        if column_of["profile"].split("+")[0] in table.columns
        else []
    )
    profiles = (
        _profile_numbers(table.filter(kept), profile_columns)
        if profile_columns
        else None
    )
    descriptions = [
        ", ".join(f"{name}: {value}" for name, value in row.items())
        for row in table.filter(kept).select(profile_columns).to_dicts()
    ]
    return Pairs(
        str(path),
        frame.filter(kept),
        profiles,
        None,
        int((~usable).sum()),
        descriptions,
    )


def _read_table(path: Path) -> pl.DataFrame:
    import polars as pl

    if (path / "manifest.json").is_file():
        raise SourceError(
            f"{path} is a dataset of SimForge: its columns are known, so omit --columns."
        )
    if not path.is_file():
        raise SourceError(f"there is no file {path}.")
    if path.suffix not in SUFFIXES:
        raise SourceError(
            f"{path}: the supported file types are {', '.join(SUFFIXES)}."
        )
    try:
        if not path.stat().st_size:
            raise SourceError(f"{path} is empty.")
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        return (
            pl.read_csv(path)
            if path.suffix == ".csv"
            else pl.read_ndjson(path, infer_schema_length=None)
        )
    except (OSError, pl.exceptions.PolarsError) as problem:
        raise SourceError(
            f"{path} cannot be read: {str(problem).splitlines()[0]}."
        ) from None


def _text_column(table: pl.DataFrame, name: str, path: Path) -> pl.Series:
    """Read a column of texts, or of dialogues (also as JSON) of which the last message is
    taken. Raises `SourceError`."""
    import polars as pl

    if name not in table.columns:
        return pl.Series([""] * table.height)
    column = table[name]
    if isinstance(column.dtype, pl.List):
        inner = column.dtype.inner
        if isinstance(inner, pl.Struct) and "content" in {
            field.name for field in inner.fields
        }:
            return column.list.last().struct.field("content")
        return column.list.last().cast(pl.String)
    if column.dtype != pl.String:
        raise SourceError(
            f"{path}: the column {name!r} holds {column.dtype}, not texts or lists of messages."
        )
    return pl.Series(
        name,
        [None if text is None else _last_message(text) for text in column],
        dtype=pl.String,
    )


def _last_message(text: str) -> str:
    """Last message of a dialogue that is written as JSON; any other text unchanged."""
    if not text.startswith("[{"):
        return text
    try:
        last = json.loads(text)[-1]["content"]
    except (ValueError, LookupError, TypeError):
        return text
    return last if isinstance(last, str) else text


def _profile_numbers(table: pl.DataFrame, names: list[str]) -> Array:
    """Profile columns as numbers: a 0/1 column for each word, numbers unchanged, lists one
    column an element."""
    import polars as pl

    columns: list[Array] = []
    for name in names:
        column = table[name]
        if isinstance(column.dtype, pl.List):
            rows = [row or [] for row in column.to_list()]
            width = max(map(len, rows))
            if (
                any(len(row) != width for row in rows)
                or not column.dtype.inner.is_numeric()
            ):
                raise SourceError(
                    f"{name}: a list in a profile must hold numbers, and the same "
                    "count in each row."
                )
            columns += list(np.array(rows, dtype=float).T)
        elif column.dtype.is_numeric() and column.n_unique() > 2:
            values = column.cast(pl.Float64).fill_nan(None)
            columns.append(
                values.fill_null(values.mean() or 0.0).to_numpy()
            )  # the mean, and a column marks it
            if values.null_count():
                columns.append(values.is_null().to_numpy().astype(float))
        else:
            words = column.cast(pl.String)
            levels = (
                words.drop_nulls()
                .value_counts(sort=True)[name]
                .head(MAX_LEVELS)
                .to_list()
            )
            columns += [
                (words == level).fill_null(False).to_numpy().astype(float)
                for level in levels
            ]
    return np.stack(columns, axis=1) if columns else np.zeros((table.height, 1))
