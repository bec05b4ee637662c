"""View in the format of PersonalLLM, answers with scores: `prompt`, the answers `response_1`
and so on, and one number per answer and scorer, `response_1_NAME` (Zollo et al. 2024; `simforge
generate personalllm`). Each person's preferences are in the table `preferences`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.dataset.manifest import Manifest
    from simforge.views import ViewSource
import polars as pl

SYSTEM = False


def refuses(manifest: Manifest) -> str | None:
    recipe = manifest["recipe"]
    if (
        recipe["labels"]["by"] != "scorers"
        or recipe["candidates"]["shared"] != "everyone"
    ):
        return (
            "it needs answers shared by all people, and scorers: labels.by scorers, "
            "candidates.shared everyone."
        )
    return None


def frame(run: ViewSource) -> pl.LazyFrame:
    answers = run.table("candidates").select(
        "variant",
        "text",
        "scores",
        prompt=pl.col("prefix").list.last().struct.field("content"),
    )
    unique_answers = answers.unique(
        ["prompt", "variant"], keep="first", maintain_order=True
    )
    variants = (
        unique_answers.select("variant")
        .unique(maintain_order=True)
        .collect()["variant"]
        .to_list()
    )
    scorers = [
        entry["name"]
        for entry in unique_answers.select("scores").first().collect()["scores"][0]
    ]
    columns = []
    for number, variant in enumerate(variants, start=1):
        columns.append(
            pl.col("text").filter(variant=variant).first().alias(f"response_{number}")
        )
        for index, name in enumerate(scorers):
            score = (
                pl.col("scores")
                .filter(variant=variant)
                .first()
                .list.get(index)
                .struct.field("value")
            )
            columns.append(score.alias(f"response_{number}_{name}"))
    return unique_answers.group_by("prompt", maintain_order=True).agg(columns)
