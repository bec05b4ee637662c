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
from simforge.identity import digest, rng
from simforge.judgments import Seat, by_model, by_rating, drawn, identity_of, of_panel, weighted
from simforge.measures import MEASURES
from simforge.preferences import Space
from simforge.reliability import DARK
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
    verdicts_in,
    worded,
)

ANYBODY = "good"
"What somebody likes of whom nothing is known, as it completes 'likes answers that are ...'."

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
        if told == Told.stranger:
            assert scenario.stranger is not None
            return cls(persona, told, scenario.stranger.text, scenario.stranger.profile)
        return cls(persona, told, persona.text, persona.profile)

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
        lots = self._lots(comparisons)
        judged = [n for n, one in enumerate(comparisons) if self._is_in("judged", settings.share, one, lots[n])]
        dark = [n for n in judged if self._is_in("control", settings.controls, comparisons[n], lots[n])]
        owner = self.scenario.persona
        views = [(View.of(one, Told.profile, self.scenario), judged) for one in (owner, *self.scenario.audience)]
        own, others = views[0][0], [View.of(owner, told, self.scenario) for told in self._dark()]
        views = [*((view, [n for n in dark if self._differ(view, own, comparisons[n])]) for view in others), *views]
        views = [(view, numbers) for view, numbers in views if numbers]
        lists = await at_once(self._seen([comparisons[n] for n in numbers], view) for view, numbers in views)
        for (view, numbers), several in zip(views, lists, strict=True):
            for number, judgments in zip(numbers, several, strict=True):
                found[number].setdefault(view.persona.id, []).extend(judgments)
        return found

    def _lots(self, comparisons: Sequence[Comparison]) -> list[Comparison]:
        """The comparison by whose lot each is drawn: its own, and where answers are ranked the first of its sheet."""
        if self.generator.front.form != "ranking":
            return list(comparisons)
        first: dict[str | None, Comparison] = {}
        return [first.setdefault(one.dimension, one) for one in comparisons]

    def _is_in(self, purpose: str, share: float, comparison: Comparison, lot: Comparison) -> bool:
        """Whether a comparison is in a share; one of two texts that are the same never is."""
        same = comparison.a.text.split() == comparison.b.text.split()
        return not same and drawn(self.script.seed, purpose, lot) < share

    def _dark(self) -> list[Told]:
        """What a judge can be told in the dark: without a stranger, or a trait that its generator shows, not that."""
        missing = {
            Told.stranger: self.scenario.stranger is None,
            Told.trait: not self.scenario.least or not self.generator.reads("persona"),
        }
        return [told for told in DARK if not missing.get(told)]

    def _differ(self, one: View, other: View, comparison: Comparison) -> bool:
        """Whether two views want something else of a comparison: a stranger who wants the same is no test."""
        return one.wants(self.script.space, comparison.dimension) != other.wants(
            self.script.space, comparison.dimension
        )

    @property
    def generator(self) -> Generator:
        assert self.script.judge is not None
        return self.script.judge

    async def _seen(self, comparisons: Sequence[Comparison], view: View) -> list[list[Judgment]]:
        """The judgments of each comparison from one side; the last of each is what they come to."""
        assert self.script.recipe.judge is not None
        panel = self.script.recipe.judge.panel
        by_judge = await at_once(self._by_one(comparisons, view, role) for role in panel)
        names = ", ".join(dict.fromkeys(self.calls.model(role) for role in panel))
        found = []
        for comparison, members in zip(comparisons, zip(*by_judge, strict=True), strict=True):
            judgments = [one for several in members for one in several]
            if len(panel) > 1:
                seat = Seat(view.persona, view.told, "", names)
                judgments.append(of_panel(comparison, seat, [several[-1] for several in members]))
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
                own.append(weighted(comparison, self._seat(view, role), own, list(weights.values())))
            found.append(own)
        return found

    def _seat(self, view: View, role: Role) -> Seat:
        return Seat(view.persona, view.told, role, self.calls.model(role))

    async def _asked(self, comparisons: Sequence[Comparison], view: View, role: Role) -> list[Judgment]:
        """One judge's judgments, over all orders and repeats."""
        settings, form = self.script.recipe.judge, self.generator.front.form
        assert settings is not None
        passes = [
            (orders, f"/repeat {repeat}" if repeat else "")
            for orders in self._orders(comparisons, settings)
            for repeat in range(settings.repeats)
        ]
        lists: list[list[Placed]] = await at_once(
            FORMS[form](self, comparisons, orders, view, role, attempt) for orders, attempt in passes
        )
        said: list[dict[str, list[Verdict]]] = [{} for _ in comparisons]
        for placed in lists:
            for own, (order, verdict) in zip(said, placed, strict=True):
                own.setdefault(order, []).append(verdict)
        come_to, seat = by_rating if form == "rating" else by_model, self._seat(view, role)
        return [
            come_to(one, seat, verdicts, self._question(one, view))
            for one, verdicts in zip(comparisons, said, strict=True)
        ]

    def _orders(self, comparisons: Sequence[Comparison], settings: Judge) -> list[list[str]]:
        """The order in which each comparison is asked, once or twice; answers that are rated singly have none."""
        count = len(comparisons)
        if self.generator.front.form == "rating":
            return [["ab"] * count]
        if settings.orders == "both":
            return [["ab"] * count, ["ba"] * count]
        lots = self._lots(comparisons)
        return [[rng(self.script.seed, "order", identity_of(one, "model")).choice(["ab", "ba"]) for one in lots]]

    def _question(self, comparison: Comparison, view: View) -> str:
        """Digest of what is asked of a comparison, whatever the order."""
        shown = view.text if self.generator.reads("persona") else ""
        told = [view.wants(self.script.space, comparison.dimension), shown]
        texts = sorted((comparison.a.text, comparison.b.text))
        return digest([[message.as_dict() for message in self.prefix], *texts, *told])

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
        generator, space = self.generator, self.script.space
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
        generator, text = self.generator, None if schema is None else json.dumps(schema)
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


Placed = tuple[str, Verdict]
"A verdict, and the order in which the two answers stood: `ab` or `ba`."


def _turned(comparisons: Sequence[Comparison], orders: Sequence[str]) -> list[Comparison]:
    return [one if order == "ab" else one.swap() for one, order in zip(comparisons, orders, strict=True)]


async def _pairs(
    bench: Bench, comparisons: Sequence[Comparison], orders: Sequence[str], view: View, role: Role, attempt: str
) -> list[Placed]:
    """Two answers a call."""
    front = bench.generator.front
    plain = front.says == ["verdict"]
    schema = None if plain else object_of({one: SAID[one](front.choices) for one in front.says})

    def read(reply: ChatReply) -> Verdict | Unread:
        return worded(reply, front.choices) if plain else reasoned(reply, front.choices, front.says)

    async def one(comparison: Comparison) -> Verdict:
        own = {
            "wants": view.wants(bench.script.space, comparison.dimension),
            "dimension": comparison.dimension,
            "first": comparison.a.text,
            "second": comparison.b.text,
        }
        return or_unreadable(*await bench.ask(view, role, own, read, attempt, schema))

    verdicts = await at_once(one(comparison) for comparison in _turned(comparisons, orders))
    return list(zip(orders, verdicts, strict=True))


async def _batches(
    bench: Bench, comparisons: Sequence[Comparison], orders: Sequence[str], view: View, role: Role, attempt: str
) -> list[Placed]:
    """Several pairs of answers a call, as Personalized Soups asked its judge (there of several prompts)."""
    words, most = bench.generator.front.choices, bench.generator.front.at_once
    turned = _turned(comparisons, orders)
    lots = [turned[start : start + most] for start in range(0, len(turned), most)]

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
        schema = object_of({"verdicts": verdicts})
        said, repaired = await bench.ask(
            view, role, {"items": items}, lambda reply: verdicts_in(reply, words, len(lot)), attempt, schema
        )
        several = [said] * len(lot) if isinstance(said, Unread) else said
        return [or_unreadable(each, repaired) for each in several]

    found = [verdict for several in await at_once(one(lot) for lot in lots) for verdict in several]
    return list(zip(orders, found, strict=True))


async def _rankings(
    bench: Bench, comparisons: Sequence[Comparison], orders: Sequence[str], view: View, role: Role, attempt: str
) -> list[Placed]:
    """All answers of a dimension on one sheet, and on another in reversed order; of two answers, the one that is ranked
    before the other is preferred. Which of them stood first, the sheet decides."""
    sheets: dict[str | None, list[str]] = {}
    texts: dict[str, str] = {}
    for comparison, order in zip(comparisons, orders, strict=True):
        sheet = sheets.setdefault(comparison.dimension, [])
        for one in (comparison.a, comparison.b):
            texts[one.id] = one.text
            if one.id not in sheet:
                sheet.insert(len(sheet) if order == "ab" else 0, one.id)

    async def ranked(dimension: str | None, sheet: list[str]) -> tuple[dict[str, int] | None, bool]:
        letters = dict(zip(LETTERS, sheet, strict=False))
        own = {
            "wants": view.wants(bench.script.space, dimension),
            "answers": {letter: texts[key] for letter, key in letters.items()},
        }
        items = {"type": "array", "items": {"enum": [*letters]}, "minItems": len(letters), "maxItems": len(letters)}

        def read(reply: ChatReply) -> dict[str, int] | Unread:
            said = listed(reply, "ranking")
            if isinstance(said, Unread) or sorted(map(str, said)) != sorted(letters):
                return said if isinstance(said, Unread) else Unread(f"not each of {', '.join(letters)} once")
            return {letters[letter]: place for place, letter in enumerate(said)}

        places, repaired = await bench.ask(view, role, own, read, attempt, object_of({"ranking": items}))
        return (None if isinstance(places, Unread) else places), repaired

    found = await at_once(ranked(dimension, sheet) for dimension, sheet in sheets.items())
    by_dimension = dict(zip(sheets, found, strict=True))
    placed = []
    for comparison in comparisons:
        sheet, (places, repaired) = sheets[comparison.dimension], by_dimension[comparison.dimension]
        order = "ab" if sheet.index(comparison.a.id) < sheet.index(comparison.b.id) else "ba"
        first, second = (comparison.a, comparison.b) if order == "ab" else (comparison.b, comparison.a)
        better = places is not None and places[first.id] < places[second.id]
        choice = Choice.unreadable if places is None else Choice.first if better else Choice.second
        placed.append((order, Verdict(choice, repaired=repaired)))
    return placed


async def _ratings(
    bench: Bench, comparisons: Sequence[Comparison], orders: Sequence[str], view: View, role: Role, attempt: str
) -> list[Placed]:
    """One answer a call; the higher rating is preferred."""
    answers = {one.id: one for comparison in comparisons for one in (comparison.a, comparison.b)}
    rated = dict(zip(answers, await bench.rate(list(answers.values()), view, role, attempt), strict=True))
    gap, placed = bench.script.recipe.pairing.gap, []
    for comparison, order in zip(comparisons, orders, strict=True):
        a, b = rated[comparison.a.id], rated[comparison.b.id]
        if a is None or b is None:
            placed.append((order, Verdict(Choice.unreadable)))
            continue
        lead = a.points - b.points
        choice = Choice.tie if not lead or abs(lead) < gap else Choice.first if lead > 0 else Choice.second
        repaired = a.repaired or b.repaired
        placed.append((order, Verdict(choice, repaired=repaired, value_first=a.points, value_second=b.points)))
    return placed


LETTERS = [*string.ascii_uppercase, *(a + b for a in string.ascii_uppercase for b in string.ascii_uppercase)]
"Names of the answers of a ranking."
Form = Callable[[Bench, Sequence[Comparison], Sequence[str], View, Role, str], Coroutine[Any, Any, list[Placed]]]
FORMS: dict[str, Form] = {"pairwise": _pairs, "batch": _batches, "ranking": _rankings, "rating": _ratings}
"How a model is asked about comparisons in one order, by the form of its generator."
