"""Scripted judges for tests, of which it is known how they judge."""

from __future__ import annotations

import json
import re

from simforge.identity import digest, rng
from simforge.models.scripted import actor, make_reply
from simforge.text.measures import words
from simforge.types import ChatReply, ChatRequest


def _asked(request: ChatRequest) -> bool:
    """Whether a judge is asked, and not anybody else."""
    return bool(request.choices) or "reply with JSON" in request.messages[0].content


def _two(request: ChatRequest) -> tuple[str, str]:
    """The two answers of a comparison, in the order in which they are shown."""
    text = request.messages[-1].content
    first, second = re.search(
        r"Answer 1:\n(.*?)\n\nAnswer 2:\n(.*?)\n\nThe person", text, re.DOTALL
    ).groups()
    return first, second


def _luck(request: ChatRequest, purpose: str) -> float:
    """Of this request and no other: one order of a comparison is independent of the other."""
    return rng(
        request.seed,
        purpose,
        digest([message.as_dict() for message in request.messages]),
    ).random()


def always_first(request: ChatRequest) -> str | ChatReply:
    """Takes what is shown first."""
    return make_reply(request, "1") if request.choices else actor(request)


def leans_to_first(request: ChatRequest) -> str | ChatReply:
    """Gives what is shown first the probability 0.7."""
    return (
        make_reply(request, "1", {"1": 0.7, "2": 0.3, "tie": 0.0})
        if request.choices
        else actor(request)
    )


def tosses_a_coin(request: ChatRequest) -> str | ChatReply:
    """Takes what is shown first in seven of ten calls, by chance."""
    return (
        make_reply(request, "1" if _luck(request, "coin") < 0.7 else "2")
        if request.choices
        else actor(request)
    )


def prefers(wants: str, first: str, second: str) -> bool | None:
    """Whether a person who likes this prefers the first of two answers: by their length, which
    everybody sees; `None` where nothing is known of them."""
    if "short" not in wants and "background" not in wants:
        return None
    return (words(first) < words(second)) == ("short" in wants)


def _errs(request: ChatRequest, share: float) -> str | ChatReply:
    if not request.choices:
        return actor(request)
    first = prefers(
        request.messages[-1].content.rpartition("The person likes")[2], *_two(request)
    )
    if first is None:
        return make_reply(request, "1" if _luck(request, "guess") < 0.5 else "2")
    return make_reply(
        request, "1" if first == (_luck(request, "error") >= share) else "2"
    )


def follows_the_profile(request: ChatRequest) -> str | ChatReply:
    """Prefers the shorter answer for those who want it concise and the longer for the others."""
    return _errs(request, 0.0)


def errs_in_a_fifth(request: ChatRequest) -> str | ChatReply:
    """Follows the profile, and errs in a fifth of its calls."""
    return _errs(request, 0.2)


def gives_reasons(request: ChatRequest) -> str | ChatReply:
    """Says why, and how sure it is, in the JSON that it is asked for."""
    if request.schema is None:
        return actor(request)
    names = json.loads(request.schema)["properties"]
    said = {
        "reasons": "Because of <b>this</b>.",
        "verdict": "2",
        "certainty": 20 if "Answer 1" in _text(request) else 90,
    }
    return (
        json.dumps({name: said[name] for name in names})
        if {*names} <= {*said}
        else actor(request)
    )


def ranks_by_length(request: ChatRequest) -> str | ChatReply:
    """Ranks answers by length, the longest first."""
    if request.schema is None or "ranking" not in request.schema:
        return actor(request)
    answers = dict(
        re.findall(
            r"Answer ([A-Z]):\n(.*?)(?=\n\n\n?Answer [A-Z]:|\n\n?The person:)",
            _text(request),
            re.DOTALL,
        )
    )
    return json.dumps(
        {"ranking": sorted(answers, key=lambda letter: -len(answers[letter]))}
    )


def ranks_as_shown(request: ChatRequest) -> str | ChatReply:
    """Ranks answers as they stand on the sheet."""
    if request.schema is None or "ranking" not in request.schema:
        return actor(request)
    return json.dumps(
        {
            "ranking": json.loads(request.schema)["properties"]["ranking"]["items"][
                "enum"
            ]
        }
    )


def is_one_short(request: ChatRequest) -> str | ChatReply:
    """Gives one verdict less than it is asked for."""
    if request.schema is None or "verdicts" not in request.schema:
        return actor(request)
    return json.dumps(
        {
            "verdicts": ["1"]
            * (json.loads(request.schema)["properties"]["verdicts"]["minItems"] - 1)
        }
    )


def loses_its_way(request: ChatRequest) -> str | ChatReply:
    """Cannot be read at first, and only says something when it is told what was wrong."""
    if not request.choices:
        return actor(request)
    again = "That cannot be read: it is not one of: 1, 2, tie" in _text(request)
    return make_reply(request, "2" if again else "I would say that it depends")


def scores_its_length(request: ChatRequest) -> str | ChatReply:
    """As a reward model: the number of characters."""
    return (
        str(len(request.messages[-1].content) / 100)
        if request.sampling.max_tokens == 1
        else actor(request)
    )


def _text(request: ChatRequest) -> str:
    return request.messages[-1].content


def _rates(request: ChatRequest, points: int) -> str | ChatReply:
    if request.schema is None or "verbosity" not in request.schema:
        return actor(request)
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    return json.dumps(dict.fromkeys(names, points))


def rates_nought(request: ChatRequest) -> str | ChatReply:
    """Rates every attribute 0."""
    return _rates(request, 0)


def rates_four(request: ChatRequest) -> str | ChatReply:
    """Rates every attribute 4."""
    return _rates(request, 4)
