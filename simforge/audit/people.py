"""People: whether those of a dataset are as their pack says, and how many different ones they are.

They are held against people who are freshly drawn from the same pack, and beside each gap stands what chance alone
gives: the same gap of as many fresh people.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from simforge import clusters, hub, loading, personas
from simforge.audit import figures
from simforge.audit.figures import Array, Figure, not_measured
from simforge.errors import NotFound, SimForgeError, SourceError
from simforge.identity import digest
from simforge.personas.proof import cramers_v

FRESH = 10_000
"People drawn from the pack to hold these against."
DRAWS = 100
"Lots of fresh people, each as many as the dataset has."
SURE, SLACK = 5.0, 0.05
"Standard deviations from what chance gives, and error of Cramer's V, from which a pair of traits is off."
LEVELS, BINS = 30, 10
"Values of a trait that are told apart, and bins of a number."
COMMON = 0.5
"Share of people that the values which are told apart must cover: names are not compared."
VENDI = 1_000
"People among whom different ones are counted: the figure depends on it."
LOTS = 6
"Of so many people each, by which it is seen how far the figure varies."
SAMPLE = 10_000
"People compared for near-duplicates at most."


def measure(source: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """`marginals` (total variation of each trait), `joints` (error of Cramer's V over all pairs of traits), `effective`
    (Vendi score, Friedman and Dieng 2023, arXiv 2210.02410, over that of fresh people) and `near_duplicates`; of the
    traits that were published. Raises what `loading.scan` raises."""
    table = loading.scan(source, "personas").collect()
    people = table.select(name for name in manifest["traits"] if name in table.columns)
    texts = table["text"] if "text" in table.columns else None
    near = {"near_duplicates": _near(people, texts)}
    try:
        fresh = _drawn_again(source, manifest)
    except SimForgeError as problem:
        reason = not_measured(str(problem).rstrip("."))
        return {"marginals": reason, "joints": {"error": reason}, "effective": {"ratio": reason}, **near}
    coded = {
        name: _coded(people[name], fresh[name])
        for name in people.columns
        if fresh[name].null_count() == 0 and fresh[name].n_unique() > 1
    }
    names = [name for name, one in coded.items() if one[3] or (one[1] < LEVELS).mean() >= COMMON]
    seen = [coded[name] for name in names]
    if not seen:
        reason = not_measured("no trait that was published has several values that many people share")
        return {"marginals": reason, "joints": {"error": reason}, "effective": {"ratio": reason}, **near}
    here, there = (np.stack([one[side] for one in seen], axis=1) for side in (0, 1))
    return {
        "marginals": _marginals(names, here, there, seen),
        "joints": _joints(names, here, there),
        "effective": _effective(here, there, [len(one[2]) if one[3] else 0 for one in seen]),
        **near,
    }


def _drawn_again(source: str, manifest: dict[str, Any]) -> pl.DataFrame:
    """Fresh people from the same pack. Raises `SimForgeError` where it is not at hand, or gives none."""
    name = manifest["cast"]["of"]
    if manifest["identity"]["cast"] is not None:
        raise SourceError(f"the people came from a file ({name}) and were not drawn for this run.")
    try:
        pack = personas.load(name)
    except NotFound:  # somebody's own: it lies in the table's files
        pack = personas.pack_of(_file(source))
    if digest(pack.content()) != manifest["identity"]["pack"]:
        raise SourceError(f"the pack {name} that is here is not the one that the people were drawn from.")
    try:
        return personas.sample(pack, FRESH, manifest["seed"] + 1).frame
    except OSError:
        raise SourceError(f"the pack {name} draws from files that are not here.") from None


def _file(source: str) -> Path:
    """A file of the people's table. Raises `SourceError` where it is not on this machine."""
    folder = hub.pull(source, tables=("personas",)) if hub.is_version(source) else Path(source)
    found = next(iter(sorted(folder.glob("data/personas/*.parquet"))), None)
    if found is None:
        raise SourceError(f"the pack of the people of {source} is not here.")
    return found


def _coded(own: pl.Series, fresh: pl.Series) -> tuple[Array, Array, list[str], bool]:
    """A trait's values as numbers, here and among fresh people, their names, and whether they are ordered: the most
    common values and the rest, or bins of about equal size."""
    if fresh.dtype.is_numeric() and fresh.n_unique() > BINS:
        edges = np.unique(np.quantile(fresh.to_numpy(), np.linspace(0, 1, BINS + 1)[1:-1]))
        names = [f"below {edges[0]:.4g}", *(f"from {edge:.4g}" for edge in edges)]
        return *(np.searchsorted(edges, one.to_numpy(), side="right") for one in (own, fresh)), names, True  # type: ignore[return-value]
    words = [one.cast(pl.String) for one in (own, fresh)]
    common = words[1].value_counts(sort=True).head(LEVELS)[words[1].name].to_list()
    place = {word: number for number, word in enumerate(common)}
    coded = [np.array([place.get(word, len(common)) for word in one]) for one in words]
    return coded[0], coded[1], [*common, "others"], False


def _marginals(
    names: list[str], here: Array, there: Array, seen: list[tuple[Array, Array, list[str], bool]]
) -> dict[str, Any]:
    found = {}
    source = np.random.default_rng(0)
    for number, name in enumerate(names):
        values = seen[number][2]
        asked = np.bincount(there[:, number], minlength=len(values)) / len(there)
        got = np.bincount(here[:, number], minlength=len(values)) / len(here)
        chance = [_variation(one / len(here), asked) for one in source.multinomial(len(here), asked, 200)]
        again = [_variation(one / len(here), asked) for one in source.multinomial(len(here), got, 200)]
        found[name] = {
            **_gap(_variation(got, asked), len(here), chance, again),
            "values": values,
            "asked": asked.tolist(),
            "got": got.tolist(),
        }
    return found


def _variation(one: Array, other: Array) -> float:
    return float(np.abs(one - other).sum() / 2)


def _gap(value: float, n: int, chance: Sequence[float] | Array, again: Sequence[float] | Array) -> Figure:
    """A gap, with its interval by the spread of resampled people, and what chance gives."""
    error = 1.96 * float(np.std(again))
    low, high = np.quantile(chance, [0.025, 0.975])
    interval = [max(0.0, value - error), value + error]
    return {"value": value, "n": n, "interval": interval, "chance": [float(low), float(high)]}


def _joints(names: list[str], here: Array, there: Array) -> dict[str, Any]:
    """The mean error of Cramer's V over pairs of traits, and the pairs that go together otherwise than in the pack
    (`off`, worst first)."""
    pairs = list(combinations(range(len(names)), 2))
    if not pairs or len(here) < figures.FEW:
        return {"error": not_measured("it takes two traits and thirty people")}
    asked, got = _associations(there, pairs), _associations(here, pairs)
    source = np.random.default_rng(0)
    chance, again = (
        np.array([_associations(table[source.integers(0, len(table), len(here))], pairs) for _ in range(DRAWS)])
        for table in (there, here)
    )
    error, beyond = np.abs(got - asked), np.abs(got - chance.mean(axis=0)) / np.maximum(chance.std(axis=0), 1e-3)
    off = [place for place in np.argsort(-beyond) if beyond[place] > SURE and error[place] > SLACK]
    return {
        "error": _gap(
            float(error.mean()), len(here), *(np.abs(drawn - asked).mean(axis=1) for drawn in (chance, again))
        ),
        "off": [
            {
                "traits": [names[one] for one in pairs[place]],
                "here": float(got[place]),
                "asked": float(asked[place]),
                "by_chance": [float(one) for one in np.quantile(chance[:, place], [0.025, 0.975])],
            }
            for place in off
        ],
        "pairs": len(pairs),
    }


def _associations(table: Array, pairs: list[tuple[int, int]]) -> Array:
    levels = table.max(axis=0) + 1
    return np.array(
        [
            cramers_v(
                np.bincount(table[:, a] * levels[b] + table[:, b], minlength=levels[a] * levels[b]).reshape(
                    levels[a], levels[b]
                ),
                corrected=True,
            )
            for a, b in pairs
        ]
    )


def _effective(here: Array, there: Array, ordered: list[int]) -> dict[str, Any]:
    """How many different people there are among so many, over how many there are among fresh ones."""
    count = min(VENDI, int(0.8 * len(here)))
    if count < figures.FEW:
        return {"ratio": not_measured(f"{len(here)} people are too few")}
    source = np.random.default_rng(0)
    own, fresh = (
        [vendi(table[source.choice(len(table), count, replace=False)], ordered) for _ in range(LOTS)]
        for table in (here, there)
    )
    ratios = np.divide(own, np.mean(fresh))
    error = 1.96 * float(np.hypot(np.std(own) / np.mean(own), np.std(fresh) / np.mean(fresh)) * ratios.mean())
    value = float(ratios.mean())
    return {
        "ratio": {"value": value, "n": count, "interval": [value - error, value + error]},
        "score": float(np.mean(own)),
    }


def vendi(people: Array, ordered: list[int]) -> float:
    """The Vendi score of people (people, traits), of whom two are as similar as the mean over their traits: 1 for the
    same value and 0 for another, or less the further apart two of `ordered` many bins are."""
    count = len(people)
    kernel = np.zeros((count, count))
    for number, bins in enumerate(ordered):
        column = people[:, number]
        apart = np.abs(column[:, None] - column[None, :])
        kernel += np.maximum(0, 1 - apart / (bins - 1)) if bins > 1 else apart == 0
    values = np.linalg.eigvalsh(kernel / (len(ordered) * count))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def _near(people: pl.DataFrame, texts: pl.Series | None) -> Figure:
    """The share of people who are nearly the same as one before them."""
    near = clusters.of_people(people.head(SAMPLE), None if texts is None else texts.head(SAMPLE).to_list())
    return figures.share(len(near) - len(set(near)), len(near))
