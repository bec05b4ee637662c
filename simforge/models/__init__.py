"""Models: one contract, several providers.

A model reference is `provider:name`. `resolve` turns it into a `ModelSpec`, a value that says which model it is `fetch`
makes sure that its files are here, so that a run never starts without its model; `open_model` builds the client, on the
worker that uses it. Every client has one coroutine:

    reply = await model.chat(request)

A client raises `CallFailed` for one call that did not work, and any other `ModelError` when no call can.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from simforge.errors import NotFound, UsageError
from simforge.types import USUAL, Access, ChatReply, ChatRequest

if TYPE_CHECKING:
    from simforge.models.admission import Bounds


class Model(Protocol):
    """A client of one model."""

    async def chat(self, request: ChatRequest, dialogue: str = "") -> ChatReply:
        """Answer one request; safe to call many times at once. `dialogue` says which requests have a prefix in common,
        for models with several replicas; it changes no answer."""
        ...

    async def close(self) -> None:
        """Let go of connections; what is shared in the process stays."""
        ...


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model it is, as a value."""

    reference: str
    "As the user wrote it."
    fingerprint: str
    "What is behind it: enters every request's key, so that a changed file is another model."
    licence: str
    "SPDX id, or `unknown`."
    about: str
    "A line for people."
    access: Access = USUAL
    "How its endpoint is asked."
    urls: tuple[str, ...] = ()
    "Where its endpoint is; of a `vllm` model, once its replicas are up."
    constrains: bool = False
    "Whether its endpoint keeps to the choices that it is given; known once it was checked."


PROVIDERS = ("local", "openai", "reward", "score", "scripted", "vllm")
"What stands before the colon of a reference."
SERVED = ("openai", "vllm")
"Those that are asked over HTTP."


def resolve(reference: str, access: Access = USUAL, served: str = "{}") -> ModelSpec:
    """What a reference means; `access` says how an endpoint is asked, `served` are the arguments (JSON) with which a
    `vllm` model is served: they decide what it answers, the number of its replicas does not.

    Raises `UsageError`, and `ModelError` where a file on the Hub has to be looked at.
    """
    provider, colon, name = reference.partition(":")
    if provider in PROVIDERS and not colon:
        raise UsageError(f"a model is written with a colon: {provider}: and what comes after it, not {reference!r}.")
    if provider not in PROVIDERS:
        hint = "A model is written provider:name, for example local:qwen2.5-coder-1.5b or scripted:"
        raise NotFound("model provider", provider, PROVIDERS, hint)
    if provider == "local":
        from simforge.models import weights

        return weights.resolve(name)
    if provider in ("openai", "score"):
        from simforge.models import endpoint

        return endpoint.resolve(name, access) if provider == "openai" else endpoint.resolve_scorer(name, access)
    if provider == "reward":
        from simforge.models import reward

        return reward.resolve(name)
    if provider == "vllm":
        if not name:
            raise UsageError("vllm: needs a model: vllm:NAME of the Hub, or a folder that the nodes have.")
        more = "" if served == access.body == "{}" else f"?{served}{access.body}"
        return ModelSpec(reference, f"vllm:{name}{more}", "unknown", f"{name}, served by vLLM", access)
    from simforge.models import scripted

    return scripted.resolve(name)


def fetch(spec: ModelSpec, choices: bool = False) -> ModelSpec:
    """Make sure that a model is there: a file in the cache (fetched where needed), an endpoint that knows key and
    model; gives the spec with what was learnt. Asked once per run, not by every worker; `choices` says whether the run
    will ask for them. Raises `ModelError`."""
    provider, _, name = spec.reference.partition(":")
    if provider in SERVED:
        from simforge.models import endpoint

        return endpoint.check(spec, choices)
    if provider == "score":
        from simforge.models import endpoint

        return endpoint.check_scorer(spec)
    if provider == "reward":
        from simforge.models import reward

        reward.check(name)
    if provider == "local":
        from simforge.models import weights

        weights.file_of(name)
    return spec


async def open_model(
    spec: ModelSpec, admit: Callable[[], Awaitable[None]] | None = None, bounds: Bounds | None = None
) -> Model:
    """The client of a model, in this process. A local model is loaded once per process and shared.

    `admit` waits, or raises where no call may be made any more; an endpoint asks it right before each. `bounds` are
    what an endpoint may be asked at once and in a minute.
    """
    provider, _, name = spec.reference.partition(":")
    if provider == "local":
        from simforge.models.local import LocalModel

        return await LocalModel.open(name)
    if provider in (*SERVED, "score"):
        from simforge.models.admission import FREE
        from simforge.models.endpoint import Endpoint, ScoringEndpoint

        kind = ScoringEndpoint if provider == "score" else Endpoint
        return await kind.open(spec, admit, bounds or FREE)
    if provider == "reward":
        from simforge.models.reward import RewardModel

        return await RewardModel.open(name)
    from simforge.models.scripted import ScriptedModel

    return ScriptedModel(name)
