"""Labels: what the judges behind them are worth, and for how many of them an error rate can be vouched for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from simforge import loading
from simforge.audit import figures
from simforge.audit.figures import Array, not_measured
from simforge.errors import SourceError

BOUNDS = (0.20, 0.15, 0.10)
"Shares of wrong labels that are vouched for."
CONFIDENCE = 0.9
FAMILIES = (
    "llama",
    "qwen",
    "mistral",
    "mixtral",
    "gemma",
    "phi",
    "smollm",
    "gpt",
    "claude",
    "gemini",
    "deepseek",
    "olmo",
)
"Of models, by what stands in their names."


def judges(manifest: dict[str, Any] | None) -> dict[str, Any]:
    """Each judge's agreement with itself in both orders, its leaning to what stands first, its agreement with labels by
    construction, and how often it says the same of nobody and of a stranger; as the run has counted them."""
    if manifest is None or not manifest.get("judges"):
        return {"judges": not_measured("no model judged, or the dataset does not say")}
    found = manifest["judges"]
    told = {
        name: {
            "agreement": _figure(one.get("agreement")),
            "beyond_chance": _figure(
                {**one["corrected"], "n": one["both_orders"]} if "corrected" in one else None, "kappa"
            ),
            "first_shown": _figure(one.get("first")),
            "with_construction": _figure(one.get("as_constructed")),
        }
        for name, one in found["judges"].items()
    }
    return {"judges": told, "in_the_dark": found.get("same_in_the_dark", {}), "panel": found.get("panel")}


def _figure(found: Any, name: str = "share") -> dict[str, Any]:
    if not isinstance(found, dict) or name not in found:
        return not_measured("it was not asked in a way that shows it")
    return {"value": found[name], "n": found.get("n"), "interval": list(found["interval"])}


def families(manifest: dict[str, Any] | None) -> dict[str, Any]:
    """Which family of models plays which role: one that judges answers of its own prefers them."""
    if manifest is None:
        return {"shared": not_measured("the dataset does not say which models made it")}
    of = {role: _family(about["reference"]) for role, about in manifest["models"].items()}
    judging = {of[role] for role in of if role.startswith("judge")}
    answering = {family for role, family in of.items() if not role.startswith("judge")}
    return {"by_role": of, "shared": sorted(judging & answering)}


def _family(reference: str) -> str:
    name = reference.lower()
    return next((family for family in FAMILIES if family in name), reference.partition("@")[0])


def certified(source: str, trusted: Path | None) -> dict[str, Any]:
    """For how many labels an error rate can be vouched for, with a file of trusted ones (`id` of a pair, and `right`,
    whether its label is): by fixed-sequence testing (Jung et al. 2024, arXiv 2407.18370) over the judge's certainty,
    strictest first, each threshold tested by Clopper and Pearson's bound at the confidence of 90 %."""
    if trusted is None:
        return {"coverage": not_measured("no trusted labels were given (--trusted FILE)")}
    try:
        known = pl.read_csv(trusted) if trusted.suffix == ".csv" else pl.read_ndjson(trusted)
    except (OSError, pl.exceptions.PolarsError) as problem:
        raise SourceError(f"{trusted} cannot be read: {str(problem).splitlines()[0]}.") from None
    if not {"id", "right"} <= {*known.columns}:
        raise SourceError(f"{trusted} needs the columns id and right; it has: {', '.join(known.columns)}.")
    table = loading.scan(source).select("id", "p_chosen", "p_calibrated", "certainty").collect()
    sure = table.with_columns(sure=pl.coalesce("p_calibrated", "p_chosen", "certainty")).drop_nulls("sure")
    both = sure.join(known.with_columns(pl.col("right").cast(pl.Boolean)), on="id", how="inner")
    if both.height < figures.FEW:
        return {"coverage": not_measured(f"{both.height} of the trusted labels are of pairs with a certainty")}
    certainty, right = both["sure"].to_numpy(), both["right"].to_numpy()
    everything = sure["sure"].to_numpy()
    found = {}
    for bound in BOUNDS:
        threshold = threshold_of(certainty, ~right, bound)
        covered = int((everything >= threshold).sum()) if threshold is not None else 0
        found[f"{bound:.0%}"] = {"threshold": threshold, **figures.share(covered, table.height)}
    return {"trusted": both.height, "confidence": CONFIDENCE, "coverage": found}


def threshold_of(certainty: Array, wrong: Array, bound: float, confidence: float = CONFIDENCE) -> float | None:
    """The lowest certainty of which, and of all above it, the share of errors is below `bound` with `confidence`;
    `None` where there is none. Both arrays are (trusted labels,)."""
    from scipy.stats import beta

    found = None
    for threshold in _thresholds(certainty):
        taken = certainty >= threshold
        errors, of = int(wrong[taken].sum()), int(taken.sum())
        upper = beta.ppf(confidence, errors + 1, of - errors) if errors < of else 1.0
        if upper > bound:
            break
        found = float(threshold)
    return found


def _thresholds(certainty: Array) -> Sequence[float]:
    """At most twenty, strictest first, each letting in one twentieth more; the strictest with enough to be tested."""
    ordered = np.sort(certainty)[::-1]
    places = np.unique(np.linspace(min(len(ordered) - 1, figures.FEW - 1), len(ordered) - 1, 20).astype(int))
    return list(dict.fromkeys(float(ordered[place]) for place in places))
