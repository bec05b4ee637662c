"""View in LLaMA-Factory's ShareGPT preference format: `conversations`, one message each as
`chosen` and `rejected`, and `system`. The matching entry of its `dataset_info.json`:

    {"soup": {"file_name": "soup.json", "formatting": "sharegpt", "ranking": true,
              "columns": {"messages": "conversations", "chosen": "chosen",
                          "rejected": "rejected", "system": "system"}}}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.views import ViewSource
import polars as pl

SPEAKERS = {"user": "human", "assistant": "gpt"}


def frame(run: ViewSource) -> pl.LazyFrame:
    system = pl.col("system") if run.system else pl.lit("")
    return run.table().select(
        conversations=pl.col("prompt").list.eval(_message(pl.element())),
        chosen=_message(pl.col("chosen").list.first()),
        rejected=_message(pl.col("rejected").list.first()),
        system=system,
    )


def _message(message: pl.Expr) -> pl.Expr:
    speaker = message.struct.field("role").replace_strict(
        SPEAKERS, default=None, return_dtype=pl.String
    )
    return pl.struct(
        speaker.alias("from"), message.struct.field("content").alias("value")
    )
