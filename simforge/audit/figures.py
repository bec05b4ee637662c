"""Figures: a number with how many things it comes from and a 95 % interval, or the reason why there is none.

share(81, 100)                  {"value": 0.81, "n": 100, "interval": [0.72, 0.87]}
not_measured("no judge")        {"not_measured": "no judge"}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from simforge.reliability import wilson

Array = np.ndarray[Any, np.dtype[Any]]
Figure = dict[str, Any]
RESAMPLES = 1_000
"Of a bootstrap."
FEW = 30
"Things from which nothing is measured."
WHOLE = 10
"Clusters that an interval takes: of five it covers the truth in 80 % and not in 95 %."
BLOCK, MANY = 50, 5_000
"Resamples at once, and clusters from which fewer resamples will do."


def share(hits: int, of: int) -> Figure:
    """A share with its Wilson interval."""
    if of < 1:
        return not_measured("there is nothing to count")
    found = wilson(hits, of)
    low, high = found["interval"]
    return {"value": found["share"], "n": of, "interval": [min(low, found["share"]), max(high, found["share"])]}


def mean(values: Array, clusters: Sequence[Any] | Array | None = None) -> Figure:
    """A mean with its bootstrap interval; with `clusters` whole ones are drawn (people bring several rows each)."""
    if len(values) < FEW:
        return not_measured(f"{len(values)} rows are too few")
    named = np.asarray(clusters) if clusters is not None else np.arange(len(values))
    _, place = np.unique(named.astype(str) if named.dtype == object else named, return_inverse=True)
    sums, counts = np.bincount(place, weights=values), np.bincount(place)
    if len(sums) < WHOLE:
        return not_measured(f"{len(sums)} clusters of rows are too few for an interval")
    source, means = np.random.default_rng(0), []
    times = RESAMPLES if len(sums) <= MANY else RESAMPLES // 5
    for _ in range(0, times, BLOCK):  # many clusters at once would fill the memory
        drawn = source.integers(0, len(sums), (BLOCK, len(sums)))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return {"value": float(values.mean()), "n": len(values), "interval": [float(low), float(high)]}


def not_measured(reason: str) -> Figure:
    return {"not_measured": reason}


def measured(figure: Figure) -> bool:
    return "value" in figure
