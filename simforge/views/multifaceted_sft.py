"""The Multifaceted Collection's form for supervised training: a system message made of one preference on each of four
dimensions, and the answer written for it (Lee et al. 2024, arXiv 2405.17977; kaistAI/Janus).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simforge.views import Run

import polars as pl

SYSTEM = False


def refuses(manifest: dict[str, Any]) -> str | None:
    if manifest["space"]["kind"] != "hierarchy":
        return (
            f"it takes preferences with descriptions (a space of the kind hierarchy), not {manifest['space']['name']}."
        )
    if manifest["recipe"]["dialogue"]["turns"] > 1:
        return "it takes dialogues of one turn, as the recipe multifaceted makes them."
    return None


def frame(run: Run) -> pl.LazyFrame:
    wanted = run.table("personas").select("profile", persona_id="id")
    owners = (
        run.table("dialogues")
        .select("persona_id", dialogue_id="id")
        .join(wanted, on="persona_id", how="left", maintain_order="left")
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


def source(run: Run) -> dict[str, pl.Expr]:
    """Where the prompts are from."""
    return {"main_source": pl.lit("simforge"), "original_source": pl.lit(run.manifest["recipe"]["prompts"]["source"])}


def preference_set(run: Run) -> pl.Expr:
    """What a person wants on each dimension, from the column `profile`."""
    values = pl.col("profile").struct.field("values")
    sets = []
    for place, (dimension, poles) in enumerate(run.space.poles.items()):
        said = values.list.get(place)
        parts = said.str.split("/")
        about = {name: pole.steer for name, pole in poles.items()}
        sets.append(
            pl.struct(
                dimension=pl.lit(dimension),
                subdimension=parts.list.first(),
                preference=parts.list.last(),
                description=said.replace_strict(about, default=""),
            )
        )
    return pl.concat_list(sets)
