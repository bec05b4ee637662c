"""Verdicts: parses the verdict in a judge's reply, or explains why it cannot be parsed.

Parsing is strict. A reply that cannot be parsed becomes a `ParseFailure` that describes the
mistake; the judge is given the mistake and asked once more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from simforge.types import ChatReply, Choice, Finish, JsonObject, Verdict


@dataclass(frozen=True, slots=True)
class ParseFailure:
    """A reply that cannot be parsed, and the mistake in it."""

    mistake: str


def parse_ratings(
    text: str, names: Sequence[str], low: int, high: int
) -> dict[str, float] | ParseFailure:
    """Parses ratings from the reply's JSON or, for a single rating, from its only number. Only
    whole numbers on the scale count."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):  # not JSON: accept a single number
        numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
        parsed = (
            int(numbers[0])
            if len(names) == len(numbers) == 1 and re.fullmatch(r"\d{1,9}", numbers[0])
            else None
        )
    ratings: JsonObject = (
        parsed
        if isinstance(parsed, dict)
        else {names[0]: parsed}
        if len(names) == 1
        else {}
    )
    invalid = [
        name for name in names if not is_integer_within(ratings.get(name), low, high)
    ]
    if invalid:
        return ParseFailure(
            f"no whole number from {low} to {high} for {', '.join(invalid)}"
        )
    return {name: float(ratings[name]) for name in names}


REPLY_FIELDS: dict[str, Callable[[list[str]], JsonObject]] = {
    "reasons": lambda words: {"type": "string", "minLength": 1, "maxLength": 600},
    "verdict": lambda words: {"enum": words},
    "certainty": lambda words: {"type": "integer", "minimum": 0, "maximum": 100},
}


def parse_word(reply: ChatReply, words: list[str]) -> Verdict | ParseFailure:
    """Parses a one-word verdict, with the probabilities of the words if the model returns
    them."""
    word = _find_verdict_word(reply.text, words)
    if not word:
        return ParseFailure(f"it is not one of: {', '.join(words)}")
    p_first = None
    if reply.choice_probabilities:
        shares = [reply.choice_probabilities[word_choice] for word_choice in words]
        p_first = shares[0] + (shares[2] / 2 if len(shares) > 2 else 0.0)
    return replace(verdict_for_word(word, words), p_first=p_first)


def parse_reasoned(
    reply: ChatReply, words: list[str], fields_asked: Sequence[str]
) -> Verdict | ParseFailure:
    """Parses a JSON verdict with reasons or certainty."""
    fields = _parse_object(reply)
    if isinstance(fields, ParseFailure):
        return fields
    certainty: Any = fields.get("certainty")
    word = _as_word(fields.get("verdict"))
    if word not in words:
        return ParseFailure(f"`verdict` is not one of: {', '.join(words)}")
    if "certainty" in fields_asked and not is_integer_within(certainty, 0, 100):
        return ParseFailure("`certainty` is not a whole number from 0 to 100")
    return replace(
        verdict_for_word(word, words),
        certainty=certainty / 100 if "certainty" in fields_asked else None,
        reasons=str(fields.get("reasons") or "") if "reasons" in fields_asked else "",
    )


def _parse_object(reply: ChatReply) -> JsonObject | ParseFailure:
    try:
        parsed = json.loads(reply.text)
    except (ValueError, RecursionError) as problem:
        cut = str(problem) if reply.finish == Finish.stop else "it was cut off"
        return ParseFailure(f"it is not JSON: {cut}")
    return (
        parsed if isinstance(parsed, dict) else ParseFailure("it is not a JSON object")
    )


def parse_list(reply: ChatReply, name: str) -> list[Any] | ParseFailure:
    fields = _parse_object(reply)
    if isinstance(fields, ParseFailure):
        return fields
    items = fields.get(name)
    return (
        items if isinstance(items, list) else ParseFailure(f"there is no list `{name}`")
    )


def parse_verdicts(
    reply: ChatReply, words: list[str], count: int
) -> list[Verdict] | ParseFailure:
    """Parses a list with as many verdicts as there were questions."""
    items = parse_list(reply, "verdicts")
    if isinstance(items, ParseFailure):
        return items
    if len(items) != count:
        return ParseFailure(f"there are {len(items)} verdicts for {count} pairs")
    invalid = [
        number
        for number, word in enumerate(items, start=1)
        if _as_word(word) not in words
    ]
    if invalid:
        return ParseFailure(f"verdict {invalid[0]} is not one of: {', '.join(words)}")
    return [verdict_for_word(_as_word(word), words) for word in items]


def verdict_for_word(word: str, words: list[str]) -> Verdict:
    """Returns the verdict for a word from the generator's `choices`."""
    return Verdict(
        dict(zip(words, (Choice.first, Choice.second, Choice.tie), strict=False))[word]
    )


def _as_word(word: Any) -> str:
    """Returns a JSON string or number as a word, so that 1 counts as "1"; empty for any other
    value."""
    return (
        str(word) if isinstance(word, str | int) and not isinstance(word, bool) else ""
    )


def verdict_or_unreadable(parsed: Verdict | ParseFailure, repaired: bool) -> Verdict:
    return (
        Verdict(Choice.unreadable, repaired=repaired)
        if isinstance(parsed, ParseFailure)
        else replace(parsed, repaired=repaired)
    )


def _find_verdict_word(text: str, words: list[str]) -> str:
    """Finds the verdict word: the whole reply, or its first word if it contains no other
    verdict word."""
    cleaned = re.sub(r"[^\w ]", " ", text.strip().lower()).split()
    joined = " ".join(cleaned)
    named = [
        word for word in words if joined == word.lower() or word.lower() in cleaned
    ]
    return named[0] if len(named) == 1 and joined.startswith(named[0].lower()) else ""


def is_integer_within(value: Any, low: int, high: int) -> bool:
    return (
        isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    )


def object_schema(properties: JsonObject) -> JsonObject:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
