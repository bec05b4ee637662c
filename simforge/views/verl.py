"""verl's prompts for reinforcement learning, as Parquet: `prompt` as messages, and what a reward function is handed in
`reward_model` and `extra_info` (verl, Prepare data for post-training). The reward is yours (`custom_reward_function`):
verl has none for a `data_source` that it does not know; `ground_truth` is the person's wish in words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.views import Run

import polars as pl


def frame(run: Run) -> pl.LazyFrame:
    prompts = run.pairs().select("prompt", "persona_id", "system").unique(maintain_order=True).with_row_index("index")
    return prompts.select(
        "prompt",
        data_source=pl.lit("simforge"),
        ability=pl.lit("personalization"),
        reward_model=pl.struct(style=pl.lit("model"), ground_truth="system"),
        extra_info=pl.struct("index", "persona_id", split=pl.lit(run.split or "all")),
    )
