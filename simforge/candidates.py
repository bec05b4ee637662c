"""Candidates: answers to one prefix, told different things about the person.

`plan` says which answers a turn needs; `answers` gets them. Opposite people of a group who share a prefix ask for the
same texts (one's `own` is the other's `opposite`), and since a request's seed follows from its content and the group's
number, they are the same answers, labelled the other way round: a shared pair.

`flaw` is the quality gate: an answer that is empty, cut off, refuses or quotes its steering is in no pair.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from simforge.config import Arm, Candidates, Filters
from simforge.generators import Generator
from simforge.identity import digest, rng
from simforge.measures import WORD, script
from simforge.preferences import Space
from simforge.roles import Calls, at_once
from simforge.script import Script
from simforge.types import Candidate, ChatReply, Condition, Finish, Message, Said, Scenario


@dataclass(frozen=True, slots=True)
class Order:
    """Answers to be asked for in one request."""

    arm: Arm
    dimension: str | None
    steering: str
    samples: int
    "How many of them; a model that can draws all for one reading of the prompt."


def contrasts(settings: Candidates, space: Space, scenario: Scenario, seed: int, turn: int) -> list[str | None]:
    """The dimensions that a turn compares on. With rotation, people who share a prompt start on the same one."""
    names = space.wanted(scenario.persona.profile)
    if settings.contrast == "whole":
        return [None]
    if settings.contrast == "all":
        return list(names)
    start = rng(seed, "contrast", scenario.prompt.id if scenario.prompt else scenario.key).randrange(len(names))
    return [names[(start + turn) % len(names)]]


def plan(
    arms: Sequence[Arm],
    samples: int,
    space: Space,
    scenario: Scenario,
    dimensions: list[str | None],
    inferred: str | None,
) -> list[Order]:
    """The answers that a turn needs, in the order of the recipe."""
    orders = []
    for arm in arms:
        if arm.condition == Condition.inferred:
            orders.append(Order(arm, None, inferred or "", samples))
            continue
        if arm.condition == Condition.others:
            orders += [Order(arm, name, steer, samples) for name, steer in space.others(scenario.persona.profile)]
            continue
        for dimension in [None] if arm.condition == Condition.plain else dimensions:
            orders.append(Order(arm, dimension, _steering(arm, space, scenario, dimension), samples))
    return orders


async def answers(
    orders: Sequence[Order],
    line: str,
    turn: int,
    prefix: tuple[Message, ...],
    scenario: Scenario,
    script: Script,
    calls: Calls,
) -> list[Candidate]:
    """Ask for all answers of a turn; those that revise a plain one wait for it."""
    shared = script.recipe.candidates.shared == "everyone"
    place = _Place(line, turn, prefix, "" if shared else f"/{scenario.group}", script, calls)
    made: dict[int, list[Candidate]] = {}
    for late in (False, True):
        numbers = [n for n, order in enumerate(orders) if (order.arm.condition == Condition.revised) is late]
        plain = [one for several in made.values() for one in several if one.condition == Condition.plain]
        drafts = [one for one in plain if one.arm == plain[0].arm]
        asked = (place.revise(orders[n], drafts) if late else place.ask(orders[n]) for n in numbers)
        made |= zip(numbers, await at_once(asked), strict=True)
    return [one for number in sorted(made) for one in made[number]]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where answers are asked for."""

    line: str
    turn: int
    prefix: tuple[Message, ...]
    attempt: str
    "People of a group share answers; others have their own."
    script: Script
    calls: Calls

    async def ask(self, order: Order) -> list[Candidate]:
        """The answers of one order."""
        if order.steering and self.script.writer is not None and order.arm.condition != Condition.inferred:
            order = replace(order, steering=await self._written(order.steering))
        reply = await self._asked(order, self.script.assistant, {"steering": order.steering}, order.samples)
        return [self._candidate(order, number, said) for number, said in enumerate(reply.said)]

    async def _written(self, wishes: str) -> str:
        """A system message that says what a person wants; people who want the same are given the same."""
        assert self.script.writer is not None
        prompt = self.prefix[-1].content
        reply = await self.calls.ask("writer", self.script.writer, {"wishes": wishes, "prompt": prompt})
        return " ".join(reply.text.split()) or wishes

    async def revise(self, order: Order, drafts: Sequence[Candidate]) -> list[Candidate]:
        """A revision of each draft."""
        assert self.script.reviser is not None
        reviser = self.script.reviser
        told = [{"steering": order.steering, "draft": draft.text} for draft in drafts]
        replies = await at_once(self._asked(order, reviser, variables, 1) for variables in told)
        return [self._candidate(order, number, reply.said[0]) for number, reply in enumerate(replies)]

    async def _asked(self, order: Order, generator: Generator, variables: Mapping[str, str], n: int) -> ChatReply:
        named = "" if order.arm.name in {*Condition} else f"/{order.arm.name}"
        return await self.calls.ask(
            order.arm.model,
            generator,
            variables,
            self.prefix,
            attempt=self.attempt + named,
            n=n,
            temperature=order.arm.temperature,
        )

    def _candidate(self, order: Order, sample: int, said: Said) -> Candidate:
        return Candidate(
            id=digest(["candidate", self.line, self.turn, order.arm.name, order.dimension, sample]),
            turn=self.turn,
            arm=order.arm.name,
            condition=order.arm.condition,
            dimension=order.dimension,
            sample=sample,
            model=self.calls.model(order.arm.model),
            steering=order.steering,
            said=said,
        )


def refuses(text: str) -> bool:
    """Whether an answer begins with a refusal."""
    return _REFUSAL.search(text[:300]) is not None


def flaw(candidate: Candidate, user: str, filters: Filters) -> str | None:
    """The reason why an answer may not be in a pair, or `None`."""
    text = candidate.text
    if not WORD.search(text):
        return "empty"
    if filters.cut_off and candidate.said.finish == Finish.length:
        return "cut_off"
    if filters.refusal and refuses(text):
        return "refusal"
    if filters.off_language and script(user) not in ("", script(text)):
        return "off_language"
    if _plain(text) == _plain(user):
        return "repeats_prompt"
    if filters.broken and broken(text):
        return "broken"
    if filters.leak and (_quotes(candidate, user) or _ABOUT_ITSELF.search(text[:200])):
        return "leak"
    return None


def _steering(arm: Arm, space: Space, scenario: Scenario, dimension: str | None) -> str:
    """What the assistant is told about what the person wants."""
    own = scenario.persona.profile
    if arm.condition == Condition.plain:
        return ""
    if arm.condition == Condition.stranger:
        assert scenario.stranger is not None
        return space.steering(scenario.stranger.profile, dimension)
    return space.steering(space.opposite(own) if arm.condition == Condition.opposite else own, dimension)


LOOPS = 4
"Times that the same eight words may come in an answer."


def broken(text: str) -> bool:
    """Whether an answer goes in circles (the same eight words again and again) or is garbled (characters that stand for
    none, or hardly a letter in a longer text)."""
    if "\ufffd" in text or (len(text) > 40 and sum(map(str.isalnum, text)) < 0.4 * len(text)):
        return True
    said = WORD.findall(text.lower())
    runs = Counter(zip(*(said[start:] for start in range(8)), strict=False))
    return bool(runs) and max(runs.values()) >= LOOPS


def _plain(text: str) -> str:
    return " ".join(WORD.findall(text.lower()))


def _quotes(candidate: Candidate, user: str) -> bool:
    """Whether an answer repeats its steering: six words in a row, or two of its telling words (four letters or more,
    not common ones and not the user's) within four words of each other. Of what was inferred about the person the words
    may come up: they are what was talked about."""
    steering, text = candidate.steering, candidate.text
    if not steering:
        return False
    runs, told = _runs(steering)
    said = WORD.findall(text.lower())
    if any(run in f" {' '.join(said)} " for run in runs):
        return True
    if candidate.condition == Condition.inferred:
        return False
    telling = told.difference(WORD.findall(user.lower()))
    places = [(place, word) for place, word in enumerate(said) if word in telling]
    return any(one != other and there - here < 4 for (here, one), (there, other) in pairwise(places))


@lru_cache(maxsize=4096)
def _runs(steering: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Each six words in a row of a steering, with spaces around, and its telling words."""
    words = WORD.findall(steering.lower())
    runs = tuple(f" {' '.join(words[i : i + 6])} " for i in range(len(words) - 5))
    return runs, frozenset(word for word in words if len(word) > 3) - _COMMON


_COMMON = frozenset(
    [
        "with",
        "that",
        "this",
        "from",
        "just",
        "give",
        "more",
        "full",
        "explain",
        "example",
        "write",
        "talk",
        "like",
        "without",
        "word",
        "words",
    ]
)


_ABOUT_ITSELF = re.compile(
    r"\bhere(?:'|’)?s? (?:is )?(?:a|an|my|the|one|your)\b[^.:!?]{0,60}\b(?:response|reply|answer|paragraph"
    r"|way to say|explanation|version)\b|\bone paragraph\b|\bhow to answer\b|\b(?:your|my) notes (?:about|on)\b",
    re.IGNORECASE,
)
"An answer that talks about how it answers has noticed its steering."
_REFUSAL = re.compile(
    r"\bI(?:'|’)?(?:m| am) (?:sorry|afraid|unable)\b.{0,60}\b(?:can(?:'|’)?t|cannot|unable|not able)\b"
    r"|\bI (?:can(?:'|’)?t|cannot|am not able to|won(?:'|’)t) (?:assist|help|provide|answer|fulfil|comply|generate)\b"
    r"|\bas an? (?:AI|artificial intelligence|language model)\b",
    re.IGNORECASE | re.DOTALL,
)
