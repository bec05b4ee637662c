"""TRL's prompt-completion form, conversational, what `SFTTrainer` reads: it learns `completion`, the chosen answer, and
nothing of what stands before it (TRL, Dataset formats and types). With the wish as a system message it teaches a model
to be steered, as Janus is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from simforge.views import Run


def frame(run: Run) -> pl.LazyFrame:
    return run.pairs().select("prompt", completion="chosen").unique(maintain_order=True)
