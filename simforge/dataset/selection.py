"""Drop rates of groups of people: whether the filters remove some people's comparisons more
than others'.

A filter that drops some people's comparisons more often changes who is represented in the data.
This module measures by how much, for each group of people that the pack and the space define.
"""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from simforge.catalog import records
from simforge.dataset.manifest import DimensionCounts, DropRates
from simforge.judging.reliability import wilson
from simforge.personas.spaces import Space
from simforge.text.languages import language

if TYPE_CHECKING:
    import polars as pl

    from simforge.personas.pack import Pack


MAX_GROUP_VALUES = 12
"Maximum number of values of a trait that form groups; numbers with more are cut into quarters."


MAX_IDENTIFIED = 2_000
"Most dialogues whose language is identified."


MIN_LANGUAGE_SHARE = 0.05
"Smallest share of the dialogues of a language that is named."


MIN_COMPARISONS = 30
"Minimum number of comparisons of a group that is reported."


def drop_rates(folder: Path, pack: Pack, space: Space) -> DropRates:
    """Compute the share of comparisons that gave no pair: overall, and for each group that
    differs from it significantly (exact binomial test, Bonferroni-corrected for the number of
    groups), largest difference first."""
    import polars as pl

    discards = records.scan_table(folder, "discards").filter(
        pl.col("stage").is_in(["candidates", "pairing"])
    )
    pairs = records.scan_table(folder, "preferences")
    frames = (
        frame.select("persona_id", dropped=pl.lit(is_dropped, pl.Int64))
        for frame, is_dropped in ((discards, 1), (pairs, 0))
    )
    counts = (
        pl.concat(frames)
        .group_by("persona_id")
        .agg(n=pl.len(), dropped=pl.col("dropped").sum())
    )
    people = (
        records.scan_table(folder, "personas")
        .join(counts, left_on="id", right_on="persona_id")
        .collect()
    )
    comparisons, dropped_count = int(people["n"].sum()), int(people["dropped"].sum())
    if not comparisons:
        return {"comparisons": 0, "groups": []}
    groups = [
        {"group": name, "value": str(value), **wilson(dropped, n)}
        for name, column in _groups(people, pack, space)
        for value, n, dropped in people.with_columns(column.alias("value"))
        .group_by("value")
        .agg(pl.col("n", "dropped").sum())
        .drop_nulls("value")
        .sort("value")
        .iter_rows()
        if n >= MIN_COMPARISONS
    ]
    bound = 0.05 / max(1, len(groups))
    outliers = [
        group
        for group in groups
        if _binomial_p_value(
            round(group["share"] * group["n"]), group["n"], dropped_count / comparisons
        )
        < bound
    ]
    outliers.sort(key=lambda group: -abs(group["share"] - dropped_count / comparisons))
    return {
        "comparisons": comparisons,
        "share": dropped_count / comparisons,
        "groups": outliers,
    }


def by_dimension(folder: Path, space: Space) -> dict[str, DimensionCounts]:
    """Count the comparisons on each dimension, and the pairs that they gave; empty if answers
    were not compared on dimensions."""
    import polars as pl

    compared = (
        records.scan_table(folder, "judgments")
        .filter(pl.col("dimension").is_not_null(), profile_shown="profile")
        .select("persona_id", "a", "b", "dimension")
        .unique()
        .group_by("dimension")
        .len("comparisons")
    )
    kept = records.scan_table(folder, "preferences").group_by("dimension").len("pairs")
    counts = compared.join(kept, on="dimension", how="left").sort("dimension").collect()
    return {
        name: {
            "comparisons": comparisons,
            "pairs": pairs or 0,
            "measure": space.measure_of(name),
        }
        for name, comparisons, pairs in counts.iter_rows()
    }


def languages(folder: Path) -> list[str]:
    """Return the ISO codes of the languages in which people write in at least a twentieth of
    the dialogues, the commonest first."""
    import polars as pl

    texts = (
        records.scan_table(folder, "turns")
        .group_by("dialogue_id")
        .agg(pl.col("text").str.join(" "))
        .sort("dialogue_id")
        .head(MAX_IDENTIFIED)
        .collect()["text"]
    )
    counts = Counter(code for text in texts if (code := language(text[:2_000])))
    return [
        code
        for code, count in counts.most_common()
        if count >= MIN_LANGUAGE_SHARE * len(texts)
    ]


def _binomial_p_value(hits: int, total: int, share: float) -> float:
    """The p-value of an exact two-sided binomial test: twice the smaller tail, at most 1.
    `scipy.stats` has such a test, but importing it takes longer than a small run."""
    from scipy.special import bdtr, bdtrc

    lower = float(bdtr(hits, total, share))
    upper = float(bdtrc(hits - 1, total, share)) if hits else 1.0
    return min(1.0, 2 * min(lower, upper))


def _groups(
    people: pl.DataFrame, pack: Pack, space: Space
) -> list[tuple[str, pl.Series]]:
    """Group people by traits with few values, by numbers in quarters, and by the poles that
    they want; sensitive traits are skipped."""
    import polars as pl

    groups = []
    for name, trait in pack.traits.items():
        if trait.sensitive:
            continue
        column = people[name]
        if column.n_unique() <= MAX_GROUP_VALUES:
            groups.append((name.replace("_", " "), column.cast(pl.String)))
        elif column.dtype.is_numeric():
            groups.append((name.replace("_", " "), _quarters(column)))
    if len(space.dimensions) <= MAX_GROUP_VALUES:
        for index, name in enumerate(space.dimensions):
            wanted_poles = people["profile"].struct.field("values").list.get(index)
            if wanted_poles.n_unique() <= MAX_GROUP_VALUES:
                groups.append((f"wants ({name})", wanted_poles))
    return groups


def _quarters(column: pl.Series) -> pl.Series:
    """Map each value to the quarter of the people that it is in, written as an interval."""
    import polars as pl

    cuts = sorted(
        {
            value
            for share in (0.25, 0.5, 0.75)
            if (value := column.quantile(share)) is not None
        }
    )
    edges = [float("-inf"), *cuts, float("inf")]
    names = [f"({low:g}, {high:g}]" for low, high in itertools.pairwise(edges)]
    values = [
        None if value is None else names[bisect.bisect_left(cuts, value)]
        for value in column
    ]
    return pl.Series(column.name, values, dtype=pl.String)
