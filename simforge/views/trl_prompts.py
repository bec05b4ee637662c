"""TRL's prompt-only form, what `GRPOTrainer` and the online trainers read, with columns that a reward function is
handed: who asks, and what they want in words (TRL, Dataset formats and types).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from simforge.views import Run


def frame(run: Run) -> pl.LazyFrame:
    return run.pairs().select("prompt", "persona_id", wish="system").unique(maintain_order=True)
