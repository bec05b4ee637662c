"""Pairing: from candidates and judgments to chosen/rejected, or to a discard that says why not.

    outcome = decide(comparison, persona, rules, judged, recipe, ...)   ->  PreferencePair | Discard

Nothing is dropped silently, and no pair is made from a label that was not decided.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random

from simforge.config import Pairing, Recipe
from simforge.identity import digest, rng
from simforge.measures import WORD, words
from simforge.types import (
    Candidate,
    Comparison,
    Condition,
    Discard,
    Judgment,
    Message,
    Method,
    Outcome,
    Persona,
    PreferencePair,
)

NEAR = 0.9
"Jaccard similarity of their three-word runs from which two texts are nearly the same."
DECIDED = (Outcome.a, Outcome.b)


def comparisons(
    settings: Pairing,
    prefix: tuple[Message, ...],
    candidates: Sequence[Candidate],
    dimensions: Sequence[str | None],
) -> list[Comparison]:
    """Who is compared with whom at a turn: per dimension, sample with sample; within one arm all samples; and one with
    each of the `others`. Arms that do not compete at this turn are compared at others."""
    found = []
    for dimension in dimensions:
        for first, second in settings.compare if not isinstance(settings.compare, str) else ():
            left, right = (_of(candidates, arm, dimension) for arm in (first, second))
            if first == second:
                matches = [(a, b) for n, a in enumerate(left) for b in left[n + 1 :]]
            elif any(one.condition == Condition.others for one in (*left, *right)):
                matches = [(a, b) for a in left for b in right]
            else:
                matches = list(zip(left, right, strict=True)) if left and right else []
            found += [Comparison(prefix, a, b, dimension) for a, b in matches]
    return found


def _of(candidates: Sequence[Candidate], arm: str, dimension: str | None) -> list[Candidate]:
    own = [one for one in candidates if one.arm == arm]
    return [one for one in own if one.condition == Condition.others or one.dimension in (None, dimension)]


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


def any_two(prefix: tuple[Message, ...], candidates: Sequence[Candidate], source: Random) -> list[Comparison]:
    """Two answers, drawn at random: none where there are fewer."""
    if len(candidates) < 2:
        return []
    a, b = source.sample(list(candidates), 2)
    return [Comparison(prefix, a, b, None)]


def decide(
    comparison: Comparison,
    persona: Persona,
    rules: Mapping[Method, Judgment],
    judged: Judgment | None,
    recipe: Recipe,
    unsafe: Collection[str] = (),
    seed: int = 0,
) -> PreferencePair | Discard:
    """The pair that the recipe's label makes of a comparison for a person, or why there is none.

    `rules` are the judgments without a model, `judged` is what a model came to; `unsafe` are ids of answers that
    nobody's wishes may make the chosen one.
    """
    labels, settings = recipe.labels, recipe.pairing
    reason = _unfit(comparison, recipe)
    if reason is not None:
        return _discard(comparison, persona, *reason)
    label = judged if labels.by == "judge" else rules.get(labels.by)
    if label is None:
        raise ValueError(f"comparison {comparison.a.id} / {comparison.b.id} has no judgment by {labels.by}")
    outcome = label.outcome
    if outcome == Outcome.tie and settings.ties == "keep":
        outcome = rng(seed, "tie", label.id).choice(DECIDED)
    elif outcome not in DECIDED:
        return _discard(comparison, persona, outcome.value, f"{label.judge}, {_values(label)}")
    if label is judged and judged.certainty is not None and judged.certainty < settings.certainty:
        return _discard(comparison, persona, "uncertain", f"{judged.judge}, certainty {judged.certainty:.2f}")
    measured = rules.get("measure")
    tied = label.outcome == Outcome.tie  # what decides nothing is against no measure
    if labels.check == "measure" and measured is not None and measured.outcome != outcome and not tied:
        return _discard(
            comparison, persona, "measure_disagrees", f"{comparison.dimension}: {measured.judge} {_values(measured)}"
        )
    against = _against(label, judged, recipe)
    if judged is not None and against:
        return _discard(comparison, persona, against, f"judge {judged.judge}, {_values(judged)}")
    chosen = comparison.a if outcome == Outcome.a else comparison.b
    if chosen.id in unsafe:
        return _discard(comparison, persona, "unsafe", f"the {chosen.arm} answer")
    return _pair(comparison, persona, label, outcome, measured, judged)


def at_most(pairs: Sequence[PreferencePair], most: int | None) -> tuple[list[PreferencePair], list[Discard]]:
    """Of each person's pairs of a turn, those closest in length; the others are discards."""
    kept: set[int] = set()
    for person in {pair.persona.id for pair in pairs}:
        own = [n for n, pair in enumerate(pairs) if pair.persona.id == person]
        kept.update(sorted(own, key=lambda n: _ratio(pairs[n].chosen.text, pairs[n].rejected.text))[:most])
    left = [pair for n, pair in enumerate(pairs) if n not in kept]
    discards = [
        Discard(pair.turn, "pairing", "surplus", f"{pair.chosen.arm} / {pair.rejected.arm}", pair.persona.id)
        for pair in left
    ]
    return [pairs[n] for n in sorted(kept)], discards


def near(a: str, b: str) -> bool:
    """Whether two texts are nearly the same: Jaccard similarity of their three-word runs."""
    runs_a, runs_b = runs(a), runs(b)
    return len(runs_a & runs_b) >= NEAR * max(1, len(runs_a | runs_b))


def runs(text: str) -> set[tuple[str, ...]]:
    """Each three words in a row."""
    said = WORD.findall(text.lower())
    return {tuple(said[start : start + 3]) for start in range(max(1, len(said) - 2))}


def _unfit(comparison: Comparison, recipe: Recipe) -> tuple[str, str] | None:
    """Why two answers cannot be a pair, whatever is preferred."""
    a, b = comparison.a.text, comparison.b.text
    if a.split() == b.split():
        return "same_text", "both answers read the same"
    if recipe.filters.near_duplicates and near(a, b):
        return "near_same", "the answers differ in a few words"
    most = recipe.pairing.length_ratio
    if most is not None and _ratio(a, b) > most:
        return "length", f"{words(a):.0f} words against {words(b):.0f}"
    return None


def _ratio(a: str, b: str) -> float:
    """How many times as long as the other the longer text is, in words."""
    short, long = sorted((words(a), words(b)))
    return long / max(1.0, short)


def _against(label: Judgment, judged: Judgment | None, recipe: Recipe) -> str | None:
    """The reason why a judge stands against a label that it did not make."""
    verify = recipe.labels.verify
    if judged is None or judged is label or verify == "none" or judged.outcome == label.outcome:
        return None
    if judged.outcome in DECIDED:
        return "judge_disagrees"
    return judged.outcome.value if verify == "agree" else None


def _pair(
    comparison: Comparison,
    persona: Persona,
    label: Judgment,
    outcome: Outcome,
    measured: Judgment | None,
    judged: Judgment | None,
) -> PreferencePair:
    wins_a = outcome == Outcome.a
    chosen, rejected = (comparison.a, comparison.b) if wins_a else (comparison.b, comparison.a)
    p_chosen = None
    if judged is not None and judged.p_a is not None:
        p_chosen = judged.p_a if wins_a else 1.0 - judged.p_a
    by = {"construction": "construction", "scorers": "scorers"}.get(label.method, "judge")
    valued = label if label.method in ("scorers", "rating") else judged
    return PreferencePair(
        id=digest(["pair", comparison.a.id, comparison.b.id, comparison.dimension, persona.id]),
        turn=comparison.a.turn,
        persona=persona,
        prefix=comparison.prefix,
        chosen=chosen,
        rejected=rejected,
        dimension=comparison.dimension,
        label="tie" if label.outcome == Outcome.tie else by,  # type: ignore[arg-type]
        p_chosen=p_chosen,
        judgment=judged.id if judged is not None else label.id if label.method == "scorers" else None,
        certainty=judged.certainty if judged is not None else None,
        measure_gap=_gap(measured, wins_a),
        value_gap=_gap(valued, wins_a),
    )


def _gap(judgment: Judgment | None, wins_a: bool) -> float | None:
    """The winner's value minus the other's."""
    if judgment is None or judgment.value_a is None or judgment.value_b is None:
        return None
    return judgment.value_a - judgment.value_b if wins_a else judgment.value_b - judgment.value_a


def _discard(comparison: Comparison, persona: Persona, reason: str, detail: str) -> Discard:
    versus = f"{comparison.a.arm} / {comparison.b.arm}"
    return Discard(comparison.a.turn, "pairing", reason, f"{versus}: {detail}", persona.id)


def _values(judgment: Judgment) -> str:
    if judgment.value_a is not None and judgment.value_b is not None:
        return f"{judgment.value_a:.2f} against {judgment.value_b:.2f}"
    return "p not given" if judgment.p_a is None else f"p {judgment.p_a:.2f}"
