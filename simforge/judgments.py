"""Judgments: what a rule, or a judge's verdicts in all orders, come to for one person.

By construction: the answer steered by the person's own profile beats one that was not. By measure: a number of the
text, where the space has one for the dimension. By scorers: numbers of the text, weighted by the profile. By a model:
p = (p_ab + 1 - p_ba) / 2, and one that follows the order and not the answers is seen as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from simforge.identity import digest, rng
from simforge.measures import MEASURES
from simforge.preferences import Space
from simforge.types import OWN, Choice, Comparison, Judgment, Method, Outcome, Persona, Role, Told, Verdict

TIE_BAND = 0.05
"A soft label this close to 0.5 is a tie."

VOTES = {Choice.first: 1.0, Choice.second: 0.0, Choice.tie: 0.5}


def by_construction(comparison: Comparison, persona: Persona) -> Judgment | None:
    """An answer that follows the person's own wishes beats any other; `None` where no side does, or both."""
    a, b = comparison.a.condition, comparison.b.condition
    if (a in OWN) == (b in OWN):
        return None
    better, worse, outcome = (a, b, Outcome.a) if a in OWN else (b, a, Outcome.b)
    return _judgment(comparison, persona, "construction", f"{better}>{worse}", outcome)


def by_measure(comparison: Comparison, space: Space, persona: Persona) -> Judgment | None:
    """The side that the dimension's measure favours for this person; `None` where there is no measure."""
    axis = space.dimensions.get(comparison.dimension or "")
    pole = space.pole(persona.profile, comparison.dimension)
    if axis is None or axis.measure is None or pole is None:
        return None
    measure = MEASURES[axis.measure]
    value_a, value_b = measure(comparison.a.text), measure(comparison.b.text)
    lead = value_a - value_b if pole.side == "high" else value_b - value_a
    outcome = Outcome.tie if abs(lead) < axis.gap else Outcome.a if lead > 0 else Outcome.b
    return _judgment(comparison, persona, "measure", axis.measure, outcome, value_a=value_a, value_b=value_b)


def by_scorers(
    comparison: Comparison, scores: dict[str, dict[str, float]], space: Space, persona: Persona, gap: float
) -> Judgment:
    """What the scorers say together, weighted by the person's profile, in standard deviations; a tie within the gap."""
    a, b = (space.value(persona.profile, scores[one.id]) for one in (comparison.a, comparison.b))
    outcome = Outcome.tie if a == b or abs(a - b) < gap else Outcome.a if a > b else Outcome.b
    name = ", ".join(axis.scorer or axis.measure or "" for axis in space.dimensions.values())
    return _judgment(comparison, persona, "scorers", name, outcome, value_a=a, value_b=b)


def together(
    comparison: Comparison,
    persona: Persona,
    told: Told,
    method: Method,
    parts: Sequence[Judgment],
    weights: Sequence[float] | None = None,
) -> Judgment:
    """Several judgments of one comparison as one: their soft labels, weighted. One that cannot be read makes dimensions
    unreadable; of a panel, the others are heard, as long as they are more than half."""
    shares = list(weights or [1.0] * len(parts))
    soft = {Outcome.a: 1.0, Outcome.b: 0.0, Outcome.tie: 0.5, Outcome.inconsistent: 0.5}
    labels = [soft.get(one.outcome) if one.p_a is None else one.p_a for one in parts]
    heard = [
        (p, one, share) for p, one, share in zip(labels, parts, shares, strict=True) if p is not None and share > 0
    ]
    missing = len([share for share in shares if share > 0]) - len(heard)
    judge = ", ".join(dict.fromkeys(one.judge for one in parts))
    if not heard or (missing and (method == "weighted" or 2 * len(heard) <= len(parts))):
        return _judgment(comparison, persona, method, judge, Outcome.unreadable, told=told)
    p_a = sum(share * p for p, _, share in heard) / sum(share for _, _, share in heard)
    outcome = Outcome.tie if abs(p_a - 0.5) < TIE_BAND else Outcome.a if p_a > 0.5 else Outcome.b
    return _judgment(
        comparison,
        persona,
        method,
        judge,
        outcome,
        told=told,
        p_a=p_a,
        certainty=_mean(one.certainty for _, one, _ in heard),
    )


def combine(said: dict[str, list[Verdict]]) -> tuple[Outcome, float | None]:
    """The outcome and the soft label for `a`, from the verdicts of each order that was asked (`ab`, `ba`)."""
    words, shares, graded = [], [], True
    for order, verdicts in said.items():
        readable = [one if order == "ab" else one.swap() for one in verdicts if one.choice != Choice.unreadable]
        if not readable:
            return Outcome.unreadable, None
        graded = graded and all(one.p_first is not None for one in readable)
        p = sum(VOTES[one.choice] if one.p_first is None else one.p_first for one in readable) / len(readable)
        shares.append(p)
        words.append(readable[0].choice if len(readable) == 1 else _side(p))
    p_a = sum(shares) / len(shares)
    if graded and abs(p_a - 0.5) < TIE_BAND:
        return Outcome.tie, p_a
    if len({*words}) > 1:
        return Outcome.inconsistent, p_a
    return {Choice.first: Outcome.a, Choice.second: Outcome.b, Choice.tie: Outcome.tie}[words[0]], p_a


def by_model(
    comparison: Comparison, persona: Persona, told: Told, role: Role, judge: str, said: dict[str, list[Verdict]]
) -> Judgment:
    outcome, p_a = combine(said)
    everything = [one for verdicts in said.values() for one in verdicts]
    readable = [one for one in everything if one.choice != Choice.unreadable]
    return _judgment(
        comparison,
        persona,
        "model",
        judge,
        outcome,
        role,
        told=told,
        p_a=p_a,
        certainty=_mean(one.certainty for one in readable),
        stability=_stability(said),
        repaired=sum(one.repaired and one.choice != Choice.unreadable for one in everything),
        **{f"verdict_{order}": _verdict(verdicts) for order, verdicts in said.items()},
        **{f"p_{order}": _graded(verdicts) for order, verdicts in said.items()},
        **{f"reasons_{order}": verdicts[0].reasons for order, verdicts in said.items()},
    )


def by_rating(
    comparison: Comparison, persona: Persona, told: Told, role: Role, judge: str, said: dict[str, list[Verdict]]
) -> Judgment:
    readable = [one for one in said["ab"] if one.choice != Choice.unreadable]
    a, b = (_mean(getattr(one, name) for one in readable) for name in ("value_first", "value_second"))
    words = {one.choice for one in readable}
    one_word = {Choice.first: Outcome.a, Choice.second: Outcome.b, Choice.tie: Outcome.tie}
    outcome = Outcome.unreadable if not words else Outcome.inconsistent if len(words) > 1 else one_word[words.pop()]
    repaired = sum(one.repaired for one in readable)
    more = {"told": told, "value_a": a, "value_b": b, "repaired": repaired, "stability": _stability(said)}
    return _judgment(comparison, persona, "rating", judge, outcome, role, **more)


def _verdict(verdicts: Sequence[Verdict]) -> Choice:
    """What an order came to, over its repeats."""
    readable = [VOTES[one.choice] for one in verdicts if one.choice != Choice.unreadable]
    if len(verdicts) == 1 or not readable:
        return verdicts[0].choice
    return _side(sum(readable) / len(readable))


def _graded(verdicts: Sequence[Verdict]) -> float | None:
    """The probability of one order, over its repeats, where all that could be read came with one."""
    given = [one.p_first for one in verdicts if one.choice != Choice.unreadable]
    return None if None in given else _mean(given)


def _side(p_first: float) -> Choice:
    return Choice.tie if p_first == 0.5 else Choice.first if p_first > 0.5 else Choice.second


def _stability(said: dict[str, list[Verdict]]) -> float | None:
    """How often two readable verdicts of one order are the same."""
    same, pairs = 0, 0
    for verdicts in said.values():
        words = [one.choice for one in verdicts if one.choice != Choice.unreadable]
        for number, word in enumerate(words):
            same += sum(word == other for other in words[number + 1 :])
            pairs += len(words) - number - 1
    return same / pairs if pairs else None


def _mean(numbers: Iterable[float | None]) -> float | None:
    found = [one for one in numbers if one is not None]
    return sum(found) / len(found) if found else None


def drawn(seed: int, purpose: str, comparison: Comparison) -> float:
    return rng(seed, purpose, identity_of(comparison, "model")).random()


def _judgment(
    comparison: Comparison, persona: Persona, method: Method, judge: str, outcome: Outcome, role: Role = "", **more: Any
) -> Judgment:
    told = more.setdefault("told", Told.profile)
    return Judgment(
        id=digest([identity_of(comparison, method), persona.id, told, role]),
        turn=comparison.a.turn,
        persona_id=persona.id,
        a=comparison.a.id,
        b=comparison.b.id,
        dimension=comparison.dimension,
        method=method,
        judge=judge,
        outcome=outcome,
        **more,
    )


def identity_of(comparison: Comparison, method: str) -> str:
    return digest(["judgment", comparison.a.id, comparison.b.id, comparison.dimension, method])
