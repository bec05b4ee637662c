"""View in TRL's unpaired preference format, for `KTOTrainer` and `BCOTrainer`: single answers,
each with a label that says whether it is good (TRL, Dataset formats and types). An answer
shared by several pairs appears once for each person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.views import ViewSource
import polars as pl


def frame(run: ViewSource) -> pl.LazyFrame:
    sides = [
        run.pairs().select(
            "persona_id", "prompt", completion=side, label=pl.lit(side == "chosen")
        )
        for side in ("chosen", "rejected")
    ]
    answers = pl.concat(sides).unique(maintain_order=True)
    keyed = answers.with_columns(
        times=pl.struct("persona_id", "prompt", "completion").hash()
    )
    clear = (
        pl.col("label").n_unique().over("times") == 1
    )  # chosen here, rejected there: neither
    return keyed.filter(clear).select("prompt", "completion", "label")
