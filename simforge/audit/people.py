"""People: whether those of a dataset match their pack, and how diverse they are.

They are compared with people freshly sampled from the same pack. Each gap is reported with
the gap that chance alone gives: that of an equal number of fresh people.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl

from simforge.audit import figures
from simforge.audit.figures import Array, Figure, Results, not_measured
from simforge.dataset.manifest import Manifest
from simforge.errors import NotFound, SimForgeError, SourceError
from simforge.hub import huggingface, loading
from simforge.identity import digest
from simforge.personas.cast import sample_cast
from simforge.personas.check import cramers_v
from simforge.personas.files import read_pack
from simforge.personas.loader import load_pack
from simforge.text import near_duplicates

FRESH_PEOPLE = 10_000
"People sampled from the pack as a reference."


CHANCE_RESAMPLES = 100
"Samples of fresh people, each as large as the dataset, that show what chance gives."


OFF_DEVIATIONS, OFF_ERROR = 5.0, 0.05
"Deviation from chance (in SD) and error of Cramer's V above which a pair of traits is off."


MAX_LEVELS, BINS = 30, 10
"Most values of a trait that are distinguished, and number of bins of a numeric trait."


MIN_COVERAGE = 0.5
"Least share of people with a distinguished value; this excludes traits such as names."


VENDI_PEOPLE = 1_000
"Most people in a sample for the Vendi score, which depends on the number of people."


VENDI_SAMPLES = 6
"Samples of people that show how much the Vendi score varies."


MAX_COMPARED = 10_000
"Most people that are compared for near-duplicates."


def measure(source: str, manifest: Manifest) -> Results:
    """Measure `marginals` (total variation of each trait), `joints` (error of Cramer's V over
    all pairs of traits), `effective` (Vendi score, Friedman and Dieng 2023, arXiv
    2210.02410, relative to that of fresh people) and `near_duplicates`, for the published
    traits. Raises what `loading.scan` raises."""
    table = loading.scan(source, "personas").collect()
    people = table.select(name for name in manifest["traits"] if name in table.columns)
    texts = table["text"] if "text" in table.columns else None
    duplicates = {"near_duplicates": _near_duplicates(people, texts)}
    try:
        fresh = _draw_fresh_people(source, manifest)
    except SimForgeError as problem:
        reason = not_measured(str(problem).rstrip("."))
        return {
            "marginals": reason,
            "joints": {"error": reason},
            "effective": {"ratio": reason},
            **duplicates,
        }
    encoded = {
        name: _encode_trait(people[name], fresh[name])
        for name in people.columns
        if fresh[name].null_count() == 0 and fresh[name].n_unique() > 1
    }
    names = [
        name
        for name, trait in encoded.items()
        if trait[3] or (trait[1] < MAX_LEVELS).mean() >= MIN_COVERAGE
    ]
    usable = [encoded[name] for name in names]
    if not usable:
        reason = not_measured(
            "no published trait has several values that many people share"
        )
        return {
            "marginals": reason,
            "joints": {"error": reason},
            "effective": {"ratio": reason},
            **duplicates,
        }
    coded_people, coded_reference = (
        np.stack([trait[side] for trait in usable], axis=1) for side in (0, 1)
    )
    return {
        "marginals": _marginals(names, coded_people, coded_reference, usable),
        "joints": _joints(names, coded_people, coded_reference),
        "effective": _effective_number(
            coded_people,
            coded_reference,
            [len(trait[2]) if trait[3] else 0 for trait in usable],
        ),
        **duplicates,
    }


def _draw_fresh_people(source: str, manifest: Manifest) -> pl.DataFrame:
    """Sample fresh people from the same pack. Raises `SimForgeError` if it is not available or
    samples none."""
    name = manifest["cast"]["of"]
    if manifest["identity"]["cast"] is not None:
        raise SourceError(
            f"the people came from a file ({name}) and were not drawn for this run."
        )
    try:
        pack = load_pack(name)
    except NotFound:  # a user's own pack: it is stored in the files of the table
        pack = read_pack(_personas_file(source))
    if digest(pack.content()) != manifest["identity"]["pack"]:
        raise SourceError(
            f"the pack {name} on this machine is not the one that the people were sampled from."
        )
    try:
        return sample_cast(pack, FRESH_PEOPLE, manifest["seed"] + 1).frame
    except OSError:
        raise SourceError(
            f"the pack {name} samples from files that are not on this machine."
        ) from None


def _personas_file(source: str) -> Path:
    """Find a file of the table of people. Raises `SourceError` if none is on this machine."""
    folder = (
        huggingface.pull(source, tables=("personas",))
        if huggingface.is_version(source)
        else Path(source)
    )
    path = next(iter(sorted(folder.glob("data/personas/*.parquet"))), None)
    if path is None:
        raise SourceError(f"the pack of the people of {source} is not on this machine.")
    return path


def _encode_trait(
    observed: pl.Series, fresh: pl.Series
) -> tuple[Array, Array, list[str], bool]:
    """Encode the values of a trait as integers: those of the dataset, those of fresh people,
    the names of the values, and whether they are ordered. Numbers go into bins of about
    equal size; words into the most common values and `others`."""
    if fresh.dtype.is_numeric() and fresh.n_unique() > BINS:
        edges = np.unique(
            np.quantile(fresh.to_numpy(), np.linspace(0, 1, BINS + 1)[1:-1])
        )
        names = [f"below {edges[0]:.4g}", *(f"from {edge:.4g}" for edge in edges)]
        return (
            *(
                np.searchsorted(edges, column.to_numpy(), side="right")
                for column in (observed, fresh)
            ),
            names,
            True,
        )  # type: ignore[return-value]
    texts = [column.cast(pl.String) for column in (observed, fresh)]
    common = texts[1].value_counts(sort=True).head(MAX_LEVELS)[texts[1].name].to_list()
    code = {word: number for number, word in enumerate(common)}
    coded = [
        np.array([code.get(word, len(common)) for word in column]) for column in texts
    ]
    return coded[0], coded[1], [*common, "others"], False


def _marginals(
    names: list[str],
    people: Array,
    reference: Array,
    encoded: list[tuple[Array, Array, list[str], bool]],
) -> Results:
    result = {}
    rng = np.random.default_rng(0)
    for number, name in enumerate(names):
        values = encoded[number][2]
        expected = np.bincount(reference[:, number], minlength=len(values)) / len(
            reference
        )
        observed = np.bincount(people[:, number], minlength=len(values)) / len(people)
        chance = [
            _total_variation(counts / len(people), expected)
            for counts in rng.multinomial(len(people), expected, 200)
        ]
        resampled = [
            _total_variation(counts / len(people), expected)
            for counts in rng.multinomial(len(people), observed, 200)
        ]
        result[name] = {
            **_gap_figure(
                _total_variation(observed, expected), len(people), chance, resampled
            ),
            "values": values,
            "expected": expected.tolist(),
            "observed": observed.tolist(),
        }
    return result


def _total_variation(first: Array, second: Array) -> float:
    return float(np.abs(first - second).sum() / 2)


def _gap_figure(
    value: float,
    n: int,
    chance: Sequence[float] | Array,
    resampled: Sequence[float] | Array,
) -> Figure:
    """Gap, with its interval from resampled people, and the range that chance gives."""
    error = 1.96 * float(np.std(resampled))
    low, high = np.quantile(chance, [0.025, 0.975])
    interval = [max(0.0, value - error), value + error]
    return {
        "value": value,
        "n": n,
        "interval": interval,
        "chance": [float(low), float(high)],
    }


def _joints(names: list[str], people: Array, reference: Array) -> Results:
    """Mean error of Cramer's V over pairs of traits, and the pairs whose association differs
    from the pack (`off`, worst first)."""
    pairs = list(combinations(range(len(names)), 2))
    if not pairs or len(people) < figures.MIN_ITEMS:
        return {
            "error": not_measured("at least two traits and thirty people are needed")
        }
    expected, observed = _associations(reference, pairs), _associations(people, pairs)
    rng = np.random.default_rng(0)
    chance, resampled = (
        np.array(
            [
                _associations(table[rng.integers(0, len(table), len(people))], pairs)
                for _ in range(CHANCE_RESAMPLES)
            ]
        )
        for table in (reference, people)
    )
    error, deviations = (
        np.abs(observed - expected),
        np.abs(observed - chance.mean(axis=0)) / np.maximum(chance.std(axis=0), 1e-3),
    )
    off = [
        place
        for place in np.argsort(-deviations)
        if deviations[place] > OFF_DEVIATIONS and error[place] > OFF_ERROR
    ]
    return {
        "error": _gap_figure(
            float(error.mean()),
            len(people),
            *(np.abs(drawn - expected).mean(axis=1) for drawn in (chance, resampled)),
        ),
        "off": [
            {
                "traits": [names[trait] for trait in pairs[place]],
                "observed": float(observed[place]),
                "expected": float(expected[place]),
                "by_chance": [
                    float(bound)
                    for bound in np.quantile(chance[:, place], [0.025, 0.975])
                ],
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
                np.bincount(
                    table[:, a] * levels[b] + table[:, b],
                    minlength=levels[a] * levels[b],
                ).reshape(levels[a], levels[b]),
                corrected=True,
            )
            for a, b in pairs
        ]
    )


def _effective_number(
    people: Array, reference: Array, bin_counts: list[int]
) -> Results:
    """Effective number of different people, relative to that of an equal number of fresh
    people."""
    count = min(VENDI_PEOPLE, int(0.8 * len(people)))
    if count < figures.MIN_ITEMS:
        return {"ratio": not_measured(f"{len(people)} people are too few")}
    rng = np.random.default_rng(0)
    scores, fresh_scores = (
        [
            vendi(table[rng.choice(len(table), count, replace=False)], bin_counts)
            for _ in range(VENDI_SAMPLES)
        ]
        for table in (people, reference)
    )
    ratios = np.divide(scores, np.mean(fresh_scores))
    error = 1.96 * float(
        np.hypot(
            np.std(scores) / np.mean(scores),
            np.std(fresh_scores) / np.mean(fresh_scores),
        )
        * ratios.mean()
    )
    value = float(ratios.mean())
    return {
        "ratio": {
            "value": value,
            "n": count,
            "interval": [value - error, value + error],
        },
        "score": float(np.mean(scores)),
    }


def vendi(people: Array, bin_counts: list[int]) -> float:
    """Vendi score of people (people, traits). The similarity of two people is the mean over
    their traits: 1 for the same value and 0 for another; for a trait with bins (their number
    is in `bin_counts`), it falls with the distance of the bins."""
    count = len(people)
    kernel = np.zeros((count, count))
    for number, bins in enumerate(bin_counts):
        column = people[:, number]
        distance = np.abs(column[:, None] - column[None, :])
        kernel += (
            np.maximum(0, 1 - distance / (bins - 1)) if bins > 1 else distance == 0
        )
    values = np.linalg.eigvalsh(kernel / (len(bin_counts) * count))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def _near_duplicates(people: pl.DataFrame, texts: pl.Series | None) -> Figure:
    """Share of people who are near-duplicates of an earlier one."""
    groups = near_duplicates.cluster_people(
        people.head(MAX_COMPARED),
        None if texts is None else texts.head(MAX_COMPARED).to_list(),
    )
    return figures.share(len(groups) - len(set(groups)), len(groups))
