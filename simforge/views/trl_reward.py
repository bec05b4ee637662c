"""View in TRL's preference format with a `margin`, which `RewardTrainer` subtracts from the
difference of rewards (Llama 2).

Pairs without a margin, since their judge's reliability is unknown, are left out, and so are
pairs whose label the judge contradicts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.dataset.manifest import Manifest
    from simforge.views import ViewSource
import polars as pl


def refuses(manifest: Manifest) -> str | None:
    if manifest["recipe"]["judge"] is None:
        return (
            "a margin comes from a judge, and the recipe has none: use trl_preference."
        )
    return None


def frame(run: ViewSource) -> pl.LazyFrame:
    return (
        run.pairs()
        .filter(pl.col("margin") >= 0)
        .select("prompt", "chosen", "rejected", "margin")
    )
