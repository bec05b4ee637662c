"""Reading the answers of servers: nothing in them is trusted.

A body is read within a size limit, also after decompression. Texts, counts and probabilities are
checked here, before they enter the ledger: a value that cannot be what the protocol says raises
`MalformedReply`, which is a failed attempt and never a reply. An answer counts as finished only if
the server says that it is.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simforge.errors import MalformedReply
from simforge.models.thinking import split_thinking
from simforge.types import ChatReply, Completion, Finish, JsonObject

if TYPE_CHECKING:
    import aiohttp


MAX_BODY = 16 * 2**20
"Maximum size in bytes of an answer's body, after decompression."


MAX_COUNT = 2**31
"Counts of tokens are below this."


FINISHED = "stop tool_calls function_call eos_token stop_sequence eos end_turn complete".split()
"""Finish reasons of a complete answer: OpenAI's, those of Text Generation Inference, and those
that proxies pass on from other services. Upper and lower case are the same."""


CUT_OFF = ("length", "max_tokens", "model_length")
"Finish reasons of an answer that reached the token limit."


FILTERED = ("content_filter", "safety", "sensitive")
"Finish reasons of an answer that a filter of the service held back."


MAX_SCORE = 10**30
"Scores are below this."


TEXT_PARTS = ("text", "output_text")
"Types of the parts of a message that are its text; parts of other types hold thinking."


SCORE_KEYS = ("score", "reward", "data", "probs")
"Keys under which servers return a score."


async def read_body(response: aiohttp.ClientResponse) -> bytes:
    """Read the body of a response, decompressed, in pieces. The session must leave the
    decompression to this function. Raises `MalformedReply` for more than `MAX_BODY` bytes."""
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("identity", "gzip", "x-gzip", "deflate", ""):
        raise MalformedReply("the answer has a Content-Encoding that was not asked for")
    # 32 + 15: zlib recognises the headers of gzip and of deflate
    decoder = None if encoding in ("identity", "") else zlib.decompressobj(47)
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        if decoder is not None:
            try:
                piece = decoder.decompress(piece, MAX_BODY + 1 - size)
            except zlib.error:
                raise MalformedReply(f"the answer is not {encoding}") from None
        size += len(piece)
        if size > MAX_BODY:
            raise MalformedReply(f"the answer is larger than {MAX_BODY >> 20} MB")
        pieces.append(piece)
    return b"".join(pieces)


def parse_json(body: bytes) -> Any:
    """Parse a body. Raises `MalformedReply` for anything but JSON of reasonable depth."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise MalformedReply("the answer was cut off or is not JSON") from None


def clean_text(value: Any) -> str:
    """Return a value as text that can be encoded: halves of surrogate pairs are replaced."""
    return str(value).encode("utf-8", "replace").decode()


def parse_reply(answer: JsonObject, choices: tuple[str, ...] = ()) -> ChatReply:
    """Parse the answer of a chat completion; with `choices`, also their probabilities. Raises
    `MalformedReply` if it has no message, an answer that broke off for another reason than its
    length, or a count that is none."""
    listed = answer.get("choices")
    if not isinstance(listed, list) or not listed:
        raise MalformedReply(f"the answer has no message: {excerpt(answer)}")
    usage = _mapping(answer, "usage")
    completions: list[Completion] = []
    thinking, length = 0, 0
    broken: MalformedReply | None = None
    for choice in listed:
        try:
            completion, thinking_characters, characters = _completion(choice)
        except MalformedReply as problem:
            broken = problem
            continue
        completions.append(completion)
        thinking += thinking_characters
        length += characters
    if broken is not None and not completions:
        raise broken  # of several answers, those that are whole are kept, and the rest asked again
    completion_tokens = _count(usage, "completion_tokens")
    details = _mapping(usage, "completion_tokens_details")
    if details.get("reasoning_tokens") is None:
        thinking_tokens = round(completion_tokens * thinking / max(1, length))
    else:
        thinking_tokens = _count(details, "reasoning_tokens")
    first = completions[0]
    return ChatReply(
        text=first.text,
        finish=first.finish,
        prompt_tokens=_count(usage, "prompt_tokens"),
        cached_tokens=_count(_mapping(usage, "prompt_tokens_details"), "cached_tokens"),
        completion_tokens=completion_tokens,
        # after thinking, the first token is not the choice
        choice_probabilities=choice_probabilities(listed[0], choices)
        if choices and not thinking
        else {},
        thinking_tokens=thinking_tokens,
        answers=tuple(completions) if len(completions) > 1 else (),
    )


def _completion(choice: Any) -> tuple[Completion, int, int]:
    """Return one completion without its thinking, the characters of the thinking, and the
    characters of both."""
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise MalformedReply(f"the answer has no message: {excerpt(choice)}")
    if choice.get("error") is not None:
        raise MalformedReply(f"the answer broke off: {excerpt(choice['error'])}")
    text = _text(message.get("content"))
    if not text and message.get("refusal"):
        return Completion("", Finish.content_filter, None), 0, 0
    separate = _text(message.get("reasoning_content") or message.get("reasoning"))
    parts = split_thinking(text)
    finish = finish_of(choice.get("finish_reason"))
    if not parts.visible and (parts.characters or separate):
        finish = Finish.thought
    return (
        Completion(parts.visible, finish, None),
        parts.characters + len(separate),
        len(text) + len(separate),
    )


def finish_of(reason: Any) -> Finish:
    """Return why an answer ended. Raises `MalformedReply` for reasons such as `error` and
    `abort`, with which the text is a fragment that nobody chose to end."""
    word = reason.lower() if isinstance(reason, str) else reason
    if word in FINISHED:
        return Finish.stop
    if word in CUT_OFF:
        return Finish.length
    if word in FILTERED:
        return Finish.content_filter
    if reason is None:
        raise MalformedReply(
            "the server does not say why the answer ended (finish_reason)"
        )
    raise MalformedReply(
        f"the answer broke off (finish_reason {clean_text(reason)[:40]!r})"
    )


def _text(content: Any) -> str:
    """Return the text of a message's content, which may come in parts."""
    if content is None:
        return ""
    if isinstance(content, list):
        texts = [
            part.get("text")
            for part in content
            if isinstance(part, dict) and part.get("type", "text") in TEXT_PARTS
        ]
        content = "".join(text for text in texts if isinstance(text, str))
    if not isinstance(content, str):
        raise MalformedReply(f"the answer's text is {excerpt(content)}")
    return clean_text(content)


def _mapping(owner: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = owner.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedReply(f"{name} is {excerpt(value)}, not an object")
    return value


def _count(owner: Mapping[str, Any], name: str) -> int:
    value = owner.get(name)
    if value is None:
        return 0
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value < MAX_COUNT or value != int(value):
        raise MalformedReply(f"{name} is {excerpt(value)}, not a count of tokens")
    return int(value)


def token_counts(answer: Mapping[str, Any]) -> dict[str, int]:
    """Return the usage that an answer states, for limits in tokens per minute. Raises
    `MalformedReply`."""
    usage = _mapping(answer, "usage")
    return {
        name: _count(usage, name) for name in ("prompt_tokens", "completion_tokens")
    }


def choice_probabilities(
    completion: JsonObject, choices: tuple[str, ...]
) -> dict[str, float]:
    """Compute the probabilities of the choices from the first token's alternatives; empty if
    the server returns none.

    A token counts for the one choice that starts with it. Tokens with which no choice or
    several choices start are ignored.
    """
    try:
        top = completion["logprobs"]["content"][0]["top_logprobs"]
    except (KeyError, IndexError, TypeError):
        return {}
    probabilities = dict.fromkeys(choices, 0.0)
    for alternative in top if isinstance(top, list) else []:
        if not isinstance(alternative, dict):
            continue
        word = str(alternative.get("token") or "").strip().lower()
        logprob: Any = alternative.get("logprob")
        matching = [
            choice for choice in choices if word and choice.lower().startswith(word)
        ]
        is_number = isinstance(logprob, int | float) and not isinstance(logprob, bool)
        if len(matching) == 1 and is_number and -1e4 < logprob <= 1e-3:
            probabilities[matching[0]] += math.exp(logprob)
    total = sum(probabilities.values())
    if not total > 0:
        return {}
    return {choice: share / total for choice, share in probabilities.items()}


def parse_score(answer: Any) -> float:
    """Extract the only number of an answer, under any of the keys that servers use. Raises
    `MalformedReply` if there is none or more than one: an embedding, or the class scores of a
    classifier, is not a reward."""
    value = answer.get("data", answer) if isinstance(answer, dict) else answer
    while isinstance(value, dict | list):
        inner = (
            [value[name] for name in SCORE_KEYS if name in value]
            if isinstance(value, dict)
            else value
        )
        if (isinstance(value, list) and len(value) != 1) or not inner:
            break
        value = inner[0]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) < MAX_SCORE:
        count = f"{len(value)} numbers" if isinstance(value, list) else "no number"
        raise MalformedReply(
            f"the answer has {count} where one score is needed: {excerpt(answer)}"
        )
    return float(value)


def excerpt(value: Any) -> str:
    """Return the beginning of a value, for messages."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return clean_text(" ".join(text.split())[:160])


def error_text(body: str | bytes) -> str:
    """Return the server's own message: an error's message, else the start of the answer."""
    try:
        content = json.loads(body)
        error = content["error"] if "error" in content else content["message"]
        message = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError, RecursionError):
        message = body if isinstance(body, str) else body.decode("utf-8", "replace")
    return clean_text(" ".join(str(message).split())[:300])
