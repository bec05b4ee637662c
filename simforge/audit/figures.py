"""Figures: a number with its sample size and a 95 % interval, or the reason why there is none.

share(81, 100)                  {"value": 0.81, "n": 100, "interval": [0.72, 0.87]}
not_measured("no judge")        {"not_measured": "no judge"}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

from simforge.judging.reliability import wilson
from simforge.types import JsonObject

Array = np.ndarray[Any, np.dtype[Any]]


class Figure(TypedDict, total=False):
    """A measured number, or the reason why there is none."""

    value: float
    n: int
    "Number of things that were measured."
    interval: list[float]
    "95 % interval: low and high."
    chance: list[float]
    "What chance alone gives, low and high."
    not_measured: str


Results = JsonObject
"Results of an audit, or a part of them: figures by key, nested as in audit.json."


RESAMPLES = 1_000
"Resamples of a bootstrap."


MIN_ITEMS = 30
"Fewest items from which a figure is measured."


MIN_CLUSTERS = 10
"Fewest clusters for an interval: with five, a 95 % interval covers the truth in only 80 %."


BLOCK_SIZE, MANY_CLUSTERS = 50, 5_000
"Resamples drawn at once, and number of clusters above which fewer resamples are enough."


def share(hits: int, total: int) -> Figure:
    """Share with its Wilson interval."""
    if total < 1:
        return not_measured("there is nothing to count")
    result = wilson(hits, total)
    low, high = result["interval"]
    return {
        "value": result["share"],
        "n": total,
        "interval": [min(low, result["share"]), max(high, result["share"])],
    }


def mean(values: Array, clusters: Sequence[Any] | Array | None = None) -> Figure:
    """Mean with its bootstrap interval. With `clusters`, whole clusters are resampled (a person
    contributes several rows)."""
    if len(values) < MIN_ITEMS:
        return not_measured(f"{len(values)} rows are too few")
    names = np.asarray(clusters) if clusters is not None else np.arange(len(values))
    _, cluster_index = np.unique(
        names.astype(str) if names.dtype == object else names, return_inverse=True
    )
    sums, counts = (
        np.bincount(cluster_index, weights=values),
        np.bincount(cluster_index),
    )
    if len(sums) < MIN_CLUSTERS:
        return not_measured(f"{len(sums)} clusters are too few for an interval")
    rng, means = np.random.default_rng(0), []
    times = RESAMPLES if len(sums) <= MANY_CLUSTERS else RESAMPLES // 5
    for _ in range(0, times, BLOCK_SIZE):  # all at once could fill the memory
        drawn = rng.integers(0, len(sums), (BLOCK_SIZE, len(sums)))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return {
        "value": float(values.mean()),
        "n": len(values),
        "interval": [float(low), float(high)],
    }


def clustered_share(hits: Array, clusters: Sequence[Any]) -> Figure:
    """Share of rows that are hits, with an interval that resamples whole clusters. Where every
    row is a cluster of its own, or all rows agree, it is Wilson's, for the number of
    clusters."""
    count = len(set(clusters))
    if not len(hits):
        return not_measured("there is nothing to count")
    result = share(int(hits.sum()), len(hits))
    if count == len(hits):
        return result
    if hits.all() or not hits.any() or count < MIN_CLUSTERS or len(hits) < MIN_ITEMS:
        wide = share(round(float(hits.mean()) * count), count)
        low, high = wide["interval"]
        value = result["value"]
        return {**result, "interval": [min(low, value), max(high, value)]}
    return mean(hits.astype(float), np.asarray(clusters, dtype=object))


def not_measured(reason: str) -> Figure:
    return {"not_measured": reason}


def measured(figure: Figure) -> bool:
    return "value" in figure
