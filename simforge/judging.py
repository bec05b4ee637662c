"""Judging: models are asked which of two answers a person would prefer.

    judged = await Bench(scenario, script, prefix, calls).judge(comparisons)

How they are asked is the form of their generator: two answers, several pairs at once, all of a turn to be ranked, or
each to be rated. They are asked in both orders, unless the recipe says otherwise; for several people; and for some
comparisons in the dark, so that what the profile decides can be told from what anybody would prefer. A reply that
cannot be read is asked for once more, with what was wrong with it; then it is `unreadable`: never a tie or a vote.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from simforge.config import Judge
from simforge.generators import Generator
from simforge.identity import rng
from simforge.judgments import by_model, by_rating, drawn, identity_of, together
from simforge.measures import MEASURES
from simforge.preferences import Space
from simforge.roles import Calls, at_once
from simforge.script import Script
from simforge.types import (
    Candidate,
    ChatReply,
    Choice,
    Comparison,
    Judgment,
    Message,
    Persona,
    Profile,
    Role,
    Scenario,
    Told,
    Verdict,
)
from simforge.verdicts import (
    SAID,
    Unread,
    is_number,
    listed,
    object_of,
    or_unreadable,
    ratings_in,
    reasoned,
    verdict_of,
    worded,
)

ANYBODY = "good"
"What somebody likes of whom nothing is known, as it completes 'likes answers that are ...'."

DARK = (Told.nobody, Told.stranger, Told.trait)
"What a judge is told where it is tested."

T = TypeVar("T")


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
        dark = [n for n in judged if drawn(seed, "control", comparisons[n]) < settings.controls]
        views = [(View.of(one, Told.profile, self.scenario), judged) for one in (owner, *self.scenario.audience)]
        own, others = views[0][0], [View.of(owner, told, self.scenario) for told in self._dark()]
        views = [*((view, [n for n in dark if self._differ(view, own, comparisons[n])]) for view in others), *views]
        views = [(view, numbers) for view, numbers in views if numbers]
        lists = await at_once(self._seen([comparisons[n] for n in numbers], view) for view, numbers in views)
        for (view, numbers), several in zip(views, lists, strict=True):
            for number, judgments in zip(numbers, several, strict=True):
                found[number].setdefault(view.persona.id, []).extend(judgments)
        return found

    def _differ(self, one: View, other: View, comparison: Comparison) -> bool:
        """Whether two views want something else of a comparison: a stranger who wants the same is no test."""
        wants = (view.wants(self.script.space, comparison.dimension) for view in (one, other))
        return len({*wants}) > 1

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
                judgments.append(
                    together(comparison, view.persona, view.told, "panel", [several[-1] for several in members])
                )
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
                own.append(together(comparison, view.persona, view.told, "weighted", own, list(weights.values())))
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
            (by_rating if rates else by_model)(one, view.persona, view.told, role, self.calls.model(role), verdicts)
            for one, verdicts in zip(comparisons, said, strict=True)
        ]

    def _orders(self, comparisons: Sequence[Comparison], settings: Judge, rates: bool) -> list[list[str]]:
        """The order in which each comparison is asked, once or twice; answers that are rated singly have none."""
        count = len(comparisons)
        if rates or settings.orders == "both":
            return [["ab"] * count] if rates else [["ab"] * count, ["ba"] * count]
        # A ranking has one order for all of its answers: the first comparison's draw is everybody's.
        lots = [comparisons[0]] * count if self._ranks else comparisons
        return [[rng(self.script.seed, "order", identity_of(one, "model")).choice(["ab", "ba"]) for one in lots]]

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
        schema = object_of({name: {"type": "integer", "minimum": low, "maximum": high} for name in names})
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


def is_judged(comparison: Comparison, settings: Judge, seed: int) -> bool:
    """Whether this comparison is in the judged share."""
    same = comparison.a.text.strip() == comparison.b.text.strip()
    return not same and drawn(seed, "judged", comparison) < settings.share


ASKED = ("performance", "choice")
"What a survey asks of each attribute."


async def feedback(
    prefix: tuple[Message, ...], persona: Persona, space: Space, generator: Generator, calls: Calls
) -> dict[str, tuple[int, int]] | None:
    """A survey about an answer, filled in from the person's side: by attribute how well it did, and how much that had
    to do with the choice, 1 to 100. `None` where it cannot be read."""
    names = generator.front.attributes
    number = {"type": "integer", "minimum": 1, "maximum": 100}
    schema = object_of(dict.fromkeys(names, object_of(dict.fromkeys(ASKED, number))))
    wants = " and ".join(space.wishes(persona.profile))
    variables = {"persona": persona.text, "wants": wants, "attributes": names}
    reply = await calls.ask("judge", generator, variables, prefix, schema=json.dumps(schema))
    try:
        filled = json.loads(reply.text)
        found = {name: (filled[name]["performance"], filled[name]["choice"]) for name in names}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if all(is_number(points, 1, 100) for pair in found.values() for points in pair) else None


async def _pairs(
    bench: Bench, comparisons: Sequence[Comparison], view: View, role: Role, attempt: str
) -> list[Verdict]:
    """Two answers a call."""
    generator = bench.script.judge
    assert generator is not None
    front, plain = generator.front, generator.front.says == ["verdict"]
    schema = None if plain else object_of({one: SAID[one](front.choices) for one in front.says})

    async def one(comparison: Comparison) -> Verdict:
        own = {
            "wants": view.wants(bench.script.space, comparison.dimension),
            "dimension": comparison.dimension,
            "first": comparison.a.text,
            "second": comparison.b.text,
        }

        def read(reply: ChatReply) -> Verdict | Unread:
            return worded(reply, front.choices) if plain else reasoned(reply, front.choices, front.says)

        said, repaired = await bench.ask(view, role, own, read, attempt, schema)
        return or_unreadable(said, repaired)

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
            said = listed(reply, "verdicts")
            if isinstance(said, Unread) or len(said) == len(lot):
                return said if isinstance(said, Unread) else [verdict_of(word, words) for word in said]
            return Unread(f"{len(said)} verdicts for {len(lot)} pairs")

        said, repaired = await bench.ask(view, role, {"items": items}, read, attempt, object_of({"verdicts": verdicts}))
        several = [said] * len(lot) if isinstance(said, Unread) else said
        return [or_unreadable(each, repaired) for each in several]

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
            said = listed(reply, "ranking")
            if isinstance(said, Unread) or sorted(map(str, said)) != sorted(letters):
                return said if isinstance(said, Unread) else Unread(f"not each of {', '.join(letters)} once")
            return {letters[letter]: place for place, letter in enumerate(said)}

        places, again = await bench.ask(view, role, own, read, attempt, object_of({"ranking": items}))
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
