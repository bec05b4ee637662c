"""ALOE's dialogues: of each turn what the person said, the answer they prefer, the other one, which of them the
dialogue went on with, and what had been inferred about them (Wu et al. 2024, arXiv 2410.03642; `simforge generate
aloe`).

`personality` is what the person likes in an answer, in words. What is inferred is one text here, and stands in
`inferred_profile`. A dialogue ends before its first turn without a preference, since the form has no word for a tie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simforge.views import Run

import polars as pl

SYSTEM = False


def refuses(manifest: dict[str, Any]) -> str | None:
    recipe = manifest["recipe"]
    if recipe["dialogue"]["turns"] == 1 or recipe["dialogue"]["infer"] is None:
        return (
            "it takes dialogues of several turns in which the assistant infers who asks, as the recipe aloe makes them."
        )
    if recipe["dialogue"]["continue_with"] == "both":
        return "its dialogues branch (dialogue.continue_with is both), and the form has one line each."
    return None


def frame(run: Run) -> pl.LazyFrame:
    continued = run.table("candidates").select("continued", chosen_id="id")
    pairs = (
        run.table()
        .filter(pl.col("own_dialogue"), pl.col("dimension").is_null())
        .join(continued, on="chosen_id", how="left")
        .select(
            "dialogue_id",
            "turn",
            preferred=pl.col("chosen").list.first().struct.field("content"),
            rejected=pl.col("rejected").list.first().struct.field("content"),
            chosen=pl.when("continued").then(pl.lit("preferred")).otherwise(pl.lit("rejected")),
        )
    )
    turn = pl.struct(
        user="text",
        assistant=pl.struct("preferred", "rejected"),
        chosen="chosen",
        inferred_profile=pl.col("inferred").fill_null(""),
        inferred_personality=pl.lit(""),
    )
    turns = run.table("turns").join(pairs, on=["dialogue_id", "turn"], how="inner").sort("dialogue_id", "turn")
    whole = pl.col("turn") == pl.int_range(pl.len()).over("dialogue_id")
    lines = turns.filter(whole).group_by("dialogue_id", maintain_order=True).agg(conversations=turn)
    people = run.table("personas").select("profile", "text", persona_id="id")
    return (
        run.table("dialogues")
        .select("persona_id", dialogue_id="id")
        .join(lines, on="dialogue_id", how="inner", maintain_order="left")
        .join(people, on="persona_id", how="left", maintain_order="left")
        .select(profile="text", personality=run.wishes("profile"), conversations="conversations")
    )
