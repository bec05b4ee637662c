"""View in the format of the ALOE dialogues: for each turn the user message, the preferred and
the rejected answer, which of them the dialogue continued with, and what had been inferred about
the person (Wu et al. 2024, arXiv 2410.03642; `simforge generate aloe`).

`personality` describes in words what the person likes in an answer. SimForge infers a single
text, which is stored in `inferred_profile`; `inferred_personality` is empty.

`rejected` is a list, of which the authors' DPO script draws one; `chosen` names the key of the
answer with which the dialogue went on, `preferred` or `continued`. That script takes a pair from
every turn, so a dialogue is cut before its first turn without a preference: there is no tie in the
format. Their SFT script reads ten turns of each dialogue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from simforge.dataset.manifest import Manifest
    from simforge.views import ViewSource

SYSTEM = False


SFT_TURNS = 10
"Turns that the authors' SFT script reads of each dialogue."


WITHOUT_GAP = pl.col("turn") == pl.int_range(pl.len()).over("dialogue_id")
"Whether all earlier turns of the dialogue have a preference."


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
    turn = pl.struct(
        user="text",
        assistant=pl.struct("preferred", "rejected", "continued"),
        chosen="chosen",
        inferred_profile=pl.col("inferred").fill_null(""),
        inferred_personality=pl.lit(""),
    )
    dialogues = (
        _turns(run)
        .filter(WITHOUT_GAP)
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


def notes(run: ViewSource) -> list[str]:
    """Say how many pairs come after a turn without a preference, and how many dialogues are
    too short for the authors' SFT script."""
    turns = _turns(run).with_columns(kept=WITHOUT_GAP).collect()
    lost = turns.filter(~pl.col("kept"))
    lengths = turns.filter("kept").group_by("dialogue_id").len()
    short = lengths.filter(pl.col("len") < SFT_TURNS).height
    sentences = []
    if lost.height:
        sentences.append(
            f"{lost.height:,} turns of {lost['dialogue_id'].n_unique():,} dialogues come after a "
            "turn without a preference, which the format cannot express"
        )
    if short:
        sentences.append(
            f"{short:,} of {lengths.height:,} dialogues have fewer than {SFT_TURNS} turns, which "
            "ALOE's SFT script needs (its DPO script does not)"
        )
    return sentences


def _turns(run: ViewSource) -> pl.LazyFrame:
    """The turns with a preference: the preferred answer, those that it was preferred to, and the
    answer with which the dialogue went on."""
    went_on = run.table("candidates").filter("continued")
    continued = went_on.select(
        "dialogue_id", "turn", continued="text", continued_id="id"
    )
    pairs = (
        run.table()
        .filter(pl.col("own_dialogue"), pl.col("dimension").is_null())
        .group_by("dialogue_id", "turn", maintain_order=True)
        .agg(
            preferred=pl.col("chosen").first().list.first().struct.field("content"),
            preferred_id=pl.col("chosen_id").first(),
            rejected=pl.col("rejected")
            .list.first()
            .struct.field("content")
            .unique(maintain_order=True),
        )
    )
    is_preferred = pl.col("continued_id") == pl.col("preferred_id")
    return (
        run.table("turns")
        .join(pairs, on=["dialogue_id", "turn"], how="inner")
        .join(continued, on=["dialogue_id", "turn"], how="left")
        .with_columns(
            continued=pl.col("continued").fill_null(pl.col("preferred")),
            chosen=pl.when(is_preferred.fill_null(True))
            .then(pl.lit("preferred"))
            .otherwise(pl.lit("continued")),
        )
        .sort("dialogue_id", "turn")
    )
