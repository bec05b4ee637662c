"""Candidates: answers to one prefix, told different things about the person.

`plan` says which answers a turn needs; `answer` gets one. Twins who share a prefix want opposite things, so they ask
for the same texts (one's `own` is the other's `opposite`), and since a request's seed follows from its content and
their number, they are the same answers, labelled the other way round: a shared pair.

`flaw` is the quality gate: an answer that is empty, cut off, refuses or quotes its steering is in no pair.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from simforge.config import Candidates, Filters
from simforge.generators import Generator
from simforge.identity import digest, rng
from simforge.measures import WORD
from simforge.preferences import Space
from simforge.roles import Calls
from simforge.types import Candidate, Condition, Finish, Message, Profile, Scenario


@dataclass(frozen=True, slots=True)
class Order:
    """Answers to be asked for in one request."""

    condition: Condition
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


def plan(settings: Candidates, space: Space, profile: Profile, dimensions: list[str | None]) -> list[Order]:
    """The answers that a turn needs, in the order of the recipe."""
    orders = []
    for condition in settings.conditions:
        for dimension in [None] if condition == Condition.plain else dimensions:
            steering = _steering(condition, space, profile, dimension)
            orders.append(Order(condition, dimension, steering, settings.samples))
    return orders


async def answer(
    order: Order, scenario: Scenario, turn: int, history: tuple[Message, ...], generator: Generator, calls: Calls
) -> list[Candidate]:
    """Ask the assistant for the answers of one order."""
    attempt = f"/{scenario.persona.index // 2}"  # twins share answers; other people have their own
    variables = {"steering": order.steering}
    reply = await calls.ask("assistants", generator, variables, history, attempt=attempt, n=order.samples)
    return [
        Candidate(
            id=digest(["candidate", scenario.key, turn, order.condition, order.dimension, sample]),
            turn=turn,
            condition=order.condition,
            dimension=order.dimension,
            sample=sample,
            model=calls.model("assistants"),
            steering=order.steering,
            said=said,
        )
        for sample, said in enumerate(reply.said)
    ]


def flaw(candidate: Candidate, user: str, filters: Filters) -> str | None:
    """The reason why an answer may not be in a pair, or `None`."""
    text = candidate.text
    if not WORD.search(text):
        return "empty"
    if filters.cut_off and candidate.said.finish == Finish.length:
        return "cut_off"
    if filters.refusal and _REFUSAL.search(text[:300]):
        return "refusal"
    if filters.off_language and _script(user) not in ("", _script(text)):
        return "off_language"
    if _plain(text) == _plain(user):
        return "repeats_prompt"
    if filters.leak and (_quotes(text, candidate.steering, user) or _ABOUT_ITSELF.search(text[:200])):
        return "leak"
    return None


def _steering(condition: Condition, space: Space, profile: Profile, dimension: str | None) -> str:
    if condition == Condition.plain:
        return ""
    return space.steering(space.opposite(profile) if condition == Condition.opposite else profile, dimension)


def _plain(text: str) -> str:
    return " ".join(WORD.findall(text.lower()))


def _quotes(text: str, steering: str, user: str) -> bool:
    """Whether an answer repeats its steering: six words in a row, or two of its telling words (four letters or more,
    not common ones and not the user's) within four words of each other."""
    if not steering:
        return False
    runs, told = _runs(steering)
    said = WORD.findall(text.lower())
    if any(run in f" {' '.join(said)} " for run in runs):
        return True
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


def _script(text: str) -> str:
    """The script that most letters are written in, as Unicode names it."""
    text = text[:2000]
    if text.isascii():
        return "LATIN" if any(map(str.isalpha, text)) else ""
    letters: Counter[str] = Counter()
    for char, times in Counter(text).items():
        if char.isalpha():
            letters[_script_of(char)] += times
    return letters.most_common(1)[0][0] if letters else ""


@lru_cache(maxsize=4096)
def _script_of(letter: str) -> str:
    name = unicodedata.name(letter, "").split(" ")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "HANGUL") else name


_ABOUT_ITSELF = re.compile(
    r"\bhere(?:'|’)?s? (?:is )?(?:a|an|my|the|one|your)\b[^.:!?]{0,60}\b(?:response|reply|answer|paragraph"
    r"|way to say|explanation|version)\b|\bone paragraph\b|\bhow to answer\b",
    re.IGNORECASE,
)
"An answer that talks about how it answers has noticed its steering."
_REFUSAL = re.compile(
    r"\bI(?:'|’)?(?:m| am) (?:sorry|afraid|unable)\b.{0,60}\b(?:can(?:'|’)?t|cannot|unable|not able)\b"
    r"|\bI (?:can(?:'|’)?t|cannot|am not able to|won(?:'|’)t) (?:assist|help|provide|answer|fulfil|comply|generate)\b"
    r"|\bas an? (?:AI|artificial intelligence|language model)\b",
    re.IGNORECASE | re.DOTALL,
)
