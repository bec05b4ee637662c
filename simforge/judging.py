"""Judging: which of two answers a person would prefer.

Three ways, one record each. By construction: the answer steered by the person's own profile beats one that was not.
By measure: a number of the text, where the space has one for the dimension. By a model, asked pairwise and, unless
the recipe says otherwise, in both orders: p = (p_ab + 1 - p_ba) / 2, and a judge that follows the order and not the
answers is seen as such. Or each answer is rated by itself, 1 to 100, and ratings are compared. A verdict that cannot be
read is `unreadable`: never a tie, never a vote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from simforge.config import Judge
from simforge.generators import Generator
from simforge.identity import digest, rng
from simforge.measures import MEASURES
from simforge.preferences import Space
from simforge.roles import Calls, at_once
from simforge.types import OWN, Candidate, Choice, Comparison, Judgment, Message, Method, Outcome, Persona, Verdict

TIE_BAND = 0.05
"A soft label this close to 0.5 is a tie."


def by_construction(comparison: Comparison) -> Judgment | None:
    """An answer that follows the person's own wishes beats any other; `None` where no side does, or both."""
    a, b = comparison.a.condition, comparison.b.condition
    if (a in OWN) == (b in OWN):
        return None
    better, worse, outcome = (a, b, Outcome.a) if a in OWN else (b, a, Outcome.b)
    return _judgment(comparison, "construction", f"{better}>{worse}", outcome)


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
    return _judgment(comparison, "measure", axis.measure, outcome, value_a=value_a, value_b=value_b)


def is_judged(comparison: Comparison, settings: Judge, seed: int) -> bool:
    """Whether this comparison is in the judged share."""
    return rng(seed, "judged", _id(comparison, "pairwise")).random() < settings.share


async def pairwise(
    comparison: Comparison, persona: Persona, space: Space, settings: Judge, generator: Generator, calls: Calls
) -> Judgment:
    """A model's judgment, in the orders that the recipe asks for."""
    wants = " and ".join(space.wishes(persona.profile, comparison.dimension))
    key = _id(comparison, "pairwise")
    orders = {"ab": comparison, "ba": comparison.swap()}
    if settings.orders == "one":
        drawn = rng(calls.roles.seed, "order", key).choice([*orders])
        orders = {drawn: orders[drawn]}
    asked = (ask_judge(one, wants, persona, generator, calls) for one in orders.values())
    verdicts = dict(zip(orders, await at_once(asked), strict=True))
    ab, ba = verdicts.get("ab"), verdicts.get("ba")
    outcome, p_a = combine(ab, ba)
    said = {f"verdict_{order}": verdict.choice for order, verdict in verdicts.items()}
    return _judgment(comparison, "pairwise", calls.model("judge"), outcome, p_a=p_a, **said)


ASKED = ("performance", "choice")
"What a survey asks of each attribute."
RATING = '{"type":"object","properties":{"rating":{"type":"integer","minimum":1,"maximum":100}},"required":["rating"]}'
"JSON Schema of a rating, for models that keep to one."


async def rating(
    candidate: Candidate,
    prefix: tuple[Message, ...],
    persona: Persona,
    space: Space,
    generator: Generator,
    calls: Calls,
) -> float | None:
    """The person's rating of an answer, 1 to 100; `None` where the judge's cannot be read."""
    variables = {
        "prefix": [message.as_dict() for message in prefix],
        "persona": persona.text,
        "wants": " and ".join(space.wishes(persona.profile)),
        "answer": candidate.text,
    }
    reply = await calls.ask("judge", generator, variables, prefix, schema=RATING)
    return rating_in(reply.text)


def rating_in(text: str) -> float | None:
    """The rating in a reply: of its JSON, or its only number; `None` for anything but a whole number of 1 to 100."""
    try:
        told = json.loads(text)
        points = told.get("rating") if isinstance(told, dict) else told
    except (ValueError, RecursionError):  # no JSON: then a single number
        numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
        points = int(numbers[0]) if len(numbers) == 1 and numbers[0].isdigit() else None
    return float(points) if points is not None and _is_rating(points) else None


def _is_rating(points: Any) -> bool:
    return isinstance(points, int) and not isinstance(points, bool) and 1 <= points <= 100


def by_rating(comparison: Comparison, ratings: Mapping[str, float], gap: float, judge: str) -> Judgment:
    """What the ratings of both answers say: the higher, or a tie where they are within the gap."""
    a, b = ratings.get(comparison.a.id), ratings.get(comparison.b.id)
    if a is None or b is None:
        outcome = Outcome.unreadable
    else:
        outcome = Outcome.tie if a == b or abs(a - b) < gap else Outcome.a if a > b else Outcome.b
    return _judgment(comparison, "rating", judge, outcome, value_a=a, value_b=b)


async def feedback(
    prefix: tuple[Message, ...], persona: Persona, space: Space, generator: Generator, calls: Calls
) -> dict[str, tuple[int, int]] | None:
    """A survey about an answer, filled in from the person's side: by attribute how well it did, and how much that had
    to do with the choice, 1 to 100. `None` where it cannot be read."""
    names = generator.front.attributes
    number = {"type": "integer", "minimum": 1, "maximum": 100}
    both = {"type": "object", "properties": {"performance": number, "choice": number}, "required": list(ASKED)}
    schema = {"type": "object", "properties": dict.fromkeys(names, both), "required": names}
    wants = " and ".join(space.wishes(persona.profile))
    variables = {"persona": persona.text, "wants": wants, "attributes": names}
    reply = await calls.ask("judge", generator, variables, prefix, schema=json.dumps(schema))
    try:
        filled = json.loads(reply.text)
        found = {name: (filled[name]["performance"], filled[name]["choice"]) for name in names}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if all(_is_rating(points) for pair in found.values() for points in pair) else None


async def ask_judge(
    comparison: Comparison, wants: str, persona: Persona, generator: Generator, calls: Calls
) -> Verdict:
    """One judge call, in the order of the comparison."""
    variables = {
        "prefix": [message.as_dict() for message in comparison.prefix],
        "persona": persona.text,
        "wants": wants,
        "dimension": comparison.dimension,
        "first": comparison.a.text,
        "second": comparison.b.text,
    }
    reply = await calls.ask("judge", generator, variables, comparison.prefix)
    words = list(generator.front.choices)
    meaning = dict(zip(words, (Choice.first, Choice.second, Choice.tie), strict=False))
    choice = meaning.get(_word(reply.text, words), Choice.unreadable)
    p_first = None
    if reply.choice_probabilities:
        shares = [reply.choice_probabilities[word] for word in words]
        p_first = shares[0] + (shares[2] / 2 if len(shares) > 2 else 0.0)
    return Verdict(choice, p_first, reply.text)


def combine(ab: Verdict | None, ba: Verdict | None) -> tuple[Outcome, float | None]:
    """The outcome and the soft label for `a`, from the verdicts of the orders that were asked."""
    asked = [ab] if ab else []
    if ba:
        asked.append(ba.swap())
    if not asked or any(verdict.choice == Choice.unreadable for verdict in asked):
        return Outcome.unreadable, None
    said = {verdict.choice for verdict in asked}
    shares = [verdict.p_first for verdict in asked if verdict.p_first is not None]
    if len(shares) == len(asked):
        p_a = sum(shares) / len(shares)
        if abs(p_a - 0.5) < TIE_BAND:
            return Outcome.tie, p_a
    else:
        votes = {Choice.first: 1.0, Choice.second: 0.0, Choice.tie: 0.5}
        p_a = sum(votes[verdict.choice] for verdict in asked) / len(asked)
    if len(said) > 1:
        return Outcome.inconsistent, p_a
    return {Choice.first: Outcome.a, Choice.second: Outcome.b, Choice.tie: Outcome.tie}[said.pop()], p_a


def _word(text: str, words: list[str]) -> str:
    """The verdict word in a reply: the whole reply, or its first word where it names no other."""
    cleaned = re.sub(r"[^\w ]", " ", text.strip().lower()).split()
    joined = " ".join(cleaned)
    named = [word for word in words if joined == word.lower() or word.lower() in cleaned]
    return named[0] if len(named) == 1 and joined.startswith(named[0].lower()) else ""


def _judgment(comparison: Comparison, method: Method, judge: str, outcome: Outcome, **more: Any) -> Judgment:
    return Judgment(
        id=_id(comparison, method),
        turn=comparison.a.turn,
        a=comparison.a.id,
        b=comparison.b.id,
        dimension=comparison.dimension,
        method=method,
        judge=judge,
        outcome=outcome,
        **more,
    )


def _id(comparison: Comparison, method: str) -> str:
    return digest(["judgment", comparison.a.id, comparison.b.id, comparison.dimension, method])
