"""Pairs: preference data as the audit sees it, whoever made it.

    read("OUT")                                             a run, a URL, or a version on the Hub
    read("mine.parquet", {"persona": "user_id"})            anyone's data, with its columns named

Texts are the last message where a column holds a dialogue. What there is to know of who prefers is a row of numbers:
the profile in SimForge's own data, whatever columns are named in others'.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simforge import loading, preferences
from simforge.audit import figures
from simforge.audit.figures import Array
from simforge.errors import SourceError, UsageError, nearest

if TYPE_CHECKING:
    import polars as pl

COLUMNS = ("prompt", "chosen", "rejected", "persona", "profile", "wish", "dimension", "chosen_model", "rejected_model")
"What can be named of other people's data; `chosen` and `rejected` there must be."
SUFFIXES = (".parquet", ".jsonl", ".csv")
MOST = 100_000
"Pairs that are looked at, about."
LEVELS = 60
"Different values up to which a column of a profile is taken as a name and not as a number."


@dataclass(frozen=True)
class Pairs:
    """Preference pairs and who prefers."""

    source: str
    frame: pl.DataFrame
    """A row a pair: `prompt`, `chosen`, `rejected` (texts), `persona`, `wish`, `dimension`, `chosen_model`,
    `rejected_model`, `split` (null where unknown), `label`, `p_chosen` (a judge's)."""
    profiles: Array | None
    "Who prefers, a row of numbers for each pair (pairs, columns); none where nothing is known of them."
    manifest: dict[str, Any] | None
    "Of SimForge's own data."

    same: int = 0
    "Pairs of anyone's data that were left out, since both texts are the same or one is missing."
    about: list[str] | None = None
    "Who prefers, in words, of anyone's data."

    def __len__(self) -> int:
        return self.frame.height

    @property
    def owners(self) -> list[str]:
        """Whose each pair is, as intervals take it: the person's, where ten or more are known; with fewer they are
        taken as given, and it is the prompt's; without ten prompts each pair stands for itself."""
        for name in ("persona", "prompt"):
            if self.frame[name].null_count() == 0 and self.frame[name].n_unique() >= figures.WHOLE:
                return [str(one) for one in self.frame[name]]
        return [str(number) for number in range(self.frame.height)]


def read(source: str, columns: Mapping[str, str] | None = None) -> Pairs:
    """The pairs of a dataset. Raises `SourceError`, `UsageError`, and what `loading.scan` raises."""
    return _own(source) if is_own(source, columns) else _others(Path(source), dict(columns or {}))


def is_own(source: str, columns: Mapping[str, str] | None = None) -> bool:
    """Whether a source is a dataset of SimForge, and not anyone's file."""
    path = Path(source)
    return not columns and (path.suffix not in SUFFIXES or path.is_dir())


def _own(source: str) -> Pairs:
    import polars as pl

    manifest = loading.manifest(source)
    counts = manifest["counts"]["preferences"]
    if not sum(counts.values()):
        raise SourceError(f"{source} has no pairs to audit.")
    # a part of many: whole prompts, so that people who got the same answers stay together
    of = -(-sum(counts.values()) // MOST)
    part = pl.coalesce("prompt_id", "dialogue_id").hash(seed=0) % of == 0
    splits = [split for split in loading.SPLITS if counts.get(split)]
    table = pl.concat(
        loading.scan(source, "preferences", split).filter(part).with_columns(split=pl.lit(split)).collect()
        for split in splits
    )
    frame = table.select(
        prompt=_said("prompt"),
        chosen=_said("chosen"),
        rejected=_said("rejected"),
        persona="persona_id",
        wish="system",
        dimension="dimension",
        chosen_model="chosen_model",
        rejected_model="rejected_model",
        split="split",
        label="label",
        p_chosen="p_chosen",
    )
    space = preferences.of_manifest(manifest)
    return Pairs(source, frame, _points(table, space), manifest)


def _said(name: str) -> pl.Expr:
    import polars as pl

    return pl.col(name).list.last().struct.field("content")


def _points(table: pl.DataFrame, space: preferences.Space) -> Array:
    """What people want: of a pair about one dimension what they want there, of others all that they want."""
    values = np.array(table["profile"].struct.field("values").to_list(), dtype=object)
    numbers = np.array(table["profile"].struct.field("vector").to_list(), dtype=float)
    names = [(place, pole) for place, name in enumerate(space.dimensions) for pole in space.poles[name]]
    if space.kind in ("weights", "bipolar"):  # a number for each dimension says it all
        wanted = [numbers[:, place] for place in range(numbers.shape[1])]
        of = list(range(numbers.shape[1]))
    else:
        wanted = [(values[:, place] == pole).astype(float) for place, pole in names]
        of = [place for place, _ in names]
    points = np.stack(wanted, axis=1)
    about = np.array(
        [list(space.dimensions).index(name) if name in space.dimensions else -1 for name in table["dimension"]]
    )
    elsewhere = (about[:, None] >= 0) & (about[:, None] != np.array(of)[None, :])
    return np.where(elsewhere, 0.0, points)


def _others(path: Path, columns: dict[str, str]) -> Pairs:
    import polars as pl

    wrong = [name for name in columns if name not in COLUMNS]
    if wrong:
        raise UsageError(
            f"--columns: {wrong[0]!r} is none of: {', '.join(COLUMNS)}{nearest(wrong[0], COLUMNS)}".rstrip("?") + "."
        )
    table = _table(path)
    given = {name: columns.get(name, name) for name in COLUMNS}
    for name in ("chosen", "rejected"):
        if given[name] not in table.columns:
            raise SourceError(
                f"{path} has no column {given[name]!r} for {name}; it has: {', '.join(table.columns)}. Name it with "
                f"--columns {name}=COLUMN."
            )
    missing = [
        f"{one!r} for {name}{nearest(one, table.columns).removesuffix('?')}"
        for name, column in columns.items()
        for one in column.split("+")
        if one not in table.columns
    ]
    if missing:
        raise SourceError(f"{path} has no column {', and none '.join(missing)}; it has: {', '.join(table.columns)}.")
    texts = {name: _text(table, given[name], path) for name in ("prompt", "chosen", "rejected", "wish")}
    plain = {
        name: table[given[name]].cast(pl.String)
        if given[name] in table.columns
        else pl.Series([None] * table.height, dtype=pl.String)
        for name in ("persona", "dimension", "chosen_model", "rejected_model")
    }
    frame = pl.DataFrame({**texts, **plain}).with_columns(
        pl.col("prompt", "wish").fill_null(""),
        split=pl.lit(None, pl.String),
        label=pl.lit(None, pl.String),
        p_chosen=pl.lit(None, pl.Float64),
    )
    whole = frame["chosen"].is_not_null() & frame["rejected"].is_not_null() & (frame["chosen"] != frame["rejected"])
    if not whole.any():
        raise SourceError(f"{path} has no pair of two different texts.")
    of = -(-frame.height // MOST)
    taken = whole & (frame["prompt"].hash(seed=0) % of == 0)
    taken = taken if taken.any() else whole  # all of one prompt
    named = given["profile"].split("+") if given["profile"].split("+")[0] in table.columns else []
    profiles = _columns(table.filter(taken), named) if named else None
    about = [
        ", ".join(f"{name}: {one}" for name, one in row.items()) for row in table.filter(taken).select(named).to_dicts()
    ]
    return Pairs(str(path), frame.filter(taken), profiles, None, int((~whole).sum()), about)


def _table(path: Path) -> pl.DataFrame:
    import polars as pl

    if (path / "manifest.json").is_file():
        raise SourceError(f"{path} is a dataset of SimForge: its columns are known, so leave --columns out.")
    if not path.is_file():
        raise SourceError(f"there is no file {path}.")
    if path.suffix not in SUFFIXES:
        raise SourceError(f"{path}: pairs come as {', '.join(SUFFIXES)}.")
    try:
        if not path.stat().st_size:
            raise SourceError(f"{path} is empty.")
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        return pl.read_csv(path) if path.suffix == ".csv" else pl.read_ndjson(path, infer_schema_length=None)
    except (OSError, pl.exceptions.PolarsError) as problem:
        raise SourceError(f"{path} cannot be read: {str(problem).splitlines()[0]}.") from None


def _text(table: pl.DataFrame, name: str, path: Path) -> pl.Series:
    """A column of texts, or of dialogues (also as JSON), of which the last message counts. Raises `SourceError`."""
    import polars as pl

    if name not in table.columns:
        return pl.Series([""] * table.height)
    column = table[name]
    if isinstance(column.dtype, pl.List):
        inner = column.dtype.inner
        if isinstance(inner, pl.Struct) and "content" in {field.name for field in inner.fields}:
            return column.list.last().struct.field("content")
        return column.list.last().cast(pl.String)
    if column.dtype != pl.String:
        raise SourceError(f"{path}: the column {name!r} holds {column.dtype}, not texts or lists of messages.")
    return pl.Series(name, [None if one is None else _last(one) for one in column], dtype=pl.String)


def _last(text: str) -> str:
    """The last message of a dialogue that is written as JSON; any other text as it is."""
    if not text.startswith("[{"):
        return text
    try:
        last = json.loads(text)[-1]["content"]
    except (ValueError, LookupError, TypeError):
        return text
    return last if isinstance(last, str) else text


def _columns(table: pl.DataFrame, names: list[str]) -> Array:
    """Columns of a profile as numbers: a 0 or 1 for each value of words, numbers as they are, lists spread out."""
    import polars as pl

    found: list[Array] = []
    for name in names:
        column = table[name]
        if isinstance(column.dtype, pl.List):
            rows = [row or [] for row in column.to_list()]
            wide = max(map(len, rows))
            if any(len(row) != wide for row in rows) or not column.dtype.inner.is_numeric():
                raise SourceError(f"{name}: a profile's list holds numbers, as many in each row.")
            found += list(np.array(rows, dtype=float).T)
        elif column.dtype.is_numeric() and column.n_unique() > 2:
            values = column.cast(pl.Float64).fill_nan(None)
            found.append(values.fill_null(values.mean() or 0.0).to_numpy())  # in the middle, and said to be unknown
            if values.null_count():
                found.append(values.is_null().to_numpy().astype(float))
        else:
            words = column.cast(pl.String)
            levels = words.drop_nulls().value_counts(sort=True)[name].head(LEVELS).to_list()
            found += [(words == level).fill_null(False).to_numpy().astype(float) for level in levels]
    return np.stack(found, axis=1) if found else np.zeros((table.height, 1))
