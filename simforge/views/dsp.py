"""View in the format of DSP, answers by domain: `query`, and `responses` with one answer for
each of the four domains and an unsteered one, `normal` (Cheng et al. 2023; `simforge generate
dsp`). A prompt appears once for each group of people who share its answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.dataset.manifest import Manifest
    from simforge.views import ViewSource
import polars as pl

SYSTEM = False


DOMAINS = ("academy", "business", "entertainment", "literature")


def refuses(manifest: Manifest) -> str | None:
    variants = {
        str(condition) for condition in manifest["recipe"]["candidates"]["conditions"]
    }
    if manifest["space"]["name"] != "dsp" or not {"own", "others", "plain"} <= variants:
        return (
            "it needs answers as in the recipe dsp: the conditions own, others and "
            "plain over the space dsp."
        )
    return None


def frame(run: ViewSource) -> pl.LazyFrame:
    owners = run.table("dialogues").select("id", "persona_id")
    wants = pl.col("profile").struct.field("values").list.eval(pl.element() != "")
    people = run.table("personas").select("id", wants=wants)
    own_domain = (
        pl.col("wants")
        .list.arg_max()
        .replace_strict(dict(enumerate(DOMAINS)), return_dtype=pl.String)
    )
    answers = (
        run.table("candidates")
        .filter(finish="stop")
        .join(owners, left_on="dialogue_id", right_on="id", maintain_order="left")
        .join(
            people,
            left_on="persona_id",
            right_on="id",
            how="left",
            maintain_order="left",
        )
        .with_columns(
            query=pl.col("prefix").list.last().struct.field("content"),
            domain=pl.when(condition="own")
            .then(own_domain)
            .when(condition="plain")
            .then(pl.lit("normal"))
            .otherwise("dimension"),
        )
    )
    answer_columns = [
        pl.col("text").filter(domain=name).first().alias(name)
        for name in (*DOMAINS, "normal")
    ]
    complete = (
        answers.group_by("dialogue_id", maintain_order=True)
        .agg(pl.col("query").first(), *answer_columns)
        .drop_nulls()
    )
    return complete.select("query", responses=pl.struct(*DOMAINS, "normal")).unique(
        maintain_order=True
    )
