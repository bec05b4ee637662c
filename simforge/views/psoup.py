"""View in the format of P-SOUP's annotated rollouts: two answers under one preference, and
which of them fits it better (Jang et al. 2023, arXiv 2310.11564; joeljang/RLPHF). `preference`
is 1 or 2; the order of the answers follows their digests, so it is effectively random.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.dataset.manifest import Manifest
    from simforge.views import ViewSource
import polars as pl

SYSTEM = False


def refuses(manifest: Manifest) -> str | None:
    if (
        manifest["space"]["kind"] != "poles"
        or manifest["recipe"]["dialogue"]["turns"] > 1
    ):
        return (
            "it needs dialogues of one turn with pairs for each pole of a dimension, "
            "as in the recipe psoup."
        )
    return None


def frame(run: ViewSource) -> pl.LazyFrame:
    chosen, rejected = (
        pl.col(side).list.first().struct.field("content")
        for side in ("chosen", "rejected")
    )
    chosen_first = pl.col("chosen_id") < pl.col("rejected_id")  # both are digests
    pairs = run.table().filter(pl.col("dimension").is_not_null())
    return pairs.with_row_index("number").select(
        id="number",
        instruction=pl.col("prompt").list.last().struct.field("content"),
        input=pl.lit(""),
        preference_prompt="system",
        output_1=pl.when(chosen_first).then(chosen).otherwise(rejected),
        output_2=pl.when(chosen_first).then(rejected).otherwise(chosen),
        preference=pl.when(chosen_first).then(1).otherwise(2),
    )
