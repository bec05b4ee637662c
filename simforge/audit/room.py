"""Room: whether there is anything personal to learn, over pairs of answers that several people judged.

conflict: the chance that two of those who judged a pair disagree; 0 where all agree, 0.5 of many who toss coins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from simforge.audit import figures
from simforge.audit.figures import Array, not_measured

RESAMPLES = 200
"Of people, for the interval of an ICC."


def measure(pairs: pl.DataFrame) -> dict[str, Any]:
    """Over pairs of answers to one prompt that at least two people judged on the same dimension: how often two of them
    disagree (`conflict`, sum of 2 q (1 - q) m / (m - 1) over pairs), the best that a model can do that knows nothing of
    the person (`ceiling`), and how many are of the minority (`minority`)."""
    first = pl.col("chosen") < pl.col("rejected")
    sides = pairs.select(
        "persona",
        dimension=pl.col("dimension").fill_null(""),
        prompt="prompt",
        a=pl.min_horizontal("chosen", "rejected"),
        b=pl.max_horizontal("chosen", "rejected"),
        side=first,
    ).unique(["persona", "dimension", "prompt", "a", "b"], keep="first", maintain_order=True)
    shared = (
        sides.group_by("dimension", "prompt", "a", "b")
        .agg(m=pl.len(), q=pl.col("side").mean())
        .filter(pl.col("m") > 1)
        .sort("dimension", "prompt", "a", "b")
    )
    share = {"shared_pairs": shared.height, "of": sides.select("dimension", "prompt", "a", "b").n_unique()}
    if shared.height < figures.FEW:
        reason = f"{shared.height or 'no'} pairs of answers were judged by more than one person"
        return {**share, **{name: not_measured(reason) for name in ("conflict", "ceiling", "minority")}}
    q, m = shared["q"].to_numpy(), shared["m"].to_numpy()
    prompts = shared["prompt"].to_list()
    most = np.maximum(q, 1 - q)
    return {
        **share,
        "judges_a_pair": float(m.mean()),
        "conflict": figures.mean(2 * q * (1 - q) * m / (m - 1), prompts),
        "ceiling": figures.mean(most, prompts),
        "minority": figures.mean(1 - most, prompts),
    }


def consistency(pairs: pl.DataFrame, again: pl.DataFrame) -> dict[str, Any]:
    """Of the same people over the same two answers in another run: how often they choose alike, and how much of what
    tells choices apart is the person's and not the run's (ICC(1), Shrout and Fleiss 1979, of two runs)."""
    for one in (pairs, again):
        if one.height and (one["label"] == "construction").all():
            reason = "the labels are by construction: they are the recipe's, and not what somebody chose"
            return {"same": not_measured(reason), "icc": not_measured(reason)}
    key = ["persona", "dimension", "prompt", "a", "b"]
    sides = [
        one.select(
            "persona",
            pl.col("dimension").fill_null(""),
            "prompt",
            a=pl.min_horizontal("chosen", "rejected"),
            b=pl.max_horizontal("chosen", "rejected"),
            side=(pl.col("chosen") < pl.col("rejected")).cast(pl.Float64),
        ).unique(key, keep="first", maintain_order=True)
        for one in (pairs, again)
    ]
    both = sides[0].join(sides[1], on=key, how="inner", suffix="_again", maintain_order="left")
    if both.height < figures.FEW:
        reason = f"the other run has {both.height} of these pairs: reuse its ledger for the answers, and judge anew"
        return {"same": not_measured(reason), "icc": not_measured(reason)}
    values = both.select("side", "side_again").to_numpy()
    people = both["persona"].fill_null("").to_numpy()
    rows = {one: np.flatnonzero(people == one) for one in np.unique(people)}
    names, source = list(rows), np.random.default_rng(0)
    drawn = [
        _icc(values[np.concatenate([rows[names[place]] for place in source.integers(0, len(names), len(names))])])
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "same": figures.mean((values[:, 0] == values[:, 1]).astype(float), people),
        "icc": {"value": _icc(values), "n": both.height, "interval": [float(low), float(high)]},
    }


def _icc(values: Array) -> float:
    """ICC(1) of two measurements of each thing (things, 2)."""
    between = 2 * values.mean(axis=1).var(ddof=1)
    within = ((values - values.mean(axis=1, keepdims=True)) ** 2).sum(axis=1).mean()
    return float((between - within) / max(between + within, 1e-12))
