"""Judging: which of two answers a person would prefer.

    judged = await Bench(scenario, script, prefix, calls).judge(comparisons)

By construction: the answer steered by the person's own profile beats one that was not. By measure: a number of the
text, where the space has one for the dimension. By scorers: numbers of the text, weighted by the profile. By a model,
in the form that its generator has: it compares two answers, several pairs at once, ranks all of a turn, or rates each.

A model that compares is asked in both orders, unless the recipe says otherwise: p = (p_ab + 1 - p_ba) / 2, and a judge
that follows the order and not the answers is seen as such. It is asked for several people, and for some comparisons in
the dark, so that what the profile decides can be told from what anybody would prefer. A verdict that cannot be read is
asked for once more, with what was wrong with it; then it is `unreadable`: never a tie, never a vote.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from simforge.config import Judge
from simforge.generators import Generator
from simforge.identity import digest, rng
from simforge.measures import MEASURES
from simforge.preferences import Space
from simforge.roles import Calls, at_once
from simforge.script import Script
from simforge.types import (
    OWN,
    Candidate,
    ChatReply,
    Choice,
    Comparison,
    Finish,
    Judgment,
    Message,
    Method,
    Outcome,
    Persona,
    Profile,
    Role,
    Scenario,
    Told,
    Verdict,
)

TIE_BAND = 0.05
"A soft label this close to 0.5 is a tie."
ANYBODY = "good"
"What somebody likes of whom nothing is known, as it completes 'likes answers that are ...'."
DARK = (Told.nobody, Told.stranger, Told.trait)
"What a judge is told where it is tested."
VOTES = {Choice.first: 1.0, Choice.second: 0.0, Choice.tie: 0.5}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unread:
    """A reply that cannot be read, with what is wrong with it."""

    mistake: str


@dataclass(frozen=True, slots=True)
class Rating:
    """What a person makes of one answer."""

    points: float
    "On the generator's scale; of several attributes their mean, weighted by the profile where it speaks of them."
    attributes: dict[str, float]
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """From whose side answers are judged, and what the judge is told of that person."""

    persona: Persona
    told: Told
    text: str
    profile: Profile | None

    @classmethod
    def of(cls, persona: Persona, told: Told, scenario: Scenario) -> View:
        if told == Told.nobody:
            return cls(persona, told, "Somebody of whom nothing is known.", None)
        if told == Told.trait:
            return cls(persona, told, f"Somebody of whom only this is known: {scenario.least}.", None)
        shown = scenario.stranger if told == Told.stranger and scenario.stranger else persona
        return cls(persona, told, shown.text, shown.profile)

    def wants(self, space: Space, dimension: str | None) -> str:
        return " and ".join(space.wishes(self.profile, dimension)) if self.profile else ANYBODY


@dataclass(slots=True)
class Bench:
    """Where the answers to one prefix are judged."""

    scenario: Scenario
    script: Script
    prefix: tuple[Message, ...]
    calls: Calls
    ratings: dict[tuple[Role, str, Told, str], Rating | None] = field(default_factory=dict)
    "What was rated already, by judge, person, what it was told, and candidate."

    async def judge(self, comparisons: Sequence[Comparison]) -> list[dict[str, list[Judgment]]]:
        """The judgments of a model, for each comparison by person. The last with the whole profile is the label.

        The person of the scenario stands first. Comparisons outside the recipe's share have none.
        """
        settings, found = self.script.recipe.judge, [dict[str, list[Judgment]]() for _ in comparisons]
        if settings is None or self.script.judge is None:
            return found
        seed, owner = self.script.seed, self.scenario.persona
        judged = [n for n, one in enumerate(comparisons) if is_judged(one, settings, seed)]
        dark = [n for n in judged if _drawn(seed, "control", comparisons[n]) < settings.controls]
        views = [(View.of(owner, told, self.scenario), dark) for told in self._dark() if dark]
        views += [(View.of(one, Told.profile, self.scenario), judged) for one in (owner, *self.scenario.audience)]
        lists = await at_once(self._seen([comparisons[n] for n in numbers], view) for view, numbers in views if numbers)
        for (view, numbers), several in zip(((v, n) for v, n in views if n), lists, strict=True):
            for number, judgments in zip(numbers, several, strict=True):
                found[number].setdefault(view.persona.id, []).extend(judgments)
        return found

    def _dark(self) -> list[Told]:
        assert self.script.judge is not None
        blind = not any("persona" in section.template for section in self.script.judge.sections)
        missing = {Told.stranger: self.scenario.stranger is None, Told.trait: blind or not self.scenario.least}
        return [told for told in DARK if not missing.get(told)]

    async def _seen(self, comparisons: Sequence[Comparison], view: View) -> list[list[Judgment]]:
        """The judgments of each comparison from one side; the last of each is what they come to."""
        assert self.script.recipe.judge is not None
        panel = self.script.recipe.judge.panel
        by_judge = await at_once(self._by_one(comparisons, view, role) for role in panel)
        found = []
        for comparison, members in zip(comparisons, zip(*by_judge, strict=True), strict=True):
            judgments = [one for several in members for one in several]
            if len(panel) > 1:
                judgments.append(together(comparison, view, "panel", [several[-1] for several in members]))
            found.append(judgments)
        return found

    async def _by_one(self, comparisons: Sequence[Comparison], view: View, role: Role) -> list[list[Judgment]]:
        """What one judge says of each comparison: overall, or on each dimension and, weighted, overall."""
        space, settings = self.script.space, self.script.recipe.judge
        assert settings is not None
        if settings.by == "overall" or view.profile is None:
            return [[one] for one in await self._asked(comparisons, view, role)]
        weights = space.weights(view.profile)
        split = [
            [replace(one, dimension=name) for name in weights] if one.dimension is None else [one]
            for one in comparisons
        ]
        judged = iter(await self._asked([one for several in split for one in several], view, role))
        found = []
        for comparison, several in zip(comparisons, split, strict=True):
            own = [next(judged) for _ in several]
            if comparison.dimension is None:
                own.append(together(comparison, view, "weighted", own, list(weights.values())))
            found.append(own)
        return found

    async def _asked(self, comparisons: Sequence[Comparison], view: View, role: Role) -> list[Judgment]:
        """One judge's judgments, over all orders and repeats."""
        settings, generator = self.script.recipe.judge, self.script.judge
        assert settings is not None and generator is not None
        rates = generator.front.form == "rating"
        passes = [
            (orders, f"/repeat {repeat}" if repeat else "")
            for orders in self._orders(comparisons, settings, rates)
            for repeat in range(settings.repeats)
        ]
        lists: list[list[Verdict]] = await at_once(
            FORMS[generator.front.form](
                self,
                [one if order == "ab" else one.swap() for one, order in zip(comparisons, orders, strict=True)],
                view,
                role,
                attempt,
            )
            for orders, attempt in passes
        )
        said: list[dict[str, list[Verdict]]] = [{} for _ in comparisons]
        for (orders, _), verdicts in zip(passes, lists, strict=True):
            for own, order, verdict in zip(said, orders, verdicts, strict=True):
                own.setdefault(order, []).append(verdict)
        return [
            (_rated_judgment if rates else _model_judgment)(one, view, role, self.calls.model(role), verdicts)
            for one, verdicts in zip(comparisons, said, strict=True)
        ]

    def _orders(self, comparisons: Sequence[Comparison], settings: Judge, rates: bool) -> list[list[str]]:
        """The order in which each comparison is asked, once or twice; answers that are rated singly have none."""
        count = len(comparisons)
        if rates or settings.orders == "both":
            return [["ab"] * count] if rates else [["ab"] * count, ["ba"] * count]
        # A ranking has one order for all of its answers: the first comparison's draw is everybody's.
        lots = [comparisons[0]] * count if self._ranks else comparisons
        return [[rng(self.script.seed, "order", _id(one, "model")).choice(["ab", "ba"]) for one in lots]]

    @property
    def _ranks(self) -> bool:
        return self.script.judge is not None and self.script.judge.front.form == "ranking"

    async def rate(
        self, candidates: Sequence[Candidate], view: View, role: Role, attempt: str = ""
    ) -> list[Rating | None]:
        """A rating of each answer; `None` where it cannot be read."""

        async def one(candidate: Candidate) -> None:
            key = (role, view.persona.id, view.told, candidate.id + attempt)
            if key not in self.ratings:
                self.ratings[key] = await self._rating(candidate, view, role, attempt)

        await at_once(one(candidate) for candidate in candidates)
        return [self.ratings[role, view.persona.id, view.told, candidate.id + attempt] for candidate in candidates]

    async def _rating(self, candidate: Candidate, view: View, role: Role, attempt: str) -> Rating | None:
        generator, space = self.script.judge, self.script.space
        assert generator is not None
        names, (low, high) = generator.front.attributes or ["rating"], generator.front.scale
        schema = _object({name: {"type": "integer", "minimum": low, "maximum": high} for name in names})
        own = {"answer": candidate.text, "wants": view.wants(space, None), "attributes": names}

        def read(reply: ChatReply) -> dict[str, float] | Unread:
            return ratings_in(reply.text, names, low, high)

        said, repaired = await self.ask(view, role, own, read, attempt, schema)
        if isinstance(said, Unread):
            return None
        weights = space.weights(view.profile) if view.profile else {}
        fits = generator.front.attributes and {*weights} <= {*said} and sum(weights.values()) > 0
        shares = weights if fits else dict.fromkeys(said, 1.0)
        points = sum(share * said[name] for name, share in shares.items()) / sum(shares.values())
        return Rating(points, said, repaired)

    async def scores(self, candidates: Sequence[Candidate]) -> dict[str, dict[str, float]]:
        """What the space's scorers give each answer, by candidate and dimension."""
        axes = self.script.space.dimensions

        async def one(candidate: Candidate) -> dict[str, float]:
            messages = (*self.prefix, Message("assistant", candidate.text))
            asked = {name: axis.scorer for name, axis in axes.items() if axis.scorer is not None}
            numbers = dict(
                zip(asked, await at_once(self.calls.score(who, messages) for who in asked.values()), strict=True)
            )
            return {
                name: numbers[name] if axis.scorer is not None else MEASURES[axis.measure or ""](candidate.text)
                for name, axis in axes.items()
            }

        found = await at_once(one(candidate) for candidate in candidates)
        return {candidate.id: scores for candidate, scores in zip(candidates, found, strict=True)}

    async def ask(
        self,
        view: View,
        role: Role,
        variables: dict[str, Any],
        read: Callable[[ChatReply], T | Unread],
        attempt: str = "",
        schema: dict[str, Any] | None = None,
    ) -> tuple[T | Unread, bool]:
        """One call that can be read, or else a second that says what was wrong; and whether there was a second."""
        generator, text = self.script.judge, None if schema is None else json.dumps(schema)
        assert generator is not None
        known = {"prefix": [message.as_dict() for message in self.prefix], "persona": view.text, **variables}
        reply = await self.calls.ask(role, generator, known, self.prefix, attempt=attempt, schema=text)
        said = read(reply)
        if not isinstance(said, Unread):
            return said, False
        known["draft"] = reply.text
        again = await self.calls.ask(
            role, generator, known, self.prefix, attempt=f"{attempt}/again", schema=text, hint=said.mistake
        )
        return read(again), True


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


def is_judged(comparison: Comparison, settings: Judge, seed: int) -> bool:
    """Whether this comparison is in the judged share."""
    same = comparison.a.text.strip() == comparison.b.text.strip()
    return not same and _drawn(seed, "judged", comparison) < settings.share


def together(
    comparison: Comparison,
    view: View,
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
        return _judgment(comparison, view.persona, method, judge, Outcome.unreadable, told=view.told)
    p_a = sum(share * p for p, _, share in heard) / sum(share for _, _, share in heard)
    outcome = Outcome.tie if abs(p_a - 0.5) < TIE_BAND else Outcome.a if p_a > 0.5 else Outcome.b
    return _judgment(
        comparison,
        view.persona,
        method,
        judge,
        outcome,
        told=view.told,
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


def ratings_in(text: str, names: Sequence[str], low: int, high: int) -> dict[str, float] | Unread:
    """Ratings in a reply: of its JSON, or, of a single one, its only number; only whole numbers of the scale."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):  # no JSON: then a single number
        numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
        told = int(numbers[0]) if len(names) == len(numbers) == 1 and numbers[0].isdigit() else None
    found: dict[str, Any] = told if isinstance(told, dict) else {names[0]: told} if len(names) == 1 else {}
    wrong = [name for name in names if not _is_number(found.get(name), low, high)]
    if wrong:
        return Unread(f"no whole number of {low} to {high} for {', '.join(wrong)}")
    return {name: float(found[name]) for name in names}


ASKED = ("performance", "choice")
"What a survey asks of each attribute."


async def feedback(
    prefix: tuple[Message, ...], persona: Persona, space: Space, generator: Generator, calls: Calls
) -> dict[str, tuple[int, int]] | None:
    """A survey about an answer, filled in from the person's side: by attribute how well it did, and how much that had
    to do with the choice, 1 to 100. `None` where it cannot be read."""
    names = generator.front.attributes
    number = {"type": "integer", "minimum": 1, "maximum": 100}
    schema = _object(dict.fromkeys(names, _object(dict.fromkeys(ASKED, number))))
    wants = " and ".join(space.wishes(persona.profile))
    variables = {"persona": persona.text, "wants": wants, "attributes": names}
    reply = await calls.ask("judge", generator, variables, prefix, schema=json.dumps(schema))
    try:
        filled = json.loads(reply.text)
        found = {name: (filled[name]["performance"], filled[name]["choice"]) for name in names}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if all(_is_number(points, 1, 100) for pair in found.values() for points in pair) else None


async def _pairs(
    bench: Bench, comparisons: Sequence[Comparison], view: View, role: Role, attempt: str
) -> list[Verdict]:
    """Two answers a call."""
    generator = bench.script.judge
    assert generator is not None
    front, plain = generator.front, generator.front.says == ["verdict"]
    schema = None if plain else _object({one: _SAID[one](front.choices) for one in front.says})

    async def one(comparison: Comparison) -> Verdict:
        own = {
            "wants": view.wants(bench.script.space, comparison.dimension),
            "dimension": comparison.dimension,
            "first": comparison.a.text,
            "second": comparison.b.text,
        }

        def read(reply: ChatReply) -> Verdict | Unread:
            return _worded(reply, front.choices) if plain else _reasoned(reply, front.choices, front.says)

        said, repaired = await bench.ask(view, role, own, read, attempt, schema)
        return _or_unreadable(said, repaired)

    return await at_once(one(comparison) for comparison in comparisons)


async def _batches(
    bench: Bench, comparisons: Sequence[Comparison], view: View, role: Role, attempt: str
) -> list[Verdict]:
    """Several pairs of answers a call, as Personalized Soups asked its judge (there of several prompts)."""
    generator = bench.script.judge
    assert generator is not None
    words, most = generator.front.choices, generator.front.at_once
    lots = [comparisons[start : start + most] for start in range(0, len(comparisons), most)]

    async def one(lot: Sequence[Comparison]) -> list[Verdict]:
        items = [
            {
                "number": number,
                "wants": view.wants(bench.script.space, each.dimension),
                "first": each.a.text,
                "second": each.b.text,
            }
            for number, each in enumerate(lot, start=1)
        ]
        verdicts = {"type": "array", "items": {"enum": words}, "minItems": len(lot), "maxItems": len(lot)}

        def read(reply: ChatReply) -> list[Verdict] | Unread:
            said = _listed(reply, "verdicts")
            if isinstance(said, Unread) or len(said) == len(lot):
                return said if isinstance(said, Unread) else [_choice(word, words) for word in said]
            return Unread(f"{len(said)} verdicts for {len(lot)} pairs")

        said, repaired = await bench.ask(view, role, {"items": items}, read, attempt, _object({"verdicts": verdicts}))
        several = [said] * len(lot) if isinstance(said, Unread) else said
        return [_or_unreadable(each, repaired) for each in several]

    return [verdict for several in await at_once(one(lot) for lot in lots) for verdict in several]


async def _rankings(
    bench: Bench, comparisons: Sequence[Comparison], view: View, role: Role, attempt: str
) -> list[Verdict]:
    """All answers of a dimension in one call, best first; of two, the one that stands before the other is preferred."""
    by_dimension: dict[str | None, list[Comparison]] = {}
    for comparison in comparisons:
        by_dimension.setdefault(comparison.dimension, []).append(comparison)

    async def one(dimension: str | None, lot: Sequence[Comparison]) -> dict[str, int] | None:
        answers = {each.id: each.text for comparison in lot for each in (comparison.a, comparison.b)}
        letters = dict(zip(string.ascii_uppercase, answers, strict=False))
        own = {
            "wants": view.wants(bench.script.space, dimension),
            "answers": {letter: answers[key] for letter, key in letters.items()},
        }
        items = {"type": "array", "items": {"enum": [*letters]}, "minItems": len(letters), "maxItems": len(letters)}

        def read(reply: ChatReply) -> dict[str, int] | Unread:
            said = _listed(reply, "ranking")
            if isinstance(said, Unread) or sorted(map(str, said)) != sorted(letters):
                return said if isinstance(said, Unread) else Unread(f"not each of {', '.join(letters)} once")
            return {letters[letter]: place for place, letter in enumerate(said)}

        places, again = await bench.ask(view, role, own, read, attempt, _object({"ranking": items}))
        repaired.update(dict.fromkeys((id(each) for each in lot), again))
        return None if isinstance(places, Unread) else places

    repaired: dict[int, bool] = {}
    found = await at_once(one(dimension, lot) for dimension, lot in by_dimension.items())
    ranks = dict(zip(by_dimension, found, strict=True))
    verdicts = []
    for comparison in comparisons:
        places = ranks[comparison.dimension]
        first = places is not None and places[comparison.a.id] < places[comparison.b.id]
        choice = Choice.unreadable if places is None else Choice.first if first else Choice.second
        verdicts.append(Verdict(choice, repaired=repaired[id(comparison)]))
    return verdicts


async def _ratings(
    bench: Bench, comparisons: Sequence[Comparison], view: View, role: Role, attempt: str
) -> list[Verdict]:
    """One answer a call; the higher rating is preferred."""
    answers = {one.id: one for comparison in comparisons for one in (comparison.a, comparison.b)}
    rated = dict(zip(answers, await bench.rate(list(answers.values()), view, role, attempt), strict=True))
    gap, verdicts = bench.script.recipe.pairing.gap, []
    for comparison in comparisons:
        a, b = rated[comparison.a.id], rated[comparison.b.id]
        if a is None or b is None:
            verdicts.append(Verdict(Choice.unreadable))
            continue
        lead = a.points - b.points
        choice = Choice.tie if not lead or abs(lead) < gap else Choice.first if lead > 0 else Choice.second
        verdicts.append(Verdict(choice, repaired=a.repaired or b.repaired, value_first=a.points, value_second=b.points))
    return verdicts


Form = Callable[[Bench, Sequence[Comparison], View, Role, str], Coroutine[Any, Any, list[Verdict]]]
FORMS: dict[str, Form] = {
    "pairwise": _pairs,
    "batch": _batches,
    "ranking": _rankings,
    "rating": _ratings,
}
"How a model is asked about comparisons in one order, by the form of its generator."
_SAID: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "reasons": lambda words: {"type": "string", "minLength": 1, "maxLength": 600},
    "verdict": lambda words: {"enum": words},
    "certainty": lambda words: {"type": "integer", "minimum": 0, "maximum": 100},
}


def _worded(reply: ChatReply, words: list[str]) -> Verdict | Unread:
    """A verdict in a word, with the words' probabilities where the model gives them."""
    word = _word(reply.text, words)
    if not word:
        return Unread(f"it is not one of: {', '.join(words)}")
    p_first = None
    if reply.choice_probabilities:
        shares = [reply.choice_probabilities[one] for one in words]
        p_first = shares[0] + (shares[2] / 2 if len(shares) > 2 else 0.0)
    return replace(_choice(word, words), p_first=p_first)


def _reasoned(reply: ChatReply, words: list[str], says: Sequence[str]) -> Verdict | Unread:
    """A verdict in JSON, with reasons or certainty."""
    said = _json(reply)
    if isinstance(said, Unread):
        return said
    certainty: Any = said.get("certainty")
    if said.get("verdict") not in words:
        return Unread(f"`verdict` is not one of: {', '.join(words)}")
    if "certainty" in says and not _is_number(certainty, 0, 100):
        return Unread("`certainty` is not a whole number of 0 to 100")
    return replace(
        _choice(said["verdict"], words),
        certainty=certainty / 100 if "certainty" in says else None,
        reasons=str(said.get("reasons") or "") if "reasons" in says else "",
    )


def _json(reply: ChatReply) -> dict[str, Any] | Unread:
    try:
        said = json.loads(reply.text)
    except (ValueError, RecursionError) as problem:
        cut = "it was cut off" if reply.finish == Finish.length else str(problem)
        return Unread(f"it is not JSON: {cut}")
    return said if isinstance(said, dict) else Unread("it is not a JSON object")


def _listed(reply: ChatReply, name: str) -> list[Any] | Unread:
    said = _json(reply)
    if isinstance(said, Unread):
        return said
    found = said.get(name)
    return found if isinstance(found, list) else Unread(f"there is no list `{name}`")


def _choice(word: Any, words: list[str]) -> Verdict:
    meaning = dict(zip(words, (Choice.first, Choice.second, Choice.tie), strict=False))
    return Verdict(meaning.get(word, Choice.unreadable) if isinstance(word, str) else Choice.unreadable)


def _or_unreadable(said: Verdict | Unread, repaired: bool) -> Verdict:
    return (
        Verdict(Choice.unreadable, repaired=repaired) if isinstance(said, Unread) else replace(said, repaired=repaired)
    )


def _word(text: str, words: list[str]) -> str:
    """The verdict word in a reply: the whole reply, or its first word where it names no other."""
    cleaned = re.sub(r"[^\w ]", " ", text.strip().lower()).split()
    joined = " ".join(cleaned)
    named = [word for word in words if joined == word.lower() or word.lower() in cleaned]
    return named[0] if len(named) == 1 and joined.startswith(named[0].lower()) else ""


def _model_judgment(
    comparison: Comparison, view: View, role: Role, judge: str, said: dict[str, list[Verdict]]
) -> Judgment:
    outcome, p_a = combine(said)
    everything = [one for verdicts in said.values() for one in verdicts]
    readable = [one for one in everything if one.choice != Choice.unreadable]
    return _judgment(
        comparison,
        view.persona,
        "model",
        judge,
        outcome,
        role,
        told=view.told,
        p_a=p_a,
        certainty=_mean(one.certainty for one in readable),
        stability=_stability(said),
        repaired=sum(one.repaired and one.choice != Choice.unreadable for one in everything),
        **{f"verdict_{order}": _verdict(verdicts) for order, verdicts in said.items()},
        **{f"p_{order}": _graded(verdicts) for order, verdicts in said.items()},
        **{f"reasons_{order}": verdicts[0].reasons for order, verdicts in said.items()},
    )


def _rated_judgment(
    comparison: Comparison, view: View, role: Role, judge: str, said: dict[str, list[Verdict]]
) -> Judgment:
    readable = [one for one in said["ab"] if one.choice != Choice.unreadable]
    a, b = (_mean(getattr(one, name) for one in readable) for name in ("value_first", "value_second"))
    words = {one.choice for one in readable}
    one_word = {Choice.first: Outcome.a, Choice.second: Outcome.b, Choice.tie: Outcome.tie}
    outcome = Outcome.unreadable if not words else Outcome.inconsistent if len(words) > 1 else one_word[words.pop()]
    repaired = sum(one.repaired for one in readable)
    more = {"told": view.told, "value_a": a, "value_b": b, "repaired": repaired, "stability": _stability(said)}
    return _judgment(comparison, view.persona, "rating", judge, outcome, role, **more)


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


def _is_number(points: Any, low: int, high: int) -> bool:
    return isinstance(points, int) and not isinstance(points, bool) and low <= points <= high


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _drawn(seed: int, purpose: str, comparison: Comparison) -> float:
    return rng(seed, purpose, _id(comparison, "model")).random()


def _judgment(
    comparison: Comparison, persona: Persona, method: Method, judge: str, outcome: Outcome, role: Role = "", **more: Any
) -> Judgment:
    told = more.setdefault("told", Told.profile)
    return Judgment(
        id=digest([_id(comparison, method), persona.id, told, role]),
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


def _id(comparison: Comparison, method: str) -> str:
    return digest(["judgment", comparison.a.id, comparison.b.id, comparison.dimension, method])
