"""View in the format of PRISM's table `conversations`: all answers of all turns with their
scores, which one was chosen, and the person's feedback at the end (Kirk et al. 2024, arXiv
2404.16019; `simforge generate prism`). `open_feedback` is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.dataset.manifest import Manifest
    from simforge.views import ViewSource
import polars as pl

from simforge.views import prism_utterances
from simforge.views.prism_utterances import answers

SYSTEM = False


def refuses(manifest: Manifest) -> str | None:
    if manifest["recipe"]["dialogue"]["feedback"] is None:
        return (
            "its people were not asked for feedback on the dialogue: set "
            "dialogue.feedback, as the recipe prism does."
        )
    return prism_utterances.refuses(manifest)


def frame(run: ViewSource) -> pl.LazyFrame:
    user_messages = run.table("turns").select(
        "dialogue_id",
        "turn",
        role=pl.lit("user"),
        content="text",
        model_name=pl.lit(None, pl.String),
        model_provider=pl.lit(None, pl.String),
        score=pl.lit(None, pl.Int64),
        if_chosen=pl.lit(None, pl.Boolean),
        within_turn_id=pl.lit(None, pl.Int64),
    )
    replies = answers(run).select(
        "dialogue_id",
        "turn",
        "model_name",
        "model_provider",
        "score",
        "if_chosen",
        "within_turn_id",
        role=pl.lit("model"),
        content="model_response",
    )
    order = ["dialogue_id", "turn", "within_turn_id"]
    message = pl.struct(
        "turn",
        "role",
        "content",
        "model_name",
        "model_provider",
        "score",
        "if_chosen",
        "within_turn_id",
    )
    history = (
        pl.concat([user_messages, replies], how="diagonal")
        .sort(order, nulls_last=False)
        .group_by("dialogue_id", maintain_order=True)
        .agg(conversation_history=message, opening_prompt=pl.col("content").first())
    )
    conversations = run.table("dialogues").join(
        history,
        left_on="id",
        right_on="dialogue_id",
        how="inner",
        maintain_order="left",
    )
    return conversations.select(
        conversation_id="id",
        user_id="persona_id",
        conversation_type="conversation_type",
        opening_prompt="opening_prompt",
        conversation_turns="turns",
        conversation_history="conversation_history",
        performance_attributes=_attributes(run, "performance"),
        choice_attributes=_attributes(run, "choice"),
        open_feedback=pl.lit(None, pl.String),
    )


def _attributes(run: ViewSource, rating: str) -> pl.Expr:
    """Expression for the rating of each attribute, 1 to 100, or null."""
    attributes = (
        pl.col("feedback").list.eval(pl.element().struct.field("attribute")).list
    )
    ratings = pl.col("feedback").list.eval(pl.element().struct.field(rating)).list
    names = (
        run.table("dialogues")
        .select(pl.col("feedback").list.eval(pl.element().struct.field("attribute")))
        .collect()
    )
    attribute_names = list(
        dict.fromkeys(name for row in names["feedback"] for name in row)
    )
    positions = {
        name: attributes.eval(pl.element().index_of(name)).list.first()
        for name in attribute_names
    }
    return pl.struct(
        [
            ratings.get(position, null_on_oob=True).alias(name)
            for name, position in positions.items()
        ]
    )
