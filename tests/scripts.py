"""Scripted models for tests: plain functions of the request, as users write them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from simforge.errors import CallFailed
from simforge.models.ledger import request_key
from simforge.models.scripted import actor, make_reply
from simforge.types import ChatReply, ChatRequest


def counting(request: ChatRequest) -> str | ChatReply:
    """The built-in actor, which leaves a line in $CALLS for every call that reaches it."""
    with Path(os.environ["CALLS"]).open("a") as file:
        file.write(request_key(request).hex() + "\n")
    return actor(request)


def fails_for_some(request: ChatRequest) -> str | ChatReply:
    """Fails every call whose digest starts with 0, 1 or 2, as long as $BROKEN exists."""
    if Path(os.environ["BROKEN"]).exists() and request_key(request).hex()[0] in "012":
        raise CallFailed("the line was cut")
    return actor(request)


def dies_midway(request: ChatRequest) -> str | ChatReply:
    """Counts its calls, and takes the whole process down at call number $DIE_AT."""
    answer = counting(request)
    if len(Path(os.environ["CALLS"]).read_text().splitlines()) == int(
        os.environ["DIE_AT"]
    ):
        os._exit(9)
    return answer


class _Stopped:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def stopped_in_a_finalizer(request: ChatRequest) -> str | ChatReply:
    """The process is told to end while Python cannot raise anything: in a finalizer, where
    exceptions are lost."""
    answer = counting(request)
    if len(Path(os.environ["CALLS"]).read_text().splitlines()) == 100:
        _Stopped()
    return answer


def always_first(request: ChatRequest) -> str | ChatReply:
    """As a judge, takes what is shown first and gives no probabilities."""
    return (
        make_reply(request, request.choices[0]) if request.choices else actor(request)
    )


def leans_to_first(request: ChatRequest) -> str | ChatReply:
    """As a judge, gives the first the probability 0.7 whatever it is."""
    if request.choices:
        return make_reply(
            request,
            request.choices[0],
            dict(zip(request.choices, (0.7, 0.3, 0.0), strict=True)),
        )
    return actor(request)


def mumbles(request: ChatRequest) -> str | ChatReply:
    """As a judge, says nothing that can be read."""
    return (
        make_reply(request, "well, it depends on 1 or 2")
        if request.choices
        else actor(request)
    )


def refuses(request: ChatRequest) -> str | ChatReply:
    """As an assistant, refuses everything."""
    told = request.messages[0].content
    return (
        actor(request)
        if "types" in told or request.choices
        else "I'm sorry, but I can't assist with that."
    )


def says_thanks(request: ChatRequest) -> str | ChatReply:
    """As a user, asks once and then only thanks."""
    if "messages that a person types" not in request.messages[0].content:
        return actor(request)
    asked = request.messages[-1].content.startswith("The assistant answered")
    return (
        "Great, thank you, that helps a lot." if asked else "How do I keep bread fresh?"
    )


def becomes_the_assistant(request: ChatRequest) -> str | ChatReply:
    """As a user, speaks like an assistant."""
    if "messages that a person types" in request.messages[0].content:
        return "Sure, here are some tips for you."
    return actor(request)


def writes_at_second_try(request: ChatRequest) -> str | ChatReply:
    """As a writer, gives JSON only when it has been told what was wrong."""
    if request.schema is None:
        return "A portrait."
    return (
        '{"quirk": "hums", "pets": 2}'
        if "did not fit" in request.messages[-1].content
        else "Sure! Here it is:"
    )


def never_writes_for_the_young(request: ChatRequest) -> str | ChatReply:
    """As a writer, leaves a field out for everybody under fifty."""
    if request.schema is None:
        return "A portrait."
    age = int(request.messages[-1].content.partition("age: ")[2].split()[0])
    return '{"pets": 1}' if age < 50 else '{"quirk": "hums", "pets": 1}'


def _plays_user(request: ChatRequest) -> bool:
    told = request.messages[0].content
    return "messages that a person types" in told or "You are a user who" in told


def _note(request: ChatRequest, name: str) -> str:
    """A line of the notes under which the user's model writes."""
    found = [
        line.partition(": ")[2]
        for line in request.messages[-1].content.splitlines()
        if line.startswith(name)
    ]
    return found[-1] if found else ""


def says_what_it_is_told(request: ChatRequest) -> str | ChatReply:
    """As a user, tells the facts of the notes and something else."""
    said = actor(request)
    return (
        f"{said} {_note(request, 'In this message they let show')}."
        if _plays_user(request)
        else said
    )


def asks_and_answers(request: ChatRequest) -> str | ChatReply:
    """As a user, asks about the goal of the notes; as an assistant, speaks of what it was asked."""
    said = actor(request)
    if _plays_user(request):
        return f"{said} {_note(request, 'They ask about')}"
    return said if request.choices else f"{said} {request.messages[-1].content}"


def is_a_user_model(request: ChatRequest) -> str | ChatReply:
    """As a user's own model, ends after one message; it finds its own messages under the role
    `user`."""
    if not _plays_user(request):
        return actor(request)
    roles = [message.role for message in request.messages]
    assert roles in (["system"], ["system", "user", "assistant"]), roles
    return "bread is flat why?" if len(roles) == 1 else "<|endconversation|>"


def sighs_once(request: ChatRequest) -> str | ChatReply:
    """As a user, sighs at the second turn, until it is told not to."""
    last = request.messages[-1].content
    sighs = (
        _plays_user(request)
        and "The assistant answered" in last
        and "would not do" not in last
    )
    return f"*sighs* {actor(request)}" if sighs else actor(request)


def sighs_always(request: ChatRequest) -> str | ChatReply:
    """As a user, sighs whatever it is told."""
    return f"*sighs* {actor(request)}" if _plays_user(request) else actor(request)


def mumbles_always(request: ChatRequest) -> str | ChatReply:
    """As a judge, says nothing that can be read."""
    return "well, it depends"


def recording(request: ChatRequest) -> str | ChatReply:
    """The built-in actor, which writes the messages of every request to $CALLS."""
    with Path(os.environ["CALLS"]).open("a") as file:
        file.write(
            json.dumps([message.as_dict() for message in request.messages]) + "\n"
        )
    return actor(request)


def sighs_in_bold(request: ChatRequest) -> str | ChatReply:
    """As a user, sighs and writes in bold."""
    return (
        "*sighs* **why** is my bread flat?" if _plays_user(request) else actor(request)
    )


def first_bold_then_sighing(request: ChatRequest) -> str | ChatReply:
    """As a user, is long and in bold at first, and sighs when it is asked again."""
    if not _plays_user(request):
        return actor(request)
    asked_again = "would not do" in request.messages[-1].content
    return (
        "*sighs* why?"
        if asked_again
        else "**help** "
        + " ".join(
            f"my loaf was flat on day {n} and i do not know why," for n in range(25)
        )
    )


def says_nothing_new(request: ChatRequest) -> str | ChatReply:
    """As a user, asks for the same in other orders of words."""
    if not _plays_user(request):
        return actor(request)
    turn = sum(message.role == "assistant" for message in request.messages)
    return "bread flat oven cold again " * (turn + 1) + "why?"


def introduces_itself(request: ChatRequest) -> str | ChatReply:
    """As a user, says in the opening what it is told to say, as people in forms do."""
    told = _note(request, "In this message they let show")
    return (
        f"As a person from here I would say {told}, and why is my bread so flat?"
        if _plays_user(request)
        else actor(request)
    )


def objects_when_it_is_wrong(request: ChatRequest) -> str | ChatReply:
    """As a person, doubts the wrong answers of the audit's probe and asks on after the right ones."""
    from simforge.audit.pushback import checkable_facts

    wrong = any(
        one.wrong_answer in request.messages[-1].content for one in checkable_facts()
    )
    return (
        "Are you sure? I don't think so."
        if wrong
        else "And how do I go on with the wooden shelf?"
    )


def never_changes_its_style(request: ChatRequest) -> str | ChatReply:
    """The built-in actor, deaf to how friendly it is asked to be."""
    answer = actor(request)
    return answer.replace("!", ".") if isinstance(answer, str) else answer
