"""Pairing: from candidates and judgments to chosen/rejected, or to a discard that says why not.

    outcome = decide(comparison, judgments, labels)   ->  PreferencePair | Discard

Nothing is dropped silently, and no pair is made from a label that was not decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from simforge.config import Labels, Pairing
from simforge.identity import digest
from simforge.types import Candidate, Comparison, Discard, Judgment, Message, Outcome, PreferencePair


def comparisons(
    settings: Pairing,
    prefix: tuple[Message, ...],
    candidates: Sequence[Candidate],
    dimensions: Sequence[str | None],
) -> list[Comparison]:
    """Who is compared with whom at a turn: per dimension, sample with sample, or within one arm all samples. Arms that
    do not compete at this turn are compared at others."""
    found = []
    for dimension in dimensions:
        for first, second in settings.compare if settings.compare != "best" else ():
            left = [c for c in candidates if c.arm == first and c.dimension in (None, dimension)]
            right = [c for c in candidates if c.arm == second and c.dimension in (None, dimension)]
            if first == second:
                matches = [(a, b) for n, a in enumerate(left) for b in left[n + 1 :]]
            else:
                matches = list(zip(left, right, strict=True)) if left and right else []
            found += [Comparison(prefix, a, b, dimension) for a, b in matches]
    return found


def best(
    prefix: tuple[Message, ...], candidates: Sequence[Candidate], ratings: Mapping[str, float], source: Random
) -> list[Comparison]:
    """The best rated answer with another, drawn at random: none where fewer than two were rated."""
    rated = [one for one in candidates if one.id in ratings]
    if len(rated) < 2:
        return []
    winner = max(rated, key=lambda one: ratings[one.id])
    other = source.choice([one for one in rated if one is not winner])
    return [Comparison(prefix, winner, other, None)]


def decide(comparison: Comparison, judgments: Sequence[Judgment], labels: Labels) -> PreferencePair | Discard:
    """The pair that the recipe's label makes of a comparison, or why there is none."""
    a, b = comparison.a, comparison.b
    if a.text.strip() == b.text.strip():
        return _discard(comparison, "same_text", "both answers read the same")
    by_method = {judgment.method: judgment for judgment in judgments}
    judged = by_method.get("pairwise") or by_method.get("rating")
    label = by_method.get("construction") if labels.by == "construction" else judged
    if label is None:
        raise ValueError(f"comparison {a.id} / {b.id} has no judgment by {labels.by}")
    if label.outcome not in (Outcome.a, Outcome.b):
        values = f"ratings {_number(label.value_a)} and {_number(label.value_b)}"
        said = values if label.method == "rating" else f"p {_number(label.p_a)}"
        return _discard(comparison, label.outcome.value, f"judge {label.judge}, {said}")
    measured = by_method.get("measure")
    if labels.check == "measure" and measured is not None and measured.outcome != label.outcome:
        values = f"{measured.judge} {_number(measured.value_a)} against {_number(measured.value_b)}"
        return _discard(comparison, "measure_disagrees", f"{comparison.dimension}: {values}")
    if labels.agree and judged is not None and judged.outcome != label.outcome:
        reason = "judge_disagrees" if judged.outcome in (Outcome.a, Outcome.b) else judged.outcome.value
        return _discard(comparison, reason, f"judge {judged.judge}, p {_number(judged.p_a)}")
    return _pair(comparison, label, measured, judged)


def _pair(
    comparison: Comparison, label: Judgment, measured: Judgment | None, judged: Judgment | None
) -> PreferencePair:
    wins_a = label.outcome == Outcome.a
    chosen, rejected = (comparison.a, comparison.b) if wins_a else (comparison.b, comparison.a)
    rated = judged if judged is not None and judged.method == "rating" else None
    p_chosen = None
    if judged is not None and judged.p_a is not None:
        p_chosen = judged.p_a if wins_a else 1.0 - judged.p_a
    return PreferencePair(
        id=digest(["pair", comparison.a.id, comparison.b.id, comparison.dimension]),
        turn=comparison.a.turn,
        prefix=comparison.prefix,
        chosen=chosen,
        rejected=rejected,
        dimension=comparison.dimension,
        label="construction" if label.method == "construction" else "judge",
        p_chosen=p_chosen,
        measure_gap=_gap(measured, wins_a),
        rating_gap=_gap(rated, wins_a),
    )


def _gap(judgment: Judgment | None, wins_a: bool) -> float | None:
    """The winner's value minus the other's."""
    if judgment is None or judgment.value_a is None or judgment.value_b is None:
        return None
    return judgment.value_a - judgment.value_b if wins_a else judgment.value_b - judgment.value_a


def _discard(comparison: Comparison, reason: str, detail: str) -> Discard:
    versus = f"{comparison.a.arm} / {comparison.b.arm}"
    return Discard(comparison.a.turn, "pairing", reason, f"{versus}: {detail}")


def _number(value: float | None) -> str:
    return "not given" if value is None else f"{value:.2f}"
