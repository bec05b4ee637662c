"""View in the format of PRISM's table `utterances`: a row for each answer, with its score from
1 to 100 and whether the dialogue continued with it (Kirk et al. 2024, arXiv 2404.16019;
`simforge generate prism`).
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
    if recipe["labels"]["by"] != "judge" or recipe["pairing"]["compare"] != "best":
        return "its answers have no scores from 1 to 100: rate them, as the recipe prism does."
    if recipe["dialogue"]["continue_with"] == "both":
        return (
            "its dialogues branch (dialogue.continue_with is both), and the format "
            "has one branch per dialogue."
        )
    return None


def frame(run: ViewSource) -> pl.LazyFrame:
    owners = run.table("dialogues").select("persona_id", dialogue_id="id")
    user_messages = run.table("turns").select("dialogue_id", "turn", user_prompt="text")
    return (
        answers(run)
        .join(owners, on="dialogue_id", how="left", maintain_order="left")
        .join(
            user_messages, on=["dialogue_id", "turn"], how="left", maintain_order="left"
        )
        .select(
            "utterance_id",
            "interaction_id",
            "turn",
            "within_turn_id",
            "user_prompt",
            "model_response",
            "model_name",
            "model_provider",
            "score",
            "if_chosen",
            conversation_id="dialogue_id",
            user_id="persona_id",
        )
        .select(
            *(
                "utterance_id",
                "interaction_id",
                "conversation_id",
                "user_id",
                "turn",
                "within_turn_id",
                "user_prompt",
            ),
            *("model_response", "model_name", "model_provider", "score", "if_chosen"),
        )
    )


def answers(run: ViewSource) -> pl.LazyFrame:
    """Scan the rated answers, numbered within their turn."""
    rated = run.table("candidates").filter(pl.col("rating").is_not_null())
    return rated.select(
        "dialogue_id",
        "turn",
        utterance_id="id",
        interaction_id=pl.concat_str("dialogue_id", pl.lit("/"), "turn"),
        within_turn_id=pl.int_range(pl.len()).over("dialogue_id", "turn"),
        model_response="text",
        **model_columns(),
        score=pl.col("rating").round().cast(pl.Int64),
        if_chosen="continued",
    )


def model_columns() -> dict[str, pl.Expr]:
    """Name and provider of a model. The name is everything after the first colon, since names
    and URLs may hold more of them; that of `scripted:` is its provider's."""
    provider = pl.col("model").str.extract(r"^([^:]*):")
    name = pl.col("model").str.replace(r"^[^:]*:", "")
    return {
        "model_name": pl.when(name == "").then(provider).otherwise(name),
        "model_provider": provider,
    }
