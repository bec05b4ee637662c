"""Pairing: turns candidates and judgments into preference pairs, or into discards with a
reason.

    outcome = decide(comparison, persona, rules, judged, recipe, ...)  # PreferencePair | Discard

Nothing is dropped silently, and an undecided label never becomes a pair.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random

from simforge.identity import digest, rng
from simforge.recipe.conditions import CONDITIONS
from simforge.recipe.schema import Pairing, Recipe
from simforge.text.measures import lower_words, words
from simforge.types import (
    Candidate,
    Comparison,
    Discard,
    Judgment,
    Message,
    Method,
    Outcome,
    Persona,
    PreferencePair,
)

NEAR_SAME_SIMILARITY = 0.9
"Jaccard similarity of three-word runs from which two texts count as nearly the same."


DECIDED = (Outcome.a, Outcome.b)


def comparisons(
    settings: Pairing,
    prefix: tuple[Message, ...],
    candidates: Sequence[Candidate],
    dimensions: Sequence[str | None],
) -> list[Comparison]:
    """Lists the comparisons of a turn. For each dimension: sample with sample; within one
    variant, every two samples; and one variant's answers with each of the `others`. Variants
    that do not compete at this turn are compared at other turns."""
    planned = []
    for dimension in dimensions:
        for first_variant, second_variant in (
            settings.compare if not isinstance(settings.compare, str) else ()
        ):
            first_answers, second_answers = (
                _in_variant(candidates, variant, dimension)
                for variant in (first_variant, second_variant)
            )
            if first_variant == second_variant:
                matches = [
                    (a, b)
                    for position, a in enumerate(first_answers)
                    for b in first_answers[position + 1 :]
                ]
            elif any(
                CONDITIONS.find(candidate.condition).per_missing_wish
                for candidate in (*first_answers, *second_answers)
            ):
                matches = [(a, b) for a in first_answers for b in second_answers]
            else:
                matches = (
                    list(zip(first_answers, second_answers, strict=True))
                    if first_answers and second_answers
                    else []
                )
            planned += [Comparison(prefix, a, b, dimension) for a, b in matches]
    return planned


def _in_variant(
    candidates: Sequence[Candidate], variant: str, dimension: str | None
) -> list[Candidate]:
    variant_candidates = [
        candidate for candidate in candidates if candidate.variant == variant
    ]
    return [
        candidate
        for candidate in variant_candidates
        if CONDITIONS.find(candidate.condition).per_missing_wish
        or candidate.dimension in (None, dimension)
    ]


def best_and_random(
    prefix: tuple[Message, ...],
    candidates: Sequence[Candidate],
    ratings: Mapping[str, float],
    random_source: Random,
) -> list[Comparison]:
    """Pairs the best rated answer with another one, drawn at random; empty if fewer than two
    were rated."""
    rated = [candidate for candidate in candidates if candidate.id in ratings]
    if len(rated) < 2:
        return []
    winner = max(rated, key=lambda candidate: ratings[candidate.id])
    other = random_source.choice(
        [candidate for candidate in rated if candidate is not winner]
    )
    return [Comparison(prefix, winner, other, None)]


def random_pair(
    prefix: tuple[Message, ...], candidates: Sequence[Candidate], random_source: Random
) -> list[Comparison]:
    """Pairs two answers, drawn at random; empty if there are fewer than two."""
    if len(candidates) < 2:
        return []
    a, b = random_source.sample(list(candidates), 2)
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
    """Returns the pair that the recipe's label makes of a comparison for a person, or a discard
    with the reason.

    `rules` are the judgments made without a model, `judged` is the model's combined judgment.
    `unsafe` are the ids of answers that must never be chosen, whatever the person wants.
    """
    labels, settings = recipe.labels, recipe.pairing
    reason = _unfit_reason(comparison, recipe)
    if reason is not None:
        return _discard(comparison, persona, *reason)
    label = judged if labels.by == "judge" else rules.get(labels.by)
    if label is None:
        raise ValueError(
            f"comparison {comparison.a.id} / {comparison.b.id} has no judgment by {labels.by}"
        )
    outcome = label.outcome
    if outcome == Outcome.tie and settings.ties == "keep":
        outcome = rng(seed, "tie", label.id).choice(DECIDED)
    elif outcome not in DECIDED:
        return _discard(
            comparison,
            persona,
            outcome.value,
            f"{label.judge}, {_describe_values(label)}",
        )
    if (
        label is judged
        and judged.certainty is not None
        and judged.certainty < settings.min_certainty
    ):
        return _discard(
            comparison,
            persona,
            "uncertain",
            f"{judged.judge}, certainty {judged.certainty:.2f}",
        )
    measured = rules.get("measure")
    tied = (
        label.outcome == Outcome.tie
    )  # a tie decides nothing, so it cannot contradict a measure
    if (
        labels.check == "measure"
        and measured is not None
        and measured.outcome != outcome
        and not tied
    ):
        return _discard(
            comparison,
            persona,
            "measure_disagrees",
            f"{comparison.dimension}: {measured.judge} {_describe_values(measured)}",
        )
    objection = _judge_objection(label, judged, recipe)
    if judged is not None and objection:
        return _discard(
            comparison,
            persona,
            objection,
            f"judge {judged.judge}, {_describe_values(judged)}",
        )
    chosen = comparison.a if outcome == Outcome.a else comparison.b
    if chosen.id in unsafe:
        return _discard(comparison, persona, "unsafe", f"the {chosen.variant} answer")
    return _pair(comparison, persona, label, outcome, measured, judged)


def limit_pairs(
    pairs: Sequence[PreferencePair], limit: int | None
) -> tuple[list[PreferencePair], list[Discard]]:
    """Keeps for each person at most a given number of a turn's pairs, those closest in length;
    the others become discards."""
    kept: set[int] = set()
    for person in {pair.persona.id for pair in pairs}:
        positions = [
            position for position, pair in enumerate(pairs) if pair.persona.id == person
        ]
        kept.update(
            sorted(
                positions,
                key=lambda position: _length_ratio(
                    pairs[position].chosen.text, pairs[position].rejected.text
                ),
            )[:limit]
        )
    surplus = [pair for position, pair in enumerate(pairs) if position not in kept]
    discards = [
        Discard(
            pair.turn,
            "pairing",
            "surplus",
            f"{pair.chosen.variant} / {pair.rejected.variant}",
            pair.persona.id,
        )
        for pair in surplus
    ]
    return [pairs[position] for position in sorted(kept)], discards


def nearly_same(a: str, b: str) -> bool:
    """Returns whether two texts are nearly the same, by the Jaccard similarity of their
    three-word runs."""
    runs_a, runs_b = three_word_runs(a), three_word_runs(b)
    return len(runs_a & runs_b) >= NEAR_SAME_SIMILARITY * max(1, len(runs_a | runs_b))


def three_word_runs(text: str) -> set[tuple[str, ...]]:
    """Returns every run of three words in a text."""
    words_of_text = lower_words(text)
    return {
        words_of_text[start : start + 3]
        for start in range(max(1, len(words_of_text) - 2))
    }


def _unfit_reason(comparison: Comparison, recipe: Recipe) -> tuple[str, str] | None:
    """Returns the reason why two answers cannot be a pair, whatever is preferred; `None` if
    they can."""
    a, b = comparison.a.text, comparison.b.text
    if a.split() == b.split():
        return "same_text", "both answers read the same"
    if recipe.filters.near_duplicates and nearly_same(a, b):
        return "near_same", "the answers differ in a few words"
    most = recipe.pairing.max_length_ratio
    if most is not None and _length_ratio(a, b) > most:
        return "length", f"{words(a):.0f} words against {words(b):.0f}"
    return None


def _length_ratio(a: str, b: str) -> float:
    """Length of the longer text divided by the length of the shorter one, in words."""
    short, long = sorted((words(a), words(b)))
    return long / max(1.0, short)


def _judge_objection(
    label: Judgment, judged: Judgment | None, recipe: Recipe
) -> str | None:
    """Returns the reason why a judge's outcome rules out a label that the judge did not
    make."""
    verify = recipe.labels.verify
    if (
        judged is None
        or judged is label
        or verify == "none"
        or judged.outcome == label.outcome
    ):
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
    chosen, rejected = (
        (comparison.a, comparison.b) if wins_a else (comparison.b, comparison.a)
    )
    p_chosen = None
    if judged is not None and judged.p_a is not None:
        p_chosen = judged.p_a if wins_a else 1.0 - judged.p_a
    by = {"construction": "construction", "scorers": "scorers"}.get(
        label.method, "judge"
    )
    value_judgment = label if label.method in ("scorers", "rating") else judged
    return PreferencePair(
        id=digest(
            ["pair", comparison.a.id, comparison.b.id, comparison.dimension, persona.id]
        ),
        turn=comparison.a.turn,
        persona=persona,
        prefix=comparison.prefix,
        chosen=chosen,
        rejected=rejected,
        dimension=comparison.dimension,
        label="tie" if label.outcome == Outcome.tie else by,  # type: ignore[arg-type]
        p_chosen=p_chosen,
        judgment=judged.id
        if judged is not None
        else label.id
        if label.method == "scorers"
        else None,
        certainty=judged.certainty if judged is not None else None,
        measure_gap=_value_gap(measured, wins_a),
        value_gap=_value_gap(value_judgment, wins_a),
    )


def _value_gap(judgment: Judgment | None, a_wins: bool) -> float | None:
    """The winner's value minus the other's; `None` without values."""
    if judgment is None or judgment.value_a is None or judgment.value_b is None:
        return None
    return (
        judgment.value_a - judgment.value_b
        if a_wins
        else judgment.value_b - judgment.value_a
    )


def _discard(
    comparison: Comparison, persona: Persona, reason: str, detail: str
) -> Discard:
    versus = f"{comparison.a.variant} / {comparison.b.variant}"
    return Discard(
        comparison.a.turn, "pairing", reason, f"{versus}: {detail}", persona.id
    )


def _describe_values(judgment: Judgment) -> str:
    if judgment.value_a is not None and judgment.value_b is not None:
        return f"{judgment.value_a:.2f} against {judgment.value_b:.2f}"
    return "p not given" if judgment.p_a is None else f"p {judgment.p_a:.2f}"
