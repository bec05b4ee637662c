"""View in Axolotl's preference format `chat_template.default`: the prompt as `messages`, and
one message each as `chosen` and `rejected` (Axolotl, RLHF, DPO with chat templates).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.views import ViewSource
import polars as pl


def frame(run: ViewSource) -> pl.LazyFrame:
    sides = {side: pl.col(side).list.first() for side in ("chosen", "rejected")}
    return run.pairs().select(messages="prompt", **sides)
