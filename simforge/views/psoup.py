"""P-SOUP's annotated rollouts: two answers under one preference, and which is the better one by it (Jang et al. 2023,
arXiv 2310.11564; joeljang/RLPHF). `preference` is 1 or 2; which answer stands first is as good as random.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simforge.views import Run

import polars as pl

SYSTEM = False


def refuses(manifest: dict[str, Any]) -> str | None:
    if manifest["space"]["kind"] != "poles" or manifest["recipe"]["dialogue"]["turns"] > 1:
        return "it takes dialogues of one turn with pairs for each pole of a dimension, as the recipe psoup makes them."
    return None


def frame(run: Run) -> pl.LazyFrame:
    chosen, rejected = (pl.col(side).list.first().struct.field("content") for side in ("chosen", "rejected"))
    first = pl.col("chosen_id") < pl.col("rejected_id")  # both are digests
    pairs = run.table().filter(pl.col("dimension").is_not_null())
    return pairs.with_row_index("number").select(
        id="number",
        instruction=pl.col("prompt").list.last().struct.field("content"),
        input=pl.lit(""),
        preference_prompt="system",
        output_1=pl.when(first).then(chosen).otherwise(rejected),
        output_2=pl.when(first).then(rejected).otherwise(chosen),
        preference=pl.when(first).then(1).otherwise(2),
    )
