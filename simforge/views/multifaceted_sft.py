"""View in the Multifaceted Collection's format for supervised training: a system message made
of one preference on each of four dimensions, and the answer written for it (Lee et al. 2024,
arXiv 2405.17977; kaistAI/Janus).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.dataset.manifest import Manifest
    from simforge.views import ViewSource
import polars as pl

SYSTEM = False


def refuses(manifest: Manifest) -> str | None:
    if manifest["space"]["kind"] != "hierarchy":
        return (
            "it needs preferences with descriptions (a space of the kind hierarchy), "
            f"not {manifest['space']['name']}."
        )
    if manifest["recipe"]["dialogue"]["turns"] > 1:
        return "it needs dialogues of one turn, as in the recipe multifaceted."
    return None


def frame(run: ViewSource) -> pl.LazyFrame:
    profiles = run.table("personas").select("profile", persona_id="id")
    owners = (
        run.table("dialogues")
        .select("persona_id", dialogue_id="id")
        .join(profiles, on="persona_id", how="left", maintain_order="left")
    )
    answers = (
        run.table("candidates")
        .filter(condition="own", finish="stop")
        .join(owners, on="dialogue_id", how="left", maintain_order="left")
    )
    return answers.select(
        **source(run),
        preference_set=preference_set(run),
        system="steering",
        prompt=pl.col("prefix").list.last().struct.field("content"),
        output="text",
    )


def source(run: ViewSource) -> dict[str, pl.Expr]:
    """Columns that name the source of the prompts."""
    return {
        "main_source": pl.lit("simforge"),
        "original_source": pl.lit(run.manifest["recipe"]["prompts"]["source"]),
    }


def preference_set(run: ViewSource) -> pl.Expr:
    """Expression for a person's preference on each dimension, from the column `profile`."""
    values = pl.col("profile").struct.field("values")
    preferences = []
    for index, (dimension, poles) in enumerate(run.space.poles.items()):
        value = values.list.get(index)
        parts = value.str.split("/")
        descriptions = {name: pole.steer for name, pole in poles.items()}
        preferences.append(
            pl.struct(
                dimension=pl.lit(dimension),
                subdimension=parts.list.first(),
                preference=parts.list.last(),
                description=value.replace_strict(descriptions, default=""),
            )
        )
    return pl.concat_list(preferences)
