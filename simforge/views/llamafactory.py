"""LLaMA-Factory's preference data in the ShareGPT form: `conversations`, one message `chosen` and one `rejected`, and
`system`. In its `dataset_info.json`:

    {"soup": {"file_name": "soup.json", "formatting": "sharegpt", "ranking": true,
              "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "system": "system"}}}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.views import Run

import polars as pl

NAMES = {"user": "human", "assistant": "gpt"}


def frame(run: Run) -> pl.LazyFrame:
    system = pl.col("system") if run.system else pl.lit("")
    return run.table().select(
        conversations=pl.col("prompt").list.eval(_said(pl.element())),
        chosen=_said(pl.col("chosen").list.first()),
        rejected=_said(pl.col("rejected").list.first()),
        system=system,
    )


def _said(message: pl.Expr) -> pl.Expr:
    who = message.struct.field("role").replace_strict(NAMES, default=None, return_dtype=pl.String)
    return pl.struct(who.alias("from"), message.struct.field("content").alias("value"))
