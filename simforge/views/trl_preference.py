"""TRL's preference form, conversational with an explicit prompt: what `DPOTrainer`, `CPOTrainer`, `ORPOTrainer` and
`RewardTrainer` read (TRL, Dataset formats and types).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from simforge.views import Run


def frame(run: Run) -> pl.LazyFrame:
    return run.pairs().select("prompt", "chosen", "rejected")
