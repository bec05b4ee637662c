"""TRL's language modelling form, conversational, what `SFTTrainer` reads: `messages` with the chosen answer at the end
(TRL, Dataset formats and types). With the wish as a system message it teaches a model to be steered, as Janus is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.views import Run

import polars as pl


def frame(run: Run) -> pl.LazyFrame:
    messages = pl.col("prompt").list.concat("chosen")
    return run.pairs().select(messages=messages).unique(maintain_order=True)
