"""PersonalLLM's answers with scores: `prompt`, `response_1` and so on, and for each answer and scorer a number,
`response_1_NAME` (Zollo et al. 2024; `simforge generate personalllm`). Who prefers which is in `preferences`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simforge.views import Run

import polars as pl

SYSTEM = False


def refuses(manifest: dict[str, Any]) -> str | None:
    recipe = manifest["recipe"]
    if recipe["labels"]["by"] != "scorers" or recipe["candidates"]["shared"] != "everyone":
        return "it needs answers that everybody shares, and scorers: labels.by scorers, candidates.shared everyone."
    return None


def frame(run: Run) -> pl.LazyFrame:
    answers = run.table("candidates").select(
        "arm", "text", "scores", prompt=pl.col("prefix").list.last().struct.field("content")
    )
    each = answers.unique(["prompt", "arm"], keep="first", maintain_order=True)
    arms = each.select("arm").unique(maintain_order=True).collect()["arm"].to_list()
    scorers = [one["name"] for one in each.select("scores").first().collect()["scores"][0]]
    columns = []
    for number, arm in enumerate(arms, start=1):
        columns.append(pl.col("text").filter(arm=arm).first().alias(f"response_{number}"))
        for place, name in enumerate(scorers):
            score = pl.col("scores").filter(arm=arm).first().list.get(place).struct.field("value")
            columns.append(score.alias(f"response_{number}_{name}"))
    return each.group_by("prompt", maintain_order=True).agg(columns)
