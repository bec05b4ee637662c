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


def share(hits: int, of: int) -> Figure:
    """A share with its Wilson interval."""
    if of < 1:
        return not_measured("there is nothing to count")
    found = wilson(hits, of)
    return {"value": found["share"], "n": of, "interval": [float(one) for one in found["interval"]]}


def mean(values: Array, clusters: Sequence[Any] | Array | None = None) -> Figure:
    """A mean with its bootstrap interval; with `clusters` whole ones are drawn (people bring several rows each)."""
    if len(values) < FEW:
        return not_measured(f"{len(values)} rows are too few")
    _, place = np.unique(np.asarray(clusters if clusters is not None else np.arange(len(values))), return_inverse=True)
    sums, counts = np.bincount(place, weights=values), np.bincount(place)
    source = np.random.default_rng(0)
    drawn = source.integers(0, len(sums), (RESAMPLES, len(sums))) if len(sums) <= 2_000 else None
    if drawn is None:  # so many that each is drawn about once: Poisson weights are the same
        weights = source.poisson(1.0, (RESAMPLES, len(sums)))
        means = (weights @ sums) / np.maximum(weights @ counts, 1)
    else:
        means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"value": float(values.mean()), "n": len(values), "interval": [float(low), float(high)]}


def not_measured(reason: str) -> Figure:
    return {"not_measured": reason}


def measured(figure: Figure) -> bool:
    return "value" in figure
