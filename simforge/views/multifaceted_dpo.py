"""View in the Multifaceted Collection's format for preference training: under one system
message, `chosen` is the answer written for it and `rejected` one written for another person's
(Lee et al. 2024, arXiv 2405.17977; kaistAI/Janus). Both begin with the prompt, as in
UltraFeedback-binarized.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.views import ViewSource
import polars as pl

from simforge.views.multifaceted_sft import preference_set, refuses, source

__all__ = ["SYSTEM", "frame", "refuses"]


SYSTEM = False


def frame(run: ViewSource) -> pl.LazyFrame:
    pairs = run.table().filter(
        pl.col("own_dialogue"), chosen_condition="own", rejected_condition="stranger"
    )
    return pairs.select(
        **source(run),
        preference_set=preference_set(run),
        system="system",
        prompt=pl.col("prompt").list.last().struct.field("content"),
        chosen=_messages("chosen"),
        rejected=_messages("rejected"),
    )


def _messages(side: str) -> pl.Expr:
    return (
        pl.col("prompt")
        .list.concat(side)
        .list.eval(
            pl.struct(
                pl.element().struct.field("content"), pl.element().struct.field("role")
            )
        )
    )
