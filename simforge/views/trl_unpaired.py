"""TRL's unpaired preference form, what `KTOTrainer` and `BCOTrainer` read: each answer by itself, and whether it is
good (TRL, Dataset formats and types). An answer that several pairs share stands here once for each person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.views import Run

import polars as pl


def frame(run: Run) -> pl.LazyFrame:
    sides = [
        run.pairs().select("persona_id", "prompt", completion=side, label=pl.lit(side == "chosen"))
        for side in ("chosen", "rejected")
    ]
    each = pl.concat(sides).unique(maintain_order=True)
    said = each.with_columns(times=pl.struct("persona_id", "prompt", "completion").hash())
    clear = pl.col("label").n_unique().over("times") == 1  # chosen here and rejected there is neither
    return said.filter(clear).select("prompt", "completion", "label")
