"""Selection: whom the filters drop.

A filter that drops some people's comparisons more than others' changes who speaks in the data; here is by how much, for
each group of people that the pack and the space tell apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from simforge.preferences import Space

if TYPE_CHECKING:
    import polars as pl

    from simforge.personas import Pack

GROUPS = 12
"Most values of a trait that make groups; numbers of more values are cut into quarters."
VISIBLE = 0.01
"Smallest difference of a group's share that is told."
SMALL = 30
"Comparisons below which a group's share says nothing."


def summary(data: Path, pack: Pack, space: Space) -> dict[str, Any]:
    """Share of comparisons that became no pair: of all, and by group where that lies off the share of all by more than
    chance (95 % Wilson interval), widest first."""
    import polars as pl

    from simforge.reliability import wilson

    ends = ["candidates", "judging", "pairing"]
    dropped = pl.scan_parquet(data / "discards" / "*.parquet").filter(pl.col("stage").is_in(ends), pl.col("turn") >= 0)
    kept = pl.scan_parquet(data / "preferences" / "*.parquet")
    counts = pl.concat(
        [
            dropped.select("persona_id", dropped=pl.lit(1, pl.Int64)),
            kept.select("persona_id", dropped=pl.lit(0, pl.Int64)),
        ]
    )
    by_person = counts.group_by("persona_id").agg(n=pl.len(), dropped=pl.col("dropped").sum()).collect()
    of, out = int(by_person["n"].sum()), int(by_person["dropped"].sum())
    if not of:
        return {"comparisons": 0, "groups": []}
    people = (
        pl.scan_parquet(data / "personas" / "*.parquet").collect().join(by_person, left_on="id", right_on="persona_id")
    )
    groups = []
    for name, column in _groups(people, pack, space):
        table = people.with_columns(column.alias("value")).group_by("value").agg(pl.col("n", "dropped").sum())
        for value, n, lost in table.drop_nulls("value").filter(pl.col("n") >= SMALL).sort("value").iter_rows():
            share = wilson(lost, n)
            low, high = share["interval"]
            if not low <= out / of <= high and abs(lost / n - out / of) >= VISIBLE:
                groups.append({"group": name, "value": str(value), **share})
    groups.sort(key=lambda one: -abs(one["share"] - out / of))
    return {"comparisons": of, "share": out / of, "groups": groups}


def _groups(people: pl.DataFrame, pack: Pack, space: Space) -> list[tuple[str, pl.Series]]:
    """Traits of few values, numbers in quarters, and the poles that people want."""
    import polars as pl

    found = []
    for name in pack.traits:
        column = people[name]
        if column.n_unique() <= GROUPS:
            found.append((name.replace("_", " "), column.cast(pl.String)))
        elif column.dtype.is_numeric():
            found.append((name.replace("_", " "), column.qcut(4, allow_duplicates=True).cast(pl.String)))
    if len(space.dimensions) <= GROUPS:
        for place, name in enumerate(space.dimensions):
            wanted = people["profile"].struct.field("values").list.get(place)
            if wanted.n_unique() <= GROUPS:
                found.append((f"wants ({name})", wanted))
    return found
