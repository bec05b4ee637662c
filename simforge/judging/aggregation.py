"""How verdicts combine: orders and repeats, dimensions, and panels of judges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from simforge.judging.rules import Rater
from simforge.types import Choice, Comparison, Judgment, Outcome, Verdict

TIE_BAND = 0.05
"A soft label this close to 0.5 counts as a tie."


CHOICE_OUTCOMES = {
    Choice.first: Outcome.a,
    Choice.second: Outcome.b,
    Choice.tie: Outcome.tie,
}
"Outcome of a verdict that was given with `a` shown first."


SOFT_LABELS = {
    Outcome.a: 1.0,
    Outcome.b: 0.0,
    Outcome.tie: 0.5,
    Outcome.inconsistent: 0.5,
}
"Soft label for `a` of an outcome that has no probability."


VOTES = {Choice.first: 1.0, Choice.second: 0.0, Choice.tie: 0.5}


def combine_dimensions(
    comparison: Comparison,
    rater: Rater,
    parts: Sequence[Judgment],
    weights: Sequence[float],
) -> Judgment:
    """Combines a judge's verdicts on each dimension: their soft labels, weighted by the
    profile. If a dimension with positive weight is unreadable, the whole judgment is
    unreadable."""
    counting = [
        (judgment, share)
        for judgment, share in zip(parts, weights, strict=True)
        if share > 0
    ]
    if any(judgment.p_a is None for judgment, _ in counting):
        return rater.judgment(comparison, "weighted", Outcome.unreadable)
    p_a = sum(share * (judgment.p_a or 0.0) for judgment, share in counting) / sum(
        share for _, share in counting
    )
    outcome = (
        Outcome.tie
        if abs(p_a - 0.5) < TIE_BAND
        else Outcome.a
        if p_a > 0.5
        else Outcome.b
    )
    return rater.judgment(
        comparison,
        "weighted",
        outcome,
        p_a=p_a,
        certainty=_mean(judgment.certainty for judgment, _ in counting),
    )


def combine_panel(
    comparison: Comparison, rater: Rater, parts: Sequence[Judgment]
) -> Judgment:
    """Combines several judges: the outcome of more than half of them, else `inconsistent`. The
    soft label is the mean of theirs."""
    outcome, times = Counter(judgment.outcome for judgment in parts).most_common(1)[0]
    majority = outcome if 2 * times > len(parts) else Outcome.inconsistent
    p_a = _mean(
        SOFT_LABELS.get(judgment.outcome) if judgment.p_a is None else judgment.p_a
        for judgment in parts
    )
    certainty = _mean(judgment.certainty for judgment in parts)
    return rater.judgment(
        comparison,
        "panel",
        majority,
        p_a=None if majority == Outcome.unreadable else p_a,
        certainty=certainty,
    )


def combine_orders(
    verdicts_by_order: dict[str, list[Verdict]],
) -> tuple[Outcome, float | None]:
    """Computes the outcome and the soft label for `a` from the verdicts of each order that was
    asked (`ab`, `ba`)."""
    words, shares, graded = [], [], True
    for order, verdicts in verdicts_by_order.items():
        readable = [
            verdict if order == "ab" else verdict.swap()
            for verdict in verdicts
            if verdict.choice != Choice.unreadable
        ]
        if not readable:
            return Outcome.unreadable, None
        graded = graded and all(verdict.p_first is not None for verdict in readable)
        p = sum(
            VOTES[verdict.choice] if verdict.p_first is None else verdict.p_first
            for verdict in readable
        ) / len(readable)
        shares.append(p)
        words.append(readable[0].choice if len(readable) == 1 else _choice_of(p))
    p_a = sum(shares) / len(shares)
    if graded and abs(p_a - 0.5) < TIE_BAND:
        return Outcome.tie, p_a
    if len({*words}) > 1:
        return Outcome.inconsistent, p_a
    return CHOICE_OUTCOMES[words[0]], p_a


def by_model(
    comparison: Comparison,
    rater: Rater,
    verdicts_by_order: dict[str, list[Verdict]],
    question: str,
) -> Judgment:
    """Combines a model's verdicts over all repeats, by the order in which the answers were
    shown (`ab`, `ba`)."""
    outcome, p_a = combine_orders(verdicts_by_order)
    all_verdicts = [
        verdict for verdicts in verdicts_by_order.values() for verdict in verdicts
    ]
    readable = [
        verdict for verdict in all_verdicts if verdict.choice != Choice.unreadable
    ]
    return rater.judgment(
        comparison,
        "model",
        outcome,
        question=question,
        p_a=p_a,
        certainty=_mean(verdict.certainty for verdict in readable),
        stability=_stability(verdicts_by_order),
        repaired=sum(verdict.repaired for verdict in readable),
        **{
            f"verdict_{order}": _combine_repeats(verdicts)
            for order, verdicts in verdicts_by_order.items()
        },
        **{
            f"p_{order}": _mean_p_first(verdicts)
            for order, verdicts in verdicts_by_order.items()
        },
        **{
            f"reasons_{order}": verdicts[0].reasons
            for order, verdicts in verdicts_by_order.items()
        },
    )


def by_rating(
    comparison: Comparison,
    rater: Rater,
    verdicts_by_order: dict[str, list[Verdict]],
    question: str,
) -> Judgment:
    """Combines a model's ratings of both answers; ratings have no order."""
    verdicts = [
        verdict
        for order_verdicts in verdicts_by_order.values()
        for verdict in order_verdicts
    ]
    readable = [verdict for verdict in verdicts if verdict.choice != Choice.unreadable]
    a, b = (
        _mean(getattr(verdict, name) for verdict in readable)
        for name in ("value_first", "value_second")
    )
    choices = {verdict.choice for verdict in readable}
    outcome = (
        Outcome.unreadable
        if not choices
        else Outcome.inconsistent
        if len(choices) > 1
        else CHOICE_OUTCOMES[choices.pop()]
    )
    repaired = sum(verdict.repaired for verdict in readable)
    more = {
        "question": question,
        "repaired": repaired,
        "stability": _stability(verdicts_by_order),
    }
    return rater.judgment(comparison, "rating", outcome, value_a=a, value_b=b, **more)


def _combine_repeats(verdicts: Sequence[Verdict]) -> Choice:
    """Combines the verdicts of one order over its repeats."""
    readable = [
        VOTES[verdict.choice]
        for verdict in verdicts
        if verdict.choice != Choice.unreadable
    ]
    if len(verdicts) == 1 or not readable:
        return verdicts[0].choice
    return _choice_of(sum(readable) / len(readable))


def _mean_p_first(verdicts: Sequence[Verdict]) -> float | None:
    """Mean probability of `first` in one order, over its repeats; `None` if any readable
    verdict has no probability."""
    probabilities = [
        verdict.p_first for verdict in verdicts if verdict.choice != Choice.unreadable
    ]
    return None if None in probabilities else _mean(probabilities)


def _choice_of(p_first: float) -> Choice:
    return (
        Choice.tie
        if p_first == 0.5
        else Choice.first
        if p_first > 0.5
        else Choice.second
    )


def _stability(verdicts_by_order: dict[str, list[Verdict]]) -> float | None:
    """Share of pairs of readable verdicts in the same order that agree; `None` without such
    pairs."""
    same, pairs = 0, 0
    for verdicts in verdicts_by_order.values():
        words = [
            verdict.choice
            for verdict in verdicts
            if verdict.choice != Choice.unreadable
        ]
        for number, word in enumerate(words):
            same += sum(word == other for other in words[number + 1 :])
            pairs += len(words) - number - 1
    return same / pairs if pairs else None


def _mean(numbers: Iterable[float | None]) -> float | None:
    present = [number for number in numbers if number is not None]
    return sum(present) / len(present) if present else None
