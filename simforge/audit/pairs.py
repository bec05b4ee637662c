"""Pairs: preference data as the audit reads it, from SimForge or from elsewhere.

    read("OUT")                                       a run, a URL, or a version on the Hub
    read("mine.parquet", {"persona": "user_id"})      a file from elsewhere, columns named

`shapes` says how a row becomes a prompt and two answers. All that is known about the
person is a row of numbers: the profile in data of SimForge, the columns named as profile in
other data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simforge.audit import features, figures, shapes
from simforge.audit.figures import Array
from simforge.catalog import records
from simforge.dataset.manifest import Manifest
from simforge.errors import SourceError, UsageError, suggest
from simforge.hub import loading
from simforge.personas import spaces
from simforge.text.measures import WORD

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
    "a",
    "b",
    "label",
)
"""Columns that can be named in data from elsewhere. `chosen` and `rejected` are required, or `a`,
`b` and `label` (which of the two is better)."""


UNASKED_COLUMNS = tuple(
    name for name in COLUMNS if name not in ("profile", "a", "b", "label")
)
"Columns that are recognised by their own name without being named."


MAX_PAIRS = 100_000
"Most pairs that are read, approximately."


MAX_LEVELS = 60
"Most different words of a profile column that get a 0/1 column of their own."


MIN_TEXT_WORDS = 3.0
"Average number of words from which the values of a profile column are read as texts."


MAX_WISHES = 12
"Most different profiles that count as wishes, for figures by wish."


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

    left_out: Mapping[str, int] = field(default_factory=dict)
    "Rows that were left out, by reason."
    descriptions: list[str] | None = None
    "Profile of the person in words, for data from elsewhere."
    why_no_profiles: str = ""
    "The reason why there are no profiles, in words."
    unread_profiles: tuple[str, ...] = ()
    "Profile columns that could not be used, each with the reason."
    profile_texts: int = 0
    "Number of different texts, if profiles were read as texts."
    note: str = ""
    "How a file from elsewhere was read, if that is not plain."

    def __len__(self) -> int:
        return self.frame.height

    @property
    def rows(self) -> int:
        """Number of rows of the source, with those that were left out."""
        return self.frame.height + sum(self.left_out.values())

    @property
    def owners(self) -> list[str]:
        """Group of each pair that intervals resample as a whole: people, or the same two
        answers to one prompt, whichever are fewer groups, since both repeat themselves. If
        fewer than ten people are known, the prompt (the people then count as fixed); if there
        are fewer than ten prompts too, the pair itself."""
        frame = self.frame
        people = frame["persona"]
        groupings: list[list[str]] = []
        if not people.null_count() and people.n_unique() >= figures.MIN_CLUSTERS:
            groupings = [people.cast(str).to_list(), self._answer_groups()]
        elif frame["prompt"].n_unique() >= figures.MIN_CLUSTERS:
            groupings = [frame["prompt"].to_list()]
        else:
            groupings = [self._answer_groups()]
        enough = [
            groups for groups in groupings if len(set(groups)) >= figures.MIN_CLUSTERS
        ]
        if not enough:
            return [str(number) for number in range(frame.height)]
        return min(enough, key=lambda groups: len(set(groups)))

    def _answer_groups(self) -> list[str]:
        return [
            "\x1f".join([prompt or "", *sorted((chosen, rejected))])
            for prompt, chosen, rejected in self.frame.select(
                "prompt", "chosen", "rejected"
            ).iter_rows()
        ]

    @property
    def wishes(self) -> list[str]:
        """The wish of the person of each pair, in words; empty where unknown. Profiles count as
        wishes if there are few different ones."""
        wishes = [wish or "" for wish in self.frame["wish"]]
        if not any(wishes) and self.descriptions:
            wishes = self.descriptions
        return wishes if len(set(wishes)) <= MAX_WISHES else [""] * len(wishes)


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
    return not columns and (not records.format_of(path) or path.is_dir())


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
    used = _columns_of(table, columns, path)
    texts = shapes.read_texts(table, used, str(path))
    models = ("chosen_model", "rejected_model")
    named = {
        name: _text_values(table, used, name, path)
        for name in ("persona", "wish", "dimension", *models)
    }
    frame = pl.DataFrame(
        {
            "prompt": pl.Series(texts.prompt, dtype=pl.String),
            "chosen": pl.Series(texts.chosen, dtype=pl.String),
            "rejected": pl.Series(texts.rejected, dtype=pl.String),
            **named,
        }
    ).with_columns(
        pl.col("prompt", "wish").fill_null(""),
        split=pl.lit(None, pl.String),
        label=pl.lit(None, pl.String),
        p_chosen=pl.lit(None, pl.Float64),
    )
    usable = frame["chosen"].is_not_null() & frame["rejected"].is_not_null()
    if not usable.any():
        raise SourceError(f"{path} has no pair of two different texts.")
    left_out = dict(texts.left_out)
    profile_columns = used["profile"].split("+") if "profile" in used else []
    profile_table = pl.DataFrame(
        [records.column(table, name, str(path)) for name in profile_columns]
    )
    repeats = _repeats(frame, profile_table)
    left_out |= (
        {REPEATED: int((usable & repeats).sum())} if (usable & repeats).any() else {}
    )
    usable &= ~repeats
    parts = -(-int(usable.sum()) // MAX_PAIRS)
    kept = usable & (frame["prompt"].hash(seed=0) % parts == 0)
    kept = kept if kept.any() else usable  # all pairs share one prompt
    if int(kept.sum()) < int(usable.sum()):
        left_out[f"not drawn: at most {MAX_PAIRS:,} are read"] = int(
            (usable & ~kept).sum()
        )
    profile_table = profile_table.filter(kept) if profile_columns else profile_table
    encoded = _encode_profiles(profile_table) if profile_columns else None
    descriptions = [
        ", ".join(f"{name}: {value}" for name, value in row.items())
        for row in profile_table.to_dicts()
    ] or [""] * int(kept.sum())
    return Pairs(
        str(path),
        frame.filter(kept),
        encoded.values if encoded else None,
        None,
        left_out,
        descriptions,
        why_no_profiles=_why_no_profiles(table, encoded),
        unread_profiles=encoded.unread if encoded else (),
        profile_texts=encoded.texts if encoded else 0,
        note=texts.note,
    )


def _columns_of(
    table: pl.DataFrame, columns: dict[str, str], path: Path
) -> dict[str, str]:
    """Return the column of each role that the table has. Raises `SourceError`."""
    labelled = [name for name in ("a", "b", "label") if name in columns]
    if labelled and len(labelled) < 3:
        raise UsageError(
            "--columns: a, b and label belong together, for example "
            "--columns a=answer_a b=answer_b label=better."
        )
    sides = ("a", "b") if labelled else ("chosen", "rejected")
    used = {
        name: columns.get(name, name)
        for name in UNASKED_COLUMNS
        if name in columns or name in table.columns
    } | columns
    for name in sides:
        if name not in used or not records.has_column(table, used[name]):
            raise SourceError(
                f"{path} has no column {used.get(name, name)!r} for {name}; it has: "
                f"{', '.join(table.columns)}. Name it with --columns {name}=COLUMN."
            )
    missing = [
        f"{part!r} for {name}{suggest(part, table.columns).removesuffix('?')}"
        for name, column in columns.items()
        for part in column.split("+")
        if not records.has_column(table, part)
        and not (name == "label" and records.has_column(table, part.rpartition(":")[0]))
    ]
    if missing:
        raise SourceError(
            f"{path} has no column {', and none '.join(missing)}; it has: "
            f"{', '.join(table.columns)}."
        )
    return used


def _text_values(
    table: pl.DataFrame, used: dict[str, str], name: str, path: Path
) -> pl.Series:
    import polars as pl

    if name not in used:
        return pl.Series([None] * table.height, dtype=pl.String)
    return records.column(table, used[name], str(path)).cast(pl.String)


REPEATED = "repeats of another row"
"Reason for which a row is left out that says the same of the same person once more."


def _repeats(frame: pl.DataFrame, profiles: pl.DataFrame) -> pl.Series:
    """Return true for each row that an earlier row repeats: the same texts, preferred by the
    same person, or where the person is unknown, by somebody with the same wish and profile."""
    import polars as pl

    profile = (
        profiles.hash_rows(seed=0).cast(pl.String)
        if profiles.width
        else pl.Series([""] * frame.height, dtype=pl.String)
    )
    by_profile = pl.concat_str(
        pl.col("wish").fill_null(""), pl.Series("profile", profile), separator="\x1f"
    )
    owner = pl.coalesce("persona", by_profile)
    return frame.select(
        ~pl.struct(
            owner.alias("owner"),
            "prompt",
            "chosen",
            "rejected",
            pl.col("dimension").fill_null(""),
        ).is_first_distinct()
    ).to_series()


def _why_no_profiles(table: pl.DataFrame, encoded: EncodedProfiles | None) -> str:
    if encoded is None:
        hint = " (it has a column 'profile')" if "profile" in table.columns else ""
        return (
            "there are no profiles of the people: name their columns "
            f"(--columns profile=COLUMN){hint}"
        )
    return "" if encoded.values is not None else "; ".join(encoded.unread)


def _read_table(path: Path) -> pl.DataFrame:
    if (path / "manifest.json").is_file():
        raise SourceError(
            f"{path} is a dataset of SimForge: its columns are known, so omit --columns."
        )
    return records.read_table(path)


@dataclass(frozen=True, slots=True)
class EncodedProfiles:
    """Profiles as numbers."""

    values: Array | None
    "Columns (pairs, columns); `None` if no column can be used."
    unread: tuple[str, ...] = ()
    "Columns that cannot be used, each with the reason."
    texts: int = 0
    "Number of different texts, if a column was read as texts."


def _encode_profiles(table: pl.DataFrame) -> EncodedProfiles:
    """Return profile columns as numbers: numbers unchanged, lists one column an element, words
    one column a word, and texts one column a term that they share."""
    import polars as pl

    columns: list[Array] = []
    unread: list[str] = []
    texts = 0
    for name in table.columns:
        series = table[name]
        if isinstance(series.dtype, pl.Struct):
            inner = _encode_profiles(series.struct.unnest())
            columns += [] if inner.values is None else list(inner.values.T)
            unread += [f"{name}.{reason}" for reason in inner.unread]
            texts = max(texts, inner.texts)
        elif isinstance(series.dtype, pl.List):
            columns += _list_columns(series)
        elif series.dtype.is_numeric() and series.n_unique() > 2:
            columns += _number_columns(series)
        else:
            words = series.cast(pl.String)
            encoded = _word_columns(words)
            if encoded is None:
                values = words.fill_null("").to_list()
                terms = features.term_columns(values)
                encoded = list(terms.T)
                if encoded:
                    texts = max(texts, words.n_unique())
                else:
                    unread.append(
                        f"{name!r} holds {words.n_unique()} different texts that share too few "
                        "words"
                    )
            columns += encoded
    stacked = np.stack(columns, axis=1) if columns else None
    return EncodedProfiles(stacked, tuple(unread), texts)


def _number_columns(series: pl.Series) -> list[Array]:
    """A number, with its mean where it is missing, and then a column that marks it."""
    import polars as pl

    values = series.cast(pl.Float64).fill_nan(None)
    columns = [values.fill_null(values.mean() or 0.0).to_numpy()]
    if values.null_count():
        columns.append(values.is_null().to_numpy().astype(float))
    return columns


def _list_columns(series: pl.Series) -> list[Array]:
    """Lists of numbers as a column a place, lists of words as a 0/1 column a word."""
    import polars as pl

    rows = [row or [] for row in series.to_list()]
    inner = series.dtype.inner  # type: ignore[attr-defined]
    if inner == pl.String:
        counts = Counter(word for row in rows for word in set(row))
        common = [word for word, _ in counts.most_common(MAX_LEVELS)]
        return [np.array([float(word in row) for row in rows]) for word in common]
    width = max(map(len, rows), default=0)
    if any(len(row) != width for row in rows) or not inner.is_numeric():
        raise SourceError(
            f"{series.name}: a list in a profile must hold words, or numbers and the same count "
            "in each row."
        )
    return list(np.array(rows, dtype=float).T)


def _word_columns(words: pl.Series) -> list[Array] | None:
    """A 0/1 column for each of the commonest values; `None` if the values are texts, or if the
    commonest are in fewer than half of the rows."""
    counts = words.drop_nulls().value_counts(sort=True)
    levels = counts[words.name].head(MAX_LEVELS).to_list()
    if counts.height > 2:
        lengths = [len(WORD.findall(level)) for level in counts[words.name].head(1_000)]
        covered = int(counts["count"].head(MAX_LEVELS).sum())
        are_texts = sum(lengths) / len(lengths) >= MIN_TEXT_WORDS
        if are_texts or 2 * covered < len(words):
            return None
    return [
        (words == level).fill_null(False).to_numpy().astype(float) for level in levels
    ]
