"""Labels: what the judges behind them are worth, and for how many of them an error rate can be vouched for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from simforge import loading
from simforge.audit import figures
from simforge.audit.figures import Array, not_measured
from simforge.errors import SourceError
from simforge.types import Told

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
    return {"judges": told, "in_the_dark": found["same_in_the_dark"]}


def _figure(found: Any, name: str = "share") -> dict[str, Any]:
    if not isinstance(found, dict) or name not in found:
        return not_measured("it was not asked in a way that shows it")
    return {"value": found[name], "n": found.get("n"), "interval": list(found["interval"])}


def families(manifest: dict[str, Any] | None) -> dict[str, Any]:
    """Which family of models plays which role: one that judges answers of its own may prefer them."""
    if manifest is None:
        return {"shared": not_measured("the dataset does not say which models made it")}
    of = {role: family(about["reference"]) for role, about in manifest["models"].items()}
    panel = (manifest["recipe"]["judge"] or {}).get("panel", ())
    judging = {of[role] for role in of if role in panel}
    answering = {name for role, name in of.items() if role not in panel}
    shared = sorted(judging & answering)
    return {"by_role": of, "shared": shared, "roles": sorted(role for role, name in of.items() if name in shared)}


def family(reference: str) -> str:
    name = reference.lower().partition("@")[0]  # not the address
    return next((one for one in FAMILIES if re.search(rf"(?<![a-z]){one}|{one}(?=[-\d])", name)), name)


_COMPARED = ["persona_id", "a", "b", "dimension"]
"What two judgments of one comparison have in common."


def verdicts(source: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """What the judgments themselves show of each judge (by its name in the recipe): how far its probabilities can be
    taken as such (`calibration`), whether it prefers answers of its own family (`self_preference`), and how far judges
    agree (`between`). Raises what `loading.scan` raises."""
    if not manifest["counts"].get("judgments") or manifest.get("judges") is None:
        reason = not_measured("no model judged")
        return {"calibration": reason, "self_preference": reason, "between": reason}
    wanted = ("persona_id", "dialogue_id", "a", "b", "dimension", "method", "role", "question", "outcome", "p_a")
    rows = (
        loading.scan(source, "judgments")
        .filter(pl.col("method").is_in(["model", "rating", "construction"]), told=str(Told.profile))
        .select(wanted)
        .collect()
    )
    asked = rows.filter(pl.col("method") != "construction")
    return {
        "calibration": _calibrations(rows, asked),
        "self_preference": _own(source, asked, manifest),
        "between": _between(asked),
    }


def _calibrations(rows: pl.DataFrame, asked: pl.DataFrame) -> dict[str, Any]:
    """By judge, against the labels by construction: whether or not a pair came of it."""
    truth = rows.filter(method="construction").select(*_COMPARED, truth=pl.col("outcome") == "a")
    both = (
        asked.drop_nulls("p_a")
        .join(truth, on=_COMPARED, how="inner", nulls_equal=True)
        .unique(["role", "question"], maintain_order=True)
    )
    if not both.height:
        return not_measured("no judge gave soft labels where the right answer is known by construction")
    found = {}
    for (role,), own in sorted(both.group_by("role")):
        p, right = own["p_a"].to_numpy(), own["truth"].to_numpy()
        found[str(role)] = calibration(np.maximum(p, 1 - p), np.where(p == 0.5, 0.5, (p > 0.5) == right))
    return found


def calibration(sure: Array, right: Array) -> dict[str, Any]:
    """How sure a judge is (0.5 to 1) against whether it is right, both (questions,): how much surer it is than right
    (`overconfidence`), the expected calibration error in ten bins of as many questions (Naeini et al. 2015) beside what
    chance gives to a judge without any (`chance`), and the Brier score."""
    if len(sure) < figures.FEW:
        reason = not_measured(f"{len(sure)} questions are too few")
        return {"overconfidence": reason, "ece": reason, "brier": reason, "right": reason}
    source = np.random.default_rng(0)
    value, bins = _ece(sure, right), source.integers(0, len(sure), (figures.RESAMPLES, len(sure)))
    low, high = np.quantile([_ece(sure[rows], right[rows]) for rows in bins], [0.025, 0.975])
    honest = [_ece(sure, (source.random(len(sure)) < sure).astype(float)) for _ in range(figures.RESAMPLES)]
    # resampling adds to the error what sampling has added already: the interval is turned round (Efron and Tibshirani)
    interval = [max(0.0, 2 * value - float(high)), max(value, 2 * value - float(low))]
    chance = [float(one) for one in np.quantile(honest, [0.025, 0.975])]
    return {
        "overconfidence": figures.mean(sure - right),
        "ece": {"value": value, "n": len(sure), "interval": interval, "chance": chance},
        "brier": figures.mean((sure - right) ** 2),
        "sure": figures.mean(sure),
        "right": figures.mean(right),
    }


def _ece(sure: Array, right: Array) -> float:
    parts = np.array_split(np.argsort(sure, kind="stable"), 10)
    return float(sum(abs((sure[rows] - right[rows]).sum()) for rows in parts) / len(sure))


def _between(asked: pl.DataFrame) -> dict[str, Any]:
    """How often two judges who both decide a question decide it alike; each question counts once."""
    roles = sorted(asked["role"].unique())
    if len(roles) < 2:
        return not_measured("one judge only")
    decided = asked.filter(pl.col("outcome").is_in(["a", "b"])).select(*_COMPARED, "role", "question", "outcome")
    found = {}
    for one, other in combinations(roles, 2):
        sides = [decided.filter(role=role) for role in (one, other)]
        both = sides[0].join(sides[1], on=_COMPARED, how="inner", nulls_equal=True, maintain_order="left")
        both = both.unique("question", maintain_order=True)
        same = int((both["outcome"] == both["outcome_right"]).sum())
        found[f"{one} and {other}"] = figures.share(same, both.height)
    return found


def _own(source: str, asked: pl.DataFrame, manifest: dict[str, Any]) -> dict[str, Any]:
    """How much more often judges take the answer of their own family than the others do, where one answer is of it."""
    of = {about["reference"]: family(about["reference"]) for about in manifest["models"].values()}
    judging = {role: of[about["reference"]] for role, about in manifest["models"].items() if role in asked["role"]}
    if len(set(judging.values())) < 2:
        return not_measured("it takes judges of two families")
    model = dict(loading.scan(source, "candidates").select("id", "model").collect().iter_rows())
    return own_preferred(asked, model, of, judging)


def own_preferred(
    asked: pl.DataFrame, model: Mapping[str, str], of: Mapping[str, str], judging: Mapping[str, str]
) -> dict[str, Any]:
    """By family of judges, that difference: of judgments (`role`, `question`, `a`, `b`, `outcome`), with the model of
    each answer, the family of each model, and that of each judge."""
    taken: dict[str, dict[str, list[bool]]] = {name: {} for name in set(judging.values())}
    decided = asked.filter(pl.col("outcome").is_in(["a", "b"])).unique(["role", "question"], maintain_order=True)
    for role, a, b, outcome in decided.select("role", "a", "b", "outcome").iter_rows():
        families = [of.get(model.get(one, ""), "") for one in (a, b)]
        for name in taken:
            if families.count(name) == 1:
                taken[name].setdefault(judging[role], []).append(families[outcome == "b"] == name)
    found = {}
    for name, by in taken.items():
        own = np.array(by.get(name, []), dtype=float)
        others = np.array([one for other, marks in by.items() if other != name for one in marks], dtype=float)
        found[name] = _difference(own, others)
    return found


def _difference(own: Array, others: Array) -> dict[str, Any]:
    """Of two shares, with the interval of their normal approximation."""
    if min(len(own), len(others)) < figures.FEW:
        return not_measured(f"{min(len(own), len(others))} verdicts on pairs with one answer of that family")
    value = float(own.mean() - others.mean())
    error = 1.96 * float(np.sqrt(own.var() / len(own) + others.var() / len(others)))
    return {"value": value, "n": len(own) + len(others), "interval": [value - error, value + error]}


def certified(source: str, trusted: Path | None) -> dict[str, Any]:
    """For how many labels an error rate can be vouched for, with a file of trusted ones (`id` of a pair, and `right`,
    whether its label is): by fixed-sequence testing (Jung et al. 2024, arXiv 2407.18370) over the judge's certainty,
    strictest first, each threshold tested by Clopper and Pearson's bound at the confidence of 90 %."""
    if trusted is None:
        return {"coverage": not_measured("no trusted labels were given (--trusted FILE)")}
    known = _trusted(trusted)
    table = loading.scan(source).select("id", "p_chosen", "p_calibrated", "certainty").collect()
    sure = table.with_columns(sure=pl.coalesce("p_calibrated", "p_chosen", "certainty")).drop_nulls("sure")
    both = sure.join(known, on="id", how="inner")
    if both.height < figures.FEW:
        known_ids = int(known["id"].is_in(table["id"].to_list()).sum())
        said = f"{known_ids} of the {known.height} trusted ids are in this data, {both.height} of them with a judge's "
        return {"coverage": not_measured(f"{said}certainty; it takes {figures.FEW}")}
    certainty, right = both["sure"].to_numpy(), both["right"].to_numpy()
    everything = sure["sure"].to_numpy()
    found = {}
    for bound in BOUNDS:
        threshold = threshold_of(certainty, ~right, bound)
        covered = int((everything >= threshold).sum()) if threshold is not None else 0
        found[f"{bound:.0%}"] = {"threshold": threshold, **figures.share(covered, table.height)}
    return {"trusted": both.height, "confidence": CONFIDENCE, "coverage": found}


WORDS = {**dict.fromkeys(("true", "yes", "1", "right"), True), **dict.fromkeys(("false", "no", "0", "wrong"), False)}
"How it is said whether a label is right."


def _trusted(path: Path) -> pl.DataFrame:
    """The trusted labels: `id` as text, and `right`. Raises `SourceError`."""
    try:
        if path.suffix == ".parquet":
            known = pl.read_parquet(path)
        else:
            known = pl.read_csv(path, infer_schema=False) if path.suffix == ".csv" else pl.read_ndjson(path)
    except (OSError, pl.exceptions.PolarsError) as problem:
        raise SourceError(f"--trusted {path} cannot be read: {str(problem).splitlines()[0]}.") from None
    if not {"id", "right"} <= {*known.columns}:
        raise SourceError(f"--trusted {path} needs the columns id and right; it has: {', '.join(known.columns)}.")
    rows: dict[str, bool] = {}
    for name, said in known.select(pl.col("id", "right").cast(pl.String)).iter_rows():
        right = WORDS.get((said or "").strip().lower())
        if right is None:
            raise SourceError(f"--trusted {path}: right is {said!r} for {name}; it is one of: {', '.join(WORDS)}.")
        if rows.setdefault(name, right) != right:
            raise SourceError(f"--trusted {path}: {name} stands there twice, once right and once wrong.")
    return pl.DataFrame({"id": list(rows), "right": list(rows.values())}, schema={"id": pl.String, "right": pl.Boolean})


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
