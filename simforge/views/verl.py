"""View in verl's prompt format for reinforcement learning, as Parquet: `prompt` as messages,
and the arguments of the reward function in `reward_model` and `extra_info` (verl, Prepare data
for post-training). Supply your own reward (`custom_reward_function`): verl has none for this
`data_source`. `ground_truth` is the person's wish in words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.views import ViewSource
import polars as pl


def frame(run: ViewSource) -> pl.LazyFrame:
    prompts = (
        run.pairs()
        .select("prompt", "persona_id", "system")
        .unique(maintain_order=True)
        .with_row_index("index")
    )
    return prompts.select(
        "prompt",
        data_source=pl.lit("simforge"),
        ability=pl.lit("personalization"),
        reward_model=pl.struct(style=pl.lit("model"), ground_truth="system"),
        extra_info=pl.struct("index", "persona_id", split=pl.lit(run.split or "all")),
    )
