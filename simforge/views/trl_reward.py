"""View in TRL's preference format with a `margin`, which `RewardTrainer` subtracts from the
difference of rewards (Llama 2).

The margin is the log-odds of the label where a judge compared the answers (0 if the judge carries
no information). Where answers were rated, it is the difference of the ratings as a share of the
scale; where scorers made the labels, the difference of their values in standard deviations. Ties
have no margin and are left out, as are pairs whose judge's reliability is unknown and pairs whose
label the judge contradicts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.dataset.manifest import Manifest
    from simforge.views import ViewSource
import polars as pl


def refuses(manifest: Manifest) -> str | None:
    recipe = manifest["recipe"]
    if recipe["judge"] is None and recipe["labels"]["by"] != "scorers":
        return (
            "a margin comes from a judge or scorers, and the recipe has none: use "
            "trl_preference."
        )
    return None


def frame(run: ViewSource) -> pl.LazyFrame:
    pairs = run.pairs().with_columns(margin=_margin(run.manifest))
    return pairs.filter(pl.col("label") != "tie", pl.col("margin") >= 0).select(
        "prompt", "chosen", "rejected", "margin"
    )


def notes(run: ViewSource) -> list[str]:
    """Say how many pairs are left out, and why."""
    pairs = run.pairs().select("label", margin=_margin(run.manifest)).collect()
    ties = pairs.filter(label="tie").height
    decided = pairs.filter(pl.col("label") != "tie")
    reasons = {
        "are ties": ties,
        "have no margin: the reliability of the judge's verdicts is unknown, which takes 100 "
        "questions asked in both orders": decided["margin"].null_count(),
        "have a label that the judge contradicts": decided.filter(
            pl.col("margin") < 0
        ).height,
    }
    return [f"{count:,} pairs {reason}" for reason, count in reasons.items() if count]


def _margin(manifest: Manifest) -> pl.Expr:
    if manifest["recipe"]["labels"]["by"] == "scorers":
        return pl.col("value_gap")
    scale = manifest.get("rating_scale")
    if scale:
        return pl.col("value_gap") / (scale[1] - scale[0])
    return pl.col("margin")
