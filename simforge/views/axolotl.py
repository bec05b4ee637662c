"""Axolotl's preference data of the type `chat_template.default`: `messages`, and one message each as `chosen` and
`rejected` (Axolotl, RLHF, DPO with chat templates).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.views import Run

import polars as pl


def frame(run: Run) -> pl.LazyFrame:
    sides = {side: pl.col(side).list.first() for side in ("chosen", "rejected")}
    return run.pairs().select(messages="prompt", **sides)
