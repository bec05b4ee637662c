"""PRISM's table `survey`: who the people are, what they use language models for, and how much each of eight things
matters to them by their own word (Kirk et al. 2024, arXiv 2404.16019; `simforge generate prism`). `self_description` is
the person's text and `system_string` what they like in an answer; places are regions of the world.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simforge.views import Run

import polars as pl

SYSTEM = False
PLAIN = ("lm_familiarity", "lm_indirect_use", "lm_direct_use", "lm_frequency_use")
ABOUT = ("age", "gender", "education", "employment_status", "marital_status", "english_proficiency")
WANTED = ("values", "creativity", "fluency", "factuality", "diversity", "safety", "personalisation", "helpfulness")


def refuses(manifest: dict[str, Any]) -> str | None:
    needed = (*PLAIN, *ABOUT, *(f"pref_{name}" for name in WANTED), "religion", "ethnicity", "region")
    missing = [name for name in needed if name not in manifest["traits"]]
    return (
        f"its people did not answer PRISM's survey (no {missing[0]}): make it with the pack prism." if missing else None
    )


def frame(run: Run) -> pl.LazyFrame:
    people = run.table("personas")
    uses = [name for name in people.collect_schema().names() if name.startswith("lm_use_")]
    return people.select(
        user_id="id",
        survey_only=pl.lit(False),
        **{name: pl.col(name) for name in PLAIN},
        lm_usecases=pl.struct([pl.col(name).alias(name.removeprefix("lm_use_")) for name in uses]),
        stated_prefs=pl.struct([pl.col(f"pref_{name}").alias(name) for name in WANTED]),
        self_description="text",
        system_string=run.wishes("profile"),
        **{name: pl.col(name) for name in ABOUT},
        religion=pl.struct(simplified="religion"),
        ethnicity=pl.struct(simplified="ethnicity"),
        location=pl.struct(birth_region="region"),
    )
