"""DSP's answers by walk of life: `query`, and `responses` with one answer for each of the four and a plain one,
`normal` (Cheng et al. 2023; `simforge generate dsp`). A prompt stands here once for each group of people who share its
answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simforge.views import Run

import polars as pl

SYSTEM = False
DOMAINS = ("academy", "business", "entertainment", "literature")


def refuses(manifest: dict[str, Any]) -> str | None:
    arms = {str(one) for one in manifest["recipe"]["candidates"]["conditions"]}
    if manifest["space"]["name"] != "dsp" or not {"own", "others", "plain"} <= arms:
        return "its answers are not those of the recipe dsp: own, others and plain over the space dsp."
    return None


def frame(run: Run) -> pl.LazyFrame:
    owners = run.table("dialogues").select("id", "persona_id")
    wants = pl.col("profile").struct.field("values").list.eval(pl.element() != "")
    people = run.table("personas").select("id", wants=wants)
    mine = pl.col("wants").list.arg_max().replace_strict(dict(enumerate(DOMAINS)), return_dtype=pl.String)
    answers = (
        run.table("candidates")
        .filter(finish="stop")
        .join(owners, left_on="dialogue_id", right_on="id", maintain_order="left")
        .join(people, left_on="persona_id", right_on="id", how="left", maintain_order="left")
        .with_columns(
            query=pl.col("prefix").list.last().struct.field("content"),
            domain=pl.when(condition="own")
            .then(mine)
            .when(condition="plain")
            .then(pl.lit("normal"))
            .otherwise("dimension"),
        )
    )
    said = [pl.col("text").filter(domain=name).first().alias(name) for name in (*DOMAINS, "normal")]
    whole = answers.group_by("dialogue_id", maintain_order=True).agg(pl.col("query").first(), *said).drop_nulls()
    return whole.select("query", responses=pl.struct(*DOMAINS, "normal")).unique(maintain_order=True)
