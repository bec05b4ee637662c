"""Selection: whom the filters drop.

A filter that drops some people's comparisons more than others' changes who speaks in the data; here is by how much, for
each group of people that the pack and the space tell apart.
"""

from __future__ import annotations

import bisect
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simforge.preferences import Space
from simforge.reliability import wilson

if TYPE_CHECKING:
    import polars as pl

    from simforge.personas import Pack

GROUPS = 12
"Most values of a trait that make groups; numbers of more values are cut into quarters."
SMALL = 30
"Comparisons below which a group's share says nothing."


def summary(data: Path, pack: Pack, space: Space) -> dict[str, Any]:
    """Share of comparisons that became no pair: of all, and of each group that differs from that by more than chance
    would have it (binomial test, corrected for the number of groups after Bonferroni), widest first."""
    import polars as pl
    from scipy.stats import binomtest

    lost = pl.scan_parquet(data / "discards" / "*.parquet").filter(pl.col("stage").is_in(["candidates", "pairing"]))
    kept = pl.scan_parquet(data / "preferences" / "*.parquet")
    both = (frame.select("persona_id", dropped=pl.lit(out, pl.Int64)) for frame, out in ((lost, 1), (kept, 0)))
    counts = pl.concat(both).group_by("persona_id").agg(n=pl.len(), dropped=pl.col("dropped").sum())
    people = (
        pl.scan_parquet(data / "personas" / "*.parquet").join(counts, left_on="id", right_on="persona_id").collect()
    )
    of, out = int(people["n"].sum()), int(people["dropped"].sum())
    if not of:
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
        if n >= SMALL
    ]
    bound = 0.05 / max(1, len(groups))
    odd = [one for one in groups if binomtest(round(one["share"] * one["n"]), one["n"], out / of).pvalue < bound]
    odd.sort(key=lambda one: -abs(one["share"] - out / of))
    return {"comparisons": of, "share": out / of, "groups": odd}


def _groups(people: pl.DataFrame, pack: Pack, space: Space) -> list[tuple[str, pl.Series]]:
    """Traits of few values, numbers in quarters, and the poles that people want; nothing that is sensitive."""
    import polars as pl

    found = []
    for name, trait in pack.traits.items():
        if trait.sensitive:
            continue
        column = people[name]
        if column.n_unique() <= GROUPS:
            found.append((name.replace("_", " "), column.cast(pl.String)))
        elif column.dtype.is_numeric():
            found.append((name.replace("_", " "), _quarters(column)))
    if len(space.dimensions) <= GROUPS:
        for place, name in enumerate(space.dimensions):
            wanted = people["profile"].struct.field("values").list.get(place)
            if wanted.n_unique() <= GROUPS:
                found.append((f"wants ({name})", wanted))
    return found


def _quarters(column: pl.Series) -> pl.Series:
    """The quarter of the people that each value is in, as an interval."""
    import polars as pl

    cuts = sorted({value for share in (0.25, 0.5, 0.75) if (value := column.quantile(share)) is not None})
    edges = [float("-inf"), *cuts, float("inf")]
    names = [f"({low:g}, {high:g}]" for low, high in itertools.pairwise(edges)]
    values = [None if value is None else names[bisect.bisect_left(cuts, value)] for value in column]
    return pl.Series(column.name, values, dtype=pl.String)
