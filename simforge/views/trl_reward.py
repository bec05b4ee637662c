"""TRL's preference form with a `margin`, which `RewardTrainer` takes off the difference of rewards (Llama 2).

Pairs without a margin, of whose judge nothing is known, are left out, and so are those against which the judge speaks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simforge.views import Run

import polars as pl


def refuses(manifest: dict[str, Any]) -> str | None:
    if manifest["recipe"]["judge"] is None:
        return "a margin is a judge's, and the recipe has none: use trl_preference."
    return None


def frame(run: Run) -> pl.LazyFrame:
    return run.pairs().filter(pl.col("margin") >= 0).select("prompt", "chosen", "rejected", "margin")
