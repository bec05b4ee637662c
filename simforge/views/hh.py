"""Transcripts as HH-RLHF has them: `chosen` and `rejected` are whole dialogues in one text, with `Human:` and
`Assistant:` before each turn (Bai et al. 2022, arXiv 2204.05862). Readers cut at these marks, so dialogues in which
somebody wrote one are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.views import Run

import polars as pl

SYSTEM = False


def frame(run: Run) -> pl.LazyFrame:
    said = pl.concat_list("prompt", "chosen", "rejected").list.eval(pl.element().struct.field("content")).list
    marked = said.eval(pl.element().str.contains(r"\n\n(Human|Assistant):")).list.any()
    return run.table().filter(~marked).select(chosen=_transcript("chosen"), rejected=_transcript("rejected"))


def _transcript(side: str) -> pl.Expr:
    said = pl.element().struct.field("content")
    who = pl.when(pl.element().struct.field("role") == "user").then(pl.lit("Human: ")).otherwise(pl.lit("Assistant: "))
    return pl.col("prompt").list.concat(side).list.eval(pl.concat_str(pl.lit("\n\n"), who, said)).list.join("")
