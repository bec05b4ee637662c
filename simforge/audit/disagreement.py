"""Disagreement: whether people differ, over pairs of answers that several people judged.

`conflict` is the chance that two people who judged a pair disagree: 0 if all agree, 0.5 if
many toss coins.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from simforge.audit import figures
from simforge.audit.figures import Array, Results, not_measured

ICC_RESAMPLES = 200
"Resamples of people for the interval of the ICC."


def measure(pairs: pl.DataFrame) -> Results:
    """Measure pairs of answers to one prompt that at least two people judged on the same
    dimension: how often two of them disagree (`conflict`, mean of 2 q (1 - q) m / (m - 1)
    over pairs), the best accuracy without knowledge of the person (`ceiling`), and the share
    of judgments in the minority (`minority`)."""
    first = pl.col("chosen") < pl.col("rejected")
    sides = pairs.select(
        "persona",
        dimension=pl.col("dimension").fill_null(""),
        prompt="prompt",
        a=pl.min_horizontal("chosen", "rejected"),
        b=pl.max_horizontal("chosen", "rejected"),
        side=first,
    ).unique(
        ["persona", "dimension", "prompt", "a", "b"], keep="first", maintain_order=True
    )
    shared = (
        sides.group_by("dimension", "prompt", "a", "b")
        .agg(m=pl.len(), q=pl.col("side").mean())
        .filter(pl.col("m") > 1)
        .sort("dimension", "prompt", "a", "b")
    )
    counts = {
        "shared_pairs": shared.height,
        "of": sides.select("dimension", "prompt", "a", "b").n_unique(),
    }
    if shared.height < figures.MIN_ITEMS:
        reason = f"{shared.height or 'no'} pairs of answers were judged by more than one person"
        return {
            **counts,
            **{
                name: not_measured(reason)
                for name in ("conflict", "ceiling", "minority")
            },
        }
    q, m = shared["q"].to_numpy(), shared["m"].to_numpy()
    prompts = shared["prompt"].to_list()
    majority = np.maximum(q, 1 - q)
    return {
        **counts,
        "judges_a_pair": float(m.mean()),
        "conflict": figures.mean(2 * q * (1 - q) * m / (m - 1), prompts),
        "ceiling": figures.mean(majority, prompts),
        "minority": figures.mean(1 - majority, prompts),
    }


def consistency(pairs: pl.DataFrame, other_run: pl.DataFrame) -> Results:
    """Compare the choices of the same people between the same two answers in two runs: how
    often they are equal (`same`), and how much of the variance is due to the person and not
    to the run (`icc`: ICC(1), Shrout and Fleiss 1979, of two runs)."""
    for table in (pairs, other_run):
        if table.height and (table["label"] == "construction").all():
            reason = "the labels are by construction: the recipe decided them and nobody chose"
            return {"same": not_measured(reason), "icc": not_measured(reason)}
    key = ["persona", "dimension", "prompt", "a", "b"]
    sides = [
        table.select(
            "persona",
            pl.col("dimension").fill_null(""),
            "prompt",
            a=pl.min_horizontal("chosen", "rejected"),
            b=pl.max_horizontal("chosen", "rejected"),
            side=(pl.col("chosen") < pl.col("rejected")).cast(pl.Float64),
        ).unique(key, keep="first", maintain_order=True)
        for table in (pairs, other_run)
    ]
    matched = sides[0].join(
        sides[1], on=key, how="inner", suffix="_again", maintain_order="left"
    )
    if matched.height < figures.MIN_ITEMS:
        reason = (
            f"the other run has {matched.height} of these pairs: reuse its ledger for "
            "the answers, and judge again"
        )
        return {"same": not_measured(reason), "icc": not_measured(reason)}
    values = matched.select("side", "side_again").to_numpy()
    people = matched["persona"].fill_null("").to_numpy()
    rows = {person: np.flatnonzero(people == person) for person in np.unique(people)}
    names, rng = list(rows), np.random.default_rng(0)
    resampled = [
        _icc(
            values[
                np.concatenate(
                    [
                        rows[names[place]]
                        for place in rng.integers(0, len(names), len(names))
                    ]
                )
            ]
        )
        for _ in range(ICC_RESAMPLES)
    ]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {
        "same": figures.mean((values[:, 0] == values[:, 1]).astype(float), people),
        "icc": {
            "value": _icc(values),
            "n": matched.height,
            "interval": [float(low), float(high)],
        },
    }


def _icc(values: Array) -> float:
    """ICC(1) of two measurements of each item (items, 2)."""
    between = 2 * values.mean(axis=1).var(ddof=1)
    within = ((values - values.mean(axis=1, keepdims=True)) ** 2).sum(axis=1).mean()
    return float((between - within) / max(between + within, 1e-12))
