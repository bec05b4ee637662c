"""View in the transcript format of HH-RLHF: `chosen` and `rejected` are whole dialogues as one
text, with `Human:` or `Assistant:` before each turn (Bai et al. 2022, arXiv 2204.05862).
Readers split texts at these markers, so dialogues whose messages contain one are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.views import ViewSource
import polars as pl

SYSTEM = False


def frame(run: ViewSource) -> pl.LazyFrame:
    contents = (
        pl.concat_list("prompt", "chosen", "rejected")
        .list.eval(pl.element().struct.field("content"))
        .list
    )
    has_marker = contents.eval(
        pl.element().str.contains(r"\n\n(Human|Assistant):")
    ).list.any()
    return (
        run.table()
        .filter(~has_marker)
        .select(chosen=_transcript("chosen"), rejected=_transcript("rejected"))
    )


def _transcript(side: str) -> pl.Expr:
    content = pl.element().struct.field("content")
    marker = (
        pl.when(pl.element().struct.field("role") == "user")
        .then(pl.lit("Human: "))
        .otherwise(pl.lit("Assistant: "))
    )
    return (
        pl.col("prompt")
        .list.concat(side)
        .list.eval(pl.concat_str(pl.lit("\n\n"), marker, content))
        .list.join("")
    )
