"""Judgments: what a rule, or a judge's verdicts in all orders, come to for one person.

By construction: the answer steered by the person's own profile beats one that was not. By measure: a number of the
text, where the space has one for the dimension. By scorers: numbers of the text, weighted by the profile. By a model:
p = (p_ab + 1 - p_ba) / 2, and one that follows the order and not the answers is seen as such.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from simforge.identity import digest, rng
from simforge.measures import MEASURES
from simforge.preferences import Space
from simforge.types import OWN, Choice, Comparison, Judgment, Method, Outcome, Persona, Role, Told, Verdict

TIE_BAND = 0.05
"A soft label this close to 0.5 is a tie."

MEANT = {Choice.first: Outcome.a, Choice.second: Outcome.b, Choice.tie: Outcome.tie}
"What a verdict says with `a` first."
SOFT = {Outcome.a: 1.0, Outcome.b: 0.0, Outcome.tie: 0.5, Outcome.inconsistent: 0.5}
"What an outcome says of `a` where there is no probability."
VOTES = {Choice.first: 1.0, Choice.second: 0.0, Choice.tie: 0.5}


@dataclass(frozen=True, slots=True)
class Seat:
    """Who judges, from whose side, and knowing what."""

    persona: Persona
    told: Told = Told.profile
    role: Role = ""
    "Name in the recipe's `models`; empty for rules, and for a panel."
    judge: str = ""
    "The model, or the rule's name."

    def judgment(self, comparison: Comparison, method: Method, outcome: Outcome, **more: Any) -> Judgment:
        return Judgment(
            id=digest([identity_of(comparison, method), self.persona.id, self.told, self.role]),
            turn=comparison.a.turn,
            persona_id=self.persona.id,
            told=self.told,
            a=comparison.a.id,
            b=comparison.b.id,
            dimension=comparison.dimension,
            method=method,
            judge=self.judge,
            role=self.role,
            outcome=outcome,
            **more,
        )


def by_construction(comparison: Comparison, persona: Persona) -> Judgment | None:
    """An answer that follows the person's own wishes beats any other; `None` where no side does, or both."""
    a, b = comparison.a.condition, comparison.b.condition
    if (a in OWN) == (b in OWN):
        return None
    better, worse, outcome = (a, b, Outcome.a) if a in OWN else (b, a, Outcome.b)
    return Seat(persona, judge=f"{better}>{worse}").judgment(comparison, "construction", outcome)


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
    return Seat(persona, judge=axis.measure).judgment(comparison, "measure", outcome, value_a=value_a, value_b=value_b)


def by_scorers(
    comparison: Comparison, scores: dict[str, dict[str, float]], space: Space, persona: Persona, gap: float
) -> Judgment:
    """What the scorers say together, weighted by the person's profile, in standard deviations; a tie within the gap."""
    a, b = (space.value(persona.profile, scores[one.id]) for one in (comparison.a, comparison.b))
    outcome = Outcome.tie if a == b or abs(a - b) < gap else Outcome.a if a > b else Outcome.b
    names = dict.fromkeys(axis.scorer or axis.measure or "" for axis in space.dimensions.values())
    return Seat(persona, judge=", ".join(names)).judgment(comparison, "scorers", outcome, value_a=a, value_b=b)


def weighted(comparison: Comparison, seat: Seat, parts: Sequence[Judgment], weights: Sequence[float]) -> Judgment:
    """A judge's verdicts on each dimension as one: their soft labels, weighted by the profile. A dimension that counts
    and cannot be read makes the whole unreadable."""
    counting = [(one, share) for one, share in zip(parts, weights, strict=True) if share > 0]
    if any(one.p_a is None for one, _ in counting):
        return seat.judgment(comparison, "weighted", Outcome.unreadable)
    p_a = sum(share * (one.p_a or 0.0) for one, share in counting) / sum(share for _, share in counting)
    outcome = Outcome.tie if abs(p_a - 0.5) < TIE_BAND else Outcome.a if p_a > 0.5 else Outcome.b
    return seat.judgment(
        comparison, "weighted", outcome, p_a=p_a, certainty=_mean(one.certainty for one, _ in counting)
    )


def of_panel(comparison: Comparison, seat: Seat, parts: Sequence[Judgment]) -> Judgment:
    """Several judges as one: the outcome of more than half of them, and where there is none, `inconsistent`; the soft
    label is the mean of theirs."""
    outcome, times = Counter(one.outcome for one in parts).most_common(1)[0]
    found = outcome if 2 * times > len(parts) else Outcome.inconsistent
    p_a = _mean(SOFT.get(one.outcome) if one.p_a is None else one.p_a for one in parts)
    certainty = _mean(one.certainty for one in parts)
    return seat.judgment(
        comparison, "panel", found, p_a=None if found == Outcome.unreadable else p_a, certainty=certainty
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
    return MEANT[words[0]], p_a


def by_model(comparison: Comparison, seat: Seat, said: dict[str, list[Verdict]], question: str) -> Judgment:
    """What a model's verdicts come to, by the order in which the answers stood (`ab`, `ba`), over all repeats."""
    outcome, p_a = combine(said)
    everything = [one for verdicts in said.values() for one in verdicts]
    readable = [one for one in everything if one.choice != Choice.unreadable]
    return seat.judgment(
        comparison,
        "model",
        outcome,
        question=question,
        p_a=p_a,
        certainty=_mean(one.certainty for one in readable),
        stability=_stability(said),
        repaired=sum(one.repaired for one in readable),
        **{f"verdict_{order}": _verdict(verdicts) for order, verdicts in said.items()},
        **{f"p_{order}": _graded(verdicts) for order, verdicts in said.items()},
        **{f"reasons_{order}": verdicts[0].reasons for order, verdicts in said.items()},
    )


def by_rating(comparison: Comparison, seat: Seat, said: dict[str, list[Verdict]], question: str) -> Judgment:
    """What a model's ratings of both answers come to; they have no order."""
    verdicts = [one for several in said.values() for one in several]
    readable = [one for one in verdicts if one.choice != Choice.unreadable]
    a, b = (_mean(getattr(one, name) for one in readable) for name in ("value_first", "value_second"))
    words = {one.choice for one in readable}
    outcome = Outcome.unreadable if not words else Outcome.inconsistent if len(words) > 1 else MEANT[words.pop()]
    repaired = sum(one.repaired for one in readable)
    more = {"question": question, "repaired": repaired, "stability": _stability(said)}
    return seat.judgment(comparison, "rating", outcome, value_a=a, value_b=b, **more)


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


def identity_of(comparison: Comparison, method: str) -> str:
    return digest(["judgment", comparison.a.id, comparison.b.id, comparison.dimension, method])
