"""Refusals: what a server says is wrong with a request, in the forms that servers use.

Only the server's message and the fields that it names count as evidence. Some servers repeat the
request in their answer, and a person's message may contain any word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from simforge.models.replies import clean_text

MAX_MESSAGE = 2_000
"Characters of a message that are read."


_UNSUPPORTED = re.compile(
    r"unsupported|unrecogni[sz]ed|unknown|unexpected|extra|not (?:supported|permitted|allowed)"
    r"|(?:does|do) ?(?:not|n['’]t) support|only the default",
    re.IGNORECASE,
)


_SYSTEM_ROLE = re.compile(
    r"system[ _-](?:role|message|prompt|instruction)s?|role\W+system|developer instruction"
    r"|roles must alternate",
    re.IGNORECASE,
)


_QUOTA = re.compile(
    r"insufficient_quota|billing|exceeded your current quota|credit balance|payment",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """The parts of a refusal."""

    message: str
    "The server's words, without the texts of the request."
    fields: frozenset[str]
    "Fields of the request that the server names as wrong; empty if it names none."
    code: str

    def blames(self, field: str) -> bool:
        """Return whether a field is not supported."""
        if self.fields:
            return field in self.fields
        # short names are words, too: they count only in quotes
        name = (
            rf"[`'\"]{field}[`'\"]"
            if field in ("n", "stop")
            else rf"(?<![\w.]){field}\b"
        )
        return bool(_UNSUPPORTED.search(self.message) and re.search(name, self.message))

    def asks_for(self, field: str, instead_of: str) -> bool:
        """Return whether one field has to be used instead of another."""
        if field not in self.message:
            return False
        return (
            self.fields == {instead_of}
            or "instead" in self.message
            or re.search(rf"\buse\b.{{0,20}}\b{field}\b", self.message) is not None
        )

    @property
    def refuses_system_role(self) -> bool:
        """True if the model's chat template has no system role."""
        return _SYSTEM_ROLE.search(self.message) is not None

    @property
    def is_about_quota(self) -> bool:
        """True if no money is left, so that waiting does not help."""
        return _QUOTA.search(f"{self.code} {self.message}") is not None


def read_refusal(body: bytes, request_texts: Iterable[str] = ()) -> Refusal:
    """Read a refusal. `request_texts` are the messages of the request, which are removed from
    the server's words."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        content = body.decode("utf-8", "replace")
    messages: list[str] = []
    fields: set[str] = set()
    codes: list[str] = []
    for entry in _entries(content):
        if isinstance(entry, str):
            messages.append(entry)
            continue
        messages += [
            entry[key]
            for key in ("message", "msg", "detail", "error")
            if isinstance(entry.get(key), str)
        ]
        codes += [str(entry[key]) for key in ("code", "type") if entry.get(key)]
        location = entry.get("loc")
        if isinstance(location, list) and location[:1] == ["body"]:
            fields.update(map(str, location[1:2]))
        if isinstance(entry.get("param"), str) and entry["param"]:
            fields.add(entry["param"])
    message = " ".join(part[:MAX_MESSAGE] for part in messages)
    for text in request_texts:
        message = message.replace(text, " ") if len(text) > 3 else message
    return Refusal(clean_text(message), frozenset(fields), " ".join(codes))


def _entries(content: Any) -> Iterator[Any]:
    """Yield the error objects and messages of an answer."""
    if not isinstance(content, dict):
        yield from [content] if isinstance(content, str) else []
        return
    yield content
    for key in ("error", "detail", "errors"):
        part = content.get(key)
        for entry in (part if isinstance(part, list) else [part])[:20]:
            if isinstance(entry, dict) or (isinstance(entry, str) and key == "errors"):
                yield entry
