"""View in the format of the ALOE dialogues: for each turn the user message, the preferred and
the rejected answer, which of them the dialogue continued with, and what had been inferred about
the person (Wu et al. 2024, arXiv 2410.03642; `simforge generate aloe`).

`personality` describes in words what the person likes in an answer. SimForge infers a single
text, which is stored in `inferred_profile`; `inferred_personality` is empty. A dialogue is cut
before its first turn without a preference, since the format cannot express a tie.
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
    if recipe["dialogue"]["turns"] == 1 or recipe["dialogue"]["infer"] is None:
        return (
            "it needs dialogues of several turns in which the assistant infers the "
            "person, as in the recipe aloe."
        )
    if recipe["dialogue"]["continue_with"] == "both":
        return (
            "its dialogues branch (dialogue.continue_with is both), and the format "
            "has one branch per dialogue."
        )
    return None


def frame(run: ViewSource) -> pl.LazyFrame:
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
            chosen=pl.when("continued")
            .then(pl.lit("preferred"))
            .otherwise(pl.lit("rejected")),
        )
    )
    turn = pl.struct(
        user="text",
        assistant=pl.struct("preferred", "rejected"),
        chosen="chosen",
        inferred_profile=pl.col("inferred").fill_null(""),
        inferred_personality=pl.lit(""),
    )
    turns = (
        run.table("turns")
        .join(pairs, on=["dialogue_id", "turn"], how="inner")
        .sort("dialogue_id", "turn")
    )
    without_gap = pl.col("turn") == pl.int_range(pl.len()).over("dialogue_id")
    dialogues = (
        turns.filter(without_gap)
        .group_by("dialogue_id", maintain_order=True)
        .agg(conversations=turn)
    )
    people = run.table("personas").select("profile", "text", persona_id="id")
    return (
        run.table("dialogues")
        .select("persona_id", dialogue_id="id")
        .join(dialogues, on="dialogue_id", how="inner", maintain_order="left")
        .join(people, on="persona_id", how="left", maintain_order="left")
        .select(
            profile="text",
            personality=run.wishes("profile"),
            conversations="conversations",
        )
    )
