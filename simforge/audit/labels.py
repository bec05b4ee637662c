"""Labels: how reliable the judges behind them are, and how many labels have a certified error
rate."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from simforge.audit import figures
from simforge.audit.figures import Array, Figure, Results, not_measured
from simforge.catalog import records
from simforge.dataset.manifest import Manifest
from simforge.errors import SourceError
from simforge.hub import loading
from simforge.types import ProfileShown

ERROR_BOUNDS = (0.20, 0.15, 0.10)
"Upper bounds on the share of wrong labels that are tested."


CONFIDENCE = 0.9


MODEL_FAMILIES = (
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
"Families of models, recognized by their names."


def judges(manifest: Manifest | None) -> Results:
    """Figures of each judge, as counted by the run: agreement with itself in both orders,
    preference for the answer shown first, agreement with labels by construction, and how
    often it decides the same when the profile is missing or a stranger's."""
    statistics = manifest.get("judges") if manifest is not None else None
    if not statistics:
        return {
            "judges": not_measured("no model judged, or the dataset does not state it")
        }
    by_judge = {
        name: {
            "agreement": _figure(judge.get("agreement")),
            "beyond_chance": _figure(
                {**judge["corrected"], "n": judge["both_orders"]}
                if "corrected" in judge
                else None,
                "kappa",
            ),
            "first_shown": _figure(judge.get("first")),
            "with_construction": _figure(judge.get("agrees_with_construction")),
        }
        for name, judge in statistics["judges"].items()
    }
    return {"judges": by_judge, "blind_controls": statistics["blind_agreement"]}


def _figure(statistic: Any, name: str = "share") -> Figure:
    if not isinstance(statistic, dict) or name not in statistic:
        return not_measured("the judge was not asked in a way that shows it")
    return {
        "value": statistic[name],
        "n": statistic["n"],
        "interval": list(statistic["interval"]),
    }


def model_families(manifest: Manifest | None) -> Results:
    """Families of the models by role, and those that both judge and answer: such a judge may
    prefer its own answers."""
    if manifest is None:
        return {
            "shared": not_measured("the dataset does not state which models made it")
        }
    family_by_role = {
        role: model_family(model["reference"])
        for role, model in manifest["models"].items()
    }
    panel = (manifest["recipe"]["judge"] or {}).get("panel", ())
    judge_families = {family_by_role[role] for role in family_by_role if role in panel}
    answer_families = {
        name for role, name in family_by_role.items() if role not in panel
    }
    shared = sorted(judge_families & answer_families)
    return {
        "by_role": family_by_role,
        "shared": shared,
        "roles": sorted(
            role for role, name in family_by_role.items() if name in shared
        ),
    }


def model_family(reference: str) -> str:
    name = reference.lower().partition("@")[0]  # without the address
    return next(
        (
            known_family
            for known_family in MODEL_FAMILIES
            if re.search(rf"(?<![a-z]){known_family}|{known_family}(?=[-\d])", name)
        ),
        name,
    )


_COMPARISON_KEY = ["persona_id", "a", "b", "dimension"]
"Columns that identify a comparison across judgments."


def judge_quality(source: str, manifest: Manifest) -> Results:
    """Measure each judge (by its name in the recipe) from its judgments: how well its
    probabilities are calibrated (`calibration`), whether it prefers answers of its own
    family (`self_preference`), and how often judges agree (`between`). Raises what
    `loading.scan` raises."""
    if not manifest["counts"].get("judgments") or manifest.get("judges") is None:
        reason = not_measured("no model judged")
        return {"calibration": reason, "self_preference": reason, "between": reason}
    wanted = (
        "persona_id",
        "dialogue_id",
        "a",
        "b",
        "dimension",
        "method",
        "role",
        "question",
        "outcome",
        "p_a",
    )
    rows = (
        loading.scan(source, "judgments")
        .filter(
            pl.col("method").is_in(["model", "rating", "construction"]),
            profile_shown=str(ProfileShown.profile),
        )
        .select(wanted)
        .collect()
    )
    model_judgments = rows.filter(pl.col("method") != "construction")
    return {
        "calibration": _calibration_by_judge(rows, model_judgments),
        "self_preference": _self_preference(source, model_judgments, manifest),
        "between": _agreement_between_judges(model_judgments),
    }


def _calibration_by_judge(
    rows: pl.DataFrame, model_judgments: pl.DataFrame
) -> Results | Figure:
    """Calibration of each judge against the labels by construction, also of comparisons that
    gave no pair."""
    truth = rows.filter(method="construction").select(
        *_COMPARISON_KEY, truth=pl.col("outcome") == "a"
    )
    matched = (
        model_judgments.drop_nulls("p_a")
        .join(truth, on=_COMPARISON_KEY, how="inner", nulls_equal=True)
        .unique(["role", "question"], maintain_order=True)
    )
    if not matched.height:
        return not_measured(
            "no judge gave soft labels on pairs with labels by construction"
        )
    result = {}
    for (role,), judgments in sorted(matched.group_by("role")):
        p_a, a_is_right = judgments["p_a"].to_numpy(), judgments["truth"].to_numpy()
        result[str(role)] = calibration(
            np.maximum(p_a, 1 - p_a),
            np.where(p_a == 0.5, 0.5, (p_a > 0.5) == a_is_right),
        )
    return result


def calibration(confidence: Array, correct: Array) -> Results:
    """Compare the confidence of a judge (0.5 to 1) with its correctness, both (questions,).
    Returns the mean confidence minus the accuracy (`overconfidence`), the expected
    calibration error in ten bins of equal size (Naeini et al. 2015) with the range that a
    perfectly calibrated judge reaches by chance (`chance`), and the Brier score."""
    if len(confidence) < figures.MIN_ITEMS:
        reason = not_measured(f"{len(confidence)} questions are too few")
        return {
            "overconfidence": reason,
            "ece": reason,
            "brier": reason,
            "accuracy": reason,
        }
    rng = np.random.default_rng(0)
    value, bins = (
        _calibration_error(confidence, correct),
        rng.integers(0, len(confidence), (figures.RESAMPLES, len(confidence))),
    )
    low, high = np.quantile(
        [_calibration_error(confidence[rows], correct[rows]) for rows in bins],
        [0.025, 0.975],
    )
    calibrated = [
        _calibration_error(
            confidence, (rng.random(len(confidence)) < confidence).astype(float)
        )
        for _ in range(figures.RESAMPLES)
    ]
    # resampling adds sampling error a second time, so the interval is reflected (basic
    # bootstrap, Efron and Tibshirani)
    interval = [max(0.0, 2 * value - float(high)), max(value, 2 * value - float(low))]
    chance = [float(bound) for bound in np.quantile(calibrated, [0.025, 0.975])]
    return {
        "overconfidence": figures.mean(confidence - correct),
        "ece": {
            "value": value,
            "n": len(confidence),
            "interval": interval,
            "chance": chance,
        },
        "brier": figures.mean((confidence - correct) ** 2),
        "confidence": figures.mean(confidence),
        "accuracy": figures.mean(correct),
    }


def _calibration_error(confidence: Array, correct: Array) -> float:
    parts = np.array_split(np.argsort(confidence, kind="stable"), 10)
    return float(
        sum(abs((confidence[rows] - correct[rows]).sum()) for rows in parts)
        / len(confidence)
    )


def _agreement_between_judges(model_judgments: pl.DataFrame) -> Results | Figure:
    """Share of equal decisions of two judges on questions that both decide; each question
    counts once."""
    roles = sorted(model_judgments["role"].unique())
    if len(roles) < 2:
        return not_measured("there is only one judge")
    decided = model_judgments.filter(pl.col("outcome").is_in(["a", "b"])).select(
        *_COMPARISON_KEY, "role", "question", "outcome"
    )
    result = {}
    for first, second in combinations(roles, 2):
        sides = [decided.filter(role=role) for role in (first, second)]
        matched = sides[0].join(
            sides[1],
            on=_COMPARISON_KEY,
            how="inner",
            nulls_equal=True,
            maintain_order="left",
        )
        matched = matched.unique("question", maintain_order=True)
        same = int((matched["outcome"] == matched["outcome_right"]).sum())
        result[f"{first} and {second}"] = figures.share(same, matched.height)
    return result


def _self_preference(
    source: str, model_judgments: pl.DataFrame, manifest: Manifest
) -> Results | Figure:
    """Excess share of answers of their own family that judges choose, over what other judges do."""
    family_by_model = {
        spec["reference"]: model_family(spec["reference"])
        for spec in manifest["models"].values()
    }
    family_by_judge = {
        role: family_by_model[spec["reference"]]
        for role, spec in manifest["models"].items()
        if role in model_judgments["role"]
    }
    if len(set(family_by_judge.values())) < 2:
        return not_measured("judges of at least two model families are needed")
    model_by_answer = dict(
        loading.scan(source, "candidates").select("id", "model").collect().iter_rows()
    )
    return self_preference(
        model_judgments, model_by_answer, family_by_model, family_by_judge
    )


def self_preference(
    judgments: pl.DataFrame,
    model_by_answer: Mapping[str, str],
    family_by_model: Mapping[str, str],
    family_by_judge: Mapping[str, str],
) -> Results:
    """Self-preference by family of judges: how much more often they choose the one answer of
    their family than other judges do. Takes judgments (`role`, `question`, `a`, `b`,
    `outcome`), the model of each answer, the family of each model, and the family of each
    judge."""
    choices: dict[str, dict[str, list[bool]]] = {
        name: {} for name in set(family_by_judge.values())
    }
    decided = judgments.filter(pl.col("outcome").is_in(["a", "b"])).unique(
        ["role", "question"], maintain_order=True
    )
    for role, a, b, outcome in decided.select("role", "a", "b", "outcome").iter_rows():
        answer_families = [
            family_by_model.get(model_by_answer.get(answer, ""), "")
            for answer in (a, b)
        ]
        for name in choices:
            if answer_families.count(name) == 1:
                choices[name].setdefault(family_by_judge[role], []).append(
                    answer_families[outcome == "b"] == name
                )
    result = {}
    for name, by_judge_family in choices.items():
        own_choices = np.array(by_judge_family.get(name, []), dtype=float)
        other_choices = np.array(
            [
                mark
                for judge_family, marks in by_judge_family.items()
                if judge_family != name
                for mark in marks
            ],
            dtype=float,
        )
        result[name] = _difference_of_shares(own_choices, other_choices)
    return result


def _difference_of_shares(own_choices: Array, other_choices: Array) -> Figure:
    """Difference of two shares, with the interval of the normal approximation."""
    if min(len(own_choices), len(other_choices)) < figures.MIN_ITEMS:
        return not_measured(
            f"{min(len(own_choices), len(other_choices))} verdicts on pairs with one "
            "answer of that family: too few"
        )
    value = float(own_choices.mean() - other_choices.mean())
    error = 1.96 * float(
        np.sqrt(
            own_choices.var() / len(own_choices)
            + other_choices.var() / len(other_choices)
        )
    )
    return {
        "value": value,
        "n": len(own_choices) + len(other_choices),
        "interval": [value - error, value + error],
    }


def certified_coverage(source: str, trusted: Path | None) -> Results:
    """Number of labels with a certified error rate, from a file of trusted labels (`id` of a
    pair, and `right`: whether its label is). Uses fixed-sequence testing (Jung et al. 2024,
    arXiv 2407.18370) over the certainty of the judge, strictest threshold first; each
    threshold is tested with the Clopper-Pearson bound at 90 % confidence."""
    if trusted is None:
        return {
            "coverage": not_measured("no trusted labels were given (--trusted FILE)")
        }
    trusted_labels = _read_trusted(trusted)
    table = (
        loading.scan(source)
        .select("id", "p_chosen", "p_calibrated", "certainty")
        .collect()
    )
    with_certainty = table.with_columns(
        confidence=pl.coalesce("p_calibrated", "p_chosen", "certainty")
    ).drop_nulls("confidence")
    matched = with_certainty.join(trusted_labels, on="id", how="inner")
    if matched.height < figures.MIN_ITEMS:
        known_ids = int(trusted_labels["id"].is_in(table["id"].to_list()).sum())
        reason = (
            f"{known_ids} of the {trusted_labels.height} trusted ids are in this data, "
            f"{matched.height} of them with a judge's "
        )
        return {
            "coverage": not_measured(
                f"{reason}certainty; the minimum is {figures.MIN_ITEMS}"
            )
        }
    certainty, is_right = matched["confidence"].to_numpy(), matched["right"].to_numpy()
    all_certainties = with_certainty["confidence"].to_numpy()
    coverage = {}
    for bound in ERROR_BOUNDS:
        threshold = lowest_threshold(certainty, ~is_right, bound)
        covered = (
            int((all_certainties >= threshold).sum()) if threshold is not None else 0
        )
        coverage[f"{bound:.0%}"] = {
            "threshold": threshold,
            **figures.share(covered, table.height),
        }
    return {"trusted": matched.height, "confidence": CONFIDENCE, "coverage": coverage}


TRUTH_WORDS = {
    **dict.fromkeys(("true", "yes", "1", "right"), True),
    **dict.fromkeys(("false", "no", "0", "wrong"), False),
}
"Accepted spellings of a right and of a wrong label."


def _read_trusted(path: Path) -> pl.DataFrame:
    """Read the trusted labels: `id` as text, and `right`. Raises `SourceError`."""
    table = records.read_table(path, f"--trusted {path}", as_text=True)
    if not {"id", "right"} <= {*table.columns}:
        raise SourceError(
            f"--trusted {path} needs the columns id and right; it has: {', '.join(table.columns)}."
        )
    rows: dict[str, bool] = {}
    nested = [name for name in ("id", "right") if table[name].dtype.is_nested()]
    if nested:
        raise SourceError(
            f"--trusted {path}: {nested[0]} holds lists, not one value a row."
        )
    for name, text in table.select(pl.col("id", "right").cast(pl.String)).iter_rows():
        right = TRUTH_WORDS.get((text or "").strip().lower())
        if right is None:
            raise SourceError(
                f"--trusted {path}: right is {text!r} for {name}; it is one of: "
                f"{', '.join(TRUTH_WORDS)}."
            )
        if rows.setdefault(name, right) != right:
            raise SourceError(
                f"--trusted {path}: {name} appears twice, once as right and once as wrong."
            )
    return pl.DataFrame(
        {"id": list(rows), "right": list(rows.values())},
        schema={"id": pl.String, "right": pl.Boolean},
    )


def lowest_threshold(
    certainty: Array, is_wrong: Array, bound: float, confidence: float = CONFIDENCE
) -> float | None:
    """Lowest certainty at and above which the share of errors is below `bound` with
    `confidence`, and likewise for each stricter threshold; `None` if there is none. Both
    arrays are (trusted labels,)."""
    from scipy.special import betaincinv

    lowest = None
    for threshold in _thresholds(certainty):
        kept = certainty >= threshold
        errors, total = int(is_wrong[kept].sum()), int(kept.sum())
        upper = (
            betaincinv(errors + 1, total - errors, confidence)
            if errors < total
            else 1.0
        )
        if upper > bound:
            break
        lowest = float(threshold)
    return lowest


def _thresholds(certainty: Array) -> Sequence[float]:
    """At most twenty thresholds, strictest first, each with one twentieth more labels; the
    first has enough to be tested."""
    ordered = np.sort(certainty)[::-1]
    places = np.unique(
        np.linspace(
            min(len(ordered) - 1, figures.MIN_ITEMS - 1), len(ordered) - 1, 20
        ).astype(int)
    )
    return list(dict.fromkeys(float(ordered[place]) for place in places))
