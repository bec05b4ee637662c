"""Verdicts: what a judge's reply says, or why it cannot be read.

Reading is strict, and a reply that cannot be read is a value of its own, with what is wrong with it: the judge is told,
and asked once more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from simforge.types import ChatReply, Choice, Finish, Verdict


@dataclass(frozen=True, slots=True)
class Unread:
    """A reply that cannot be read, with what is wrong with it."""

    mistake: str


def ratings_in(text: str, names: Sequence[str], low: int, high: int) -> dict[str, float] | Unread:
    """Ratings in a reply: of its JSON, or, of a single one, its only number; only whole numbers of the scale."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):  # no JSON: then a single number
        numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
        told = int(numbers[0]) if len(names) == len(numbers) == 1 and re.fullmatch(r"\d{1,9}", numbers[0]) else None
    found: dict[str, Any] = told if isinstance(told, dict) else {names[0]: told} if len(names) == 1 else {}
    wrong = [name for name in names if not is_number(found.get(name), low, high)]
    if wrong:
        return Unread(f"no whole number of {low} to {high} for {', '.join(wrong)}")
    return {name: float(found[name]) for name in names}


SAID: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "reasons": lambda words: {"type": "string", "minLength": 1, "maxLength": 600},
    "verdict": lambda words: {"enum": words},
    "certainty": lambda words: {"type": "integer", "minimum": 0, "maximum": 100},
}


def worded(reply: ChatReply, words: list[str]) -> Verdict | Unread:
    """A verdict in a word, with the words' probabilities where the model gives them."""
    word = _word(reply.text, words)
    if not word:
        return Unread(f"it is not one of: {', '.join(words)}")
    p_first = None
    if reply.choice_probabilities:
        shares = [reply.choice_probabilities[one] for one in words]
        p_first = shares[0] + (shares[2] / 2 if len(shares) > 2 else 0.0)
    return replace(verdict_of(word, words), p_first=p_first)


def reasoned(reply: ChatReply, words: list[str], says: Sequence[str]) -> Verdict | Unread:
    """A verdict in JSON, with reasons or certainty."""
    said = _json(reply)
    if isinstance(said, Unread):
        return said
    certainty: Any = said.get("certainty")
    word = _plain(said.get("verdict"))
    if word not in words:
        return Unread(f"`verdict` is not one of: {', '.join(words)}")
    if "certainty" in says and not is_number(certainty, 0, 100):
        return Unread("`certainty` is not a whole number of 0 to 100")
    return replace(
        verdict_of(word, words),
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


def listed(reply: ChatReply, name: str) -> list[Any] | Unread:
    said = _json(reply)
    if isinstance(said, Unread):
        return said
    found = said.get(name)
    return found if isinstance(found, list) else Unread(f"there is no list `{name}`")


def verdicts_in(reply: ChatReply, words: list[str], count: int) -> list[Verdict] | Unread:
    """A list of as many verdicts as were asked for."""
    said = listed(reply, "verdicts")
    if isinstance(said, Unread):
        return said
    if len(said) != count:
        return Unread(f"there are {len(said)} verdicts for {count} pairs")
    wrong = [number for number, word in enumerate(said, start=1) if _plain(word) not in words]
    if wrong:
        return Unread(f"verdict {wrong[0]} is not one of: {', '.join(words)}")
    return [verdict_of(_plain(word), words) for word in said]


def verdict_of(word: str, words: list[str]) -> Verdict:
    """The verdict that a word of a generator's `choices` stands for."""
    return Verdict(dict(zip(words, (Choice.first, Choice.second, Choice.tie), strict=False))[word])


def _plain(word: Any) -> str:
    """A word of JSON; 1 is as good as "1"."""
    return str(word) if isinstance(word, str | int) and not isinstance(word, bool) else ""


def or_unreadable(said: Verdict | Unread, repaired: bool) -> Verdict:
    return (
        Verdict(Choice.unreadable, repaired=repaired) if isinstance(said, Unread) else replace(said, repaired=repaired)
    )


def _word(text: str, words: list[str]) -> str:
    """The verdict word in a reply: the whole reply, or its first word where it names no other."""
    cleaned = re.sub(r"[^\w ]", " ", text.strip().lower()).split()
    joined = " ".join(cleaned)
    named = [word for word in words if joined == word.lower() or word.lower() in cleaned]
    return named[0] if len(named) == 1 and joined.startswith(named[0].lower()) else ""


def is_number(points: Any, low: int, high: int) -> bool:
    return isinstance(points, int) and not isinstance(points, bool) and low <= points <= high


def object_of(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
