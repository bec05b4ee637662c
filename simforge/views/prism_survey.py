"""View in the format of PRISM's table `survey`: who the people are, what they use language
models for, and their own rating of how much eight qualities matter to them (Kirk et al. 2024,
arXiv 2404.16019; `simforge generate prism`). `self_description` is the person's text and
`system_string` what they like in an answer. Of the columns of `location`, `special_region` (the
region of the world that the authors derived) is known; the others are null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simforge.dataset.manifest import Manifest
    from simforge.views import ViewSource
import polars as pl

SYSTEM = False


LM_COLUMNS = ("lm_familiarity", "lm_indirect_use", "lm_direct_use", "lm_frequency_use")


DEMOGRAPHICS = (
    "age",
    "gender",
    "education",
    "employment_status",
    "marital_status",
    "english_proficiency",
)


STATED_PREFERENCES = (
    "values",
    "creativity",
    "fluency",
    "factuality",
    "diversity",
    "safety",
    "personalisation",
    "helpfulness",
)


LOCATION_COLUMNS = (
    "birth_country",
    "birth_countryISO",
    "birth_region",
    "birth_subregion",
    "reside_country",
    "reside_countryISO",
    "reside_region",
    "reside_subregion",
    "same_birth_reside_country",
)
"Columns of a person's location in PRISM besides `special_region`."


def refuses(manifest: Manifest) -> str | None:
    needed = (
        *LM_COLUMNS,
        *DEMOGRAPHICS,
        *(f"pref_{name}" for name in STATED_PREFERENCES),
        "religion",
        "ethnicity",
        "region",
    )
    missing = [name for name in needed if name not in manifest["traits"]]
    return (
        f"its people did not answer PRISM's survey (no {missing[0]}): make it with the pack prism."
        if missing
        else None
    )


def frame(run: ViewSource) -> pl.LazyFrame:
    people = run.table("personas")
    uses = [
        name for name in people.collect_schema().names() if name.startswith("lm_use_")
    ]
    return people.select(
        user_id="id",
        survey_only=pl.lit(False),
        **{name: pl.col(name) for name in LM_COLUMNS},
        lm_usecases=pl.struct(
            [pl.col(name).alias(name.removeprefix("lm_use_")) for name in uses]
        ),
        stated_prefs=pl.struct(
            [pl.col(f"pref_{name}").alias(name) for name in STATED_PREFERENCES]
        ),
        self_description="text",
        system_string=run.wishes("profile"),
        **{name: pl.col(name) for name in DEMOGRAPHICS},
        religion=pl.struct(simplified="religion"),
        ethnicity=pl.struct(simplified="ethnicity"),
        location=pl.struct(
            *(pl.lit(None, pl.String).alias(name) for name in LOCATION_COLUMNS),
            special_region="region",
        ),
    )
