"""View in TRL's conversational prompt-completion format, for `SFTTrainer`: the loss covers only
`completion`, the chosen answer, not the messages before it (TRL, Dataset formats and types).
With the wish as a system message it teaches a model to follow such messages, as Janus does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from simforge.views import ViewSource


def frame(run: ViewSource) -> pl.LazyFrame:
    return run.pairs().select("prompt", completion="chosen").unique(maintain_order=True)
