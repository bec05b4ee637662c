"""View in TRL's prompt-only format, for `GRPOTrainer` and the online trainers. Extra columns
are passed to the reward function: who asks, and what they want in words (TRL, Dataset formats
and types).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from simforge.views import ViewSource


def frame(run: ViewSource) -> pl.LazyFrame:
    return (
        run.pairs()
        .select("prompt", "persona_id", wish="system")
        .unique(maintain_order=True)
    )
