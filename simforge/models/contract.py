"""Models: one contract, several providers.

A model reference is `provider:name`. `resolve` turns it into a `ModelSpec`, a value that
identifies the model. `ensure_available` checks that the model can be used, and downloads its
files if necessary, so that a run never starts without its model. `open_model` builds the
client, on the worker that uses it. Every client has one coroutine:

    reply = await model.chat(request)

A client raises `CallFailed` if one call failed, and any other `ModelError` if no call can
succeed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from simforge.types import DEFAULT_ACCESS, Access, ChatReply, ChatRequest


class Model(Protocol):
    """A client of one model."""

    async def chat(self, request: ChatRequest, dialogue: str = "") -> ChatReply:
        """Answer one request; safe to call many times concurrently. `dialogue` identifies
        requests that share a prefix, for models with several replicas; it does not change the
        answer."""
        ...

    async def close(self) -> None:
        """Close connections; resources shared within the process stay open."""
        ...


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The identity of a model, as a value."""

    reference: str
    "The reference as the user wrote it."
    fingerprint: str
    "Content identity; part of every request key, so a changed file is a different model."
    licence: str
    "SPDX id, or `unknown`."
    about: str
    "One-line description for users."
    access: Access = DEFAULT_ACCESS
    "Access settings of its endpoint: key, headers, extra request fields."
    model: str = ""
    "Name under which the server of its endpoint knows it."
    urls: tuple[str, ...] = ()
    "URLs of its endpoint; for a `vllm` model, known once its replicas are running."
    enforces_choices: bool = False
    "True if the endpoint enforces the given choices; known after the check."
