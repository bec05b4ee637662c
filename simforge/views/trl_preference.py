"""View in TRL's preference format, conversational with an explicit prompt, for `DPOTrainer`,
`CPOTrainer`, `ORPOTrainer` and `RewardTrainer` (TRL, Dataset formats and types).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from simforge.views import ViewSource


def frame(run: ViewSource) -> pl.LazyFrame:
    return run.pairs().select("prompt", "chosen", "rejected")
