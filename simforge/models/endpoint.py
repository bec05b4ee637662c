"""The `openai` provider: any OpenAI-compatible endpoint.

`openai:NAME@BASE_URL` names the model and where it is; several URLs of one model are joined by commas. The key comes
from `OPENAI_API_KEY`, or from the variable that the recipe names, and appears nowhere else. The `openai` package does
what it is for, checking key and model before anything starts; each call is one POST over a shared aiohttp session,
which costs a tenth of the package's own CPU time.

A dialogue's calls go to one URL while it is not much busier than the others, so that its prefix cache hits: the URL is
chosen by the first messages, which a dialogue's calls have in common. 429, 5xx, lost connections and hung calls are
asked again within bounds; a wrong key, model or URL stops the run with the server's own words.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from simforge.errors import CallFailed, EndpointDown, ModelError, UsageError, nearest
from simforge.models import ModelSpec
from simforge.models.admission import PATIENCE, Gate, backoff
from simforge.types import USUAL, Access, ChatReply, ChatRequest, Finish

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger("simforge")

ATTEMPTS = 8
"Most times that one call is tried."
REFUSALS = 64
"Most times that one call is turned away by an endpoint that serves others."
PROBES = 3
"Times that a server may fail to keep to choices before it is taken not to know them."
KEEP_ALIVE = 3.0
"Seconds that an idle connection is kept: vLLM closes its end after 5, and a request on a closed one is lost."
MARGIN = 8
"Calls by which a dialogue's own URL may be busier than the least busy one before the call goes there."
TOP = 20
"Alternatives asked for with the first token of a choice; the most that OpenAI gives."
OVERLOADED = (429, 503, 529)
FATAL = (401, 403, 404)


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed reference."""

    model: str
    urls: tuple[str, ...]


def parse(name: str) -> Address:
    """`NAME@URL[,URL...]`; without a URL, `OPENAI_BASE_URL` or OpenAI's own. Raises `UsageError`."""
    model, at, urls = name.rpartition("@")
    if not at:
        model, urls = name, os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
    found = tuple(url.strip().rstrip("/") for url in urls.split(",") if url.strip())
    if not model or not found or not all(re.match(r"https?://[^/]+", url) for url in found):
        raise UsageError(
            f"openai:{name} must be written openai:NAME@URL, for example openai:qwen3@http://localhost:8000/v1."
        )
    return Address(model, found)


def resolve(name: str, access: Access = USUAL) -> ModelSpec:
    """The spec of an endpoint's model: told by its name, where it is asked, and what every request has besides."""
    address = parse(name)
    about = f"{address.model} at {', '.join(address.urls)}"
    more = "" if access.body == "{}" else f"?{access.body}"
    fingerprint = f"openai:{address.model}@{','.join(sorted(address.urls))}{more}"
    return ModelSpec(f"openai:{name}", fingerprint, "unknown", about, access)


class Endpoint:
    """A model behind one or more URLs, as a client."""

    def __init__(
        self, address: Address, access: Access, session: aiohttp.ClientSession, admit: Callable[[], None] | None
    ) -> None:
        self._address, self._session, self._admit = address, session, admit
        key = os.environ.get(access.key) or "none"
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **dict(access.headers)}
        self._more: dict[str, Any] = json.loads(access.body)
        self._gates = {url: Gate() for url in address.urls}
        self._constrains: bool | None = None
        "Whether the server keeps to `structured_outputs`; unknown until it was asked once."
        self._asking = asyncio.Lock()
        self._newer = False
        "Whether the model wants `max_completion_tokens` in place of `max_tokens`."

    @classmethod
    async def open(cls, name: str, access: Access = USUAL, admit: Callable[[], None] | None = None) -> Endpoint:
        """Open a session. `admit` is asked right before every POST and raises where no more may be sent (a budget)."""
        import aiohttp

        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE)
        session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        return cls(parse(name), access, session, admit)

    async def close(self) -> None:
        await self._session.close()

    async def chat(self, request: ChatRequest) -> ChatReply:
        if request.choices:
            return await self._choose(request)
        body = self._body(request)
        if request.schema is not None:
            schema = json.loads(request.schema)
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema, "strict": True},
            }
        return _reply(await self._post(body, request))

    async def _choose(self, request: ChatRequest) -> ChatReply:
        """One of the choices, with their probabilities where the server tells those of the first token."""
        if self._constrains is None:
            async with self._asking:
                if self._constrains is None:
                    self._constrains = await self._keeps_to_choices(request)
        body = {**self._body(request), "logprobs": True, "top_logprobs": TOP}
        if self._constrains:
            body["structured_outputs"] = {"choice": list(request.choices)}
        answer = await self._post(body, request)
        reply = _reply(answer)
        return ChatReply(
            reply.text,
            reply.finish,
            reply.prompt_tokens,
            reply.cached_tokens,
            reply.completion_tokens,
            _choice_probabilities(answer, request.choices),
        )

    async def _keeps_to_choices(self, request: ChatRequest) -> bool:
        """Ask for a word that nobody would say: a server that ignores the constraint says something else."""
        kept = False
        for probe in range(PROBES):
            body = self._body(request)
            body |= {"structured_outputs": {"choice": ["zyxwv", "vwxyz"]}, "seed": probe}
            said = _reply(await self._post(body, request)).text.strip()
            kept = kept or said in ("zyxwv", "vwxyz")
        if not kept:
            log.warning(
                "%s does not keep to choices: verdicts are read from its words, and what cannot be read is unreadable",
                self._address.model,
            )
        return kept

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._address.model,
            "messages": [message.as_dict() for message in request.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_completion_tokens" if self._newer else "max_tokens": sampling.max_tokens,
            "seed": request.seed,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        return body | self._more

    def _url(self, request: ChatRequest) -> str:
        """The URL of a dialogue's first messages, unless it is much busier than the least busy one."""
        urls = self._address.urls
        if len(urls) == 1:
            return urls[0]
        start = "\x1f".join(message.content for message in request.messages[:2])
        own = max(urls, key=lambda url: hashlib.blake2b((url + start).encode(), digest_size=8).digest())
        least = min(urls, key=lambda url: (self._gates[url].avoided, self._gates[url].in_flight))
        own_gate, least_gate = self._gates[own], self._gates[least]
        return least if own_gate.avoided or own_gate.in_flight > least_gate.in_flight + MARGIN else own

    async def _post(self, body: dict[str, Any], request: ChatRequest) -> dict[str, Any]:
        """The answer to one call, asked again while that can help."""
        import aiohttp

        problem = "no attempt"
        attempt = refusals = timeouts = 0
        while attempt < ATTEMPTS:
            url = self._url(request)
            gate = self._gates[url]
            told: float | None = None
            async with gate.place():
                if self._admit is not None:
                    self._admit()
                start = time.monotonic()
                try:
                    async with gate.deadline(timeouts):
                        sent = self._session.post(f"{url}/chat/completions", json=body, headers=self._headers)
                        async with sent as response:
                            text = await response.text()
                            status, told = response.status, _seconds(response.headers.get("Retry-After"))
                    if status == 200:
                        answer = json.loads(text)
                        gate.answered(time.monotonic() - start)
                        return answer  # type: ignore[no-any-return]
                    problem = f"{url} answered {status}: {_words(text)}"
                    if status in OVERLOADED:
                        gate.refused()
                        refusals += 1
                        if gate.serves and refusals < REFUSALS:
                            attempt -= 1  # others are served: this one's turn comes
                    elif status in FATAL:
                        raise ModelError(f"{self._address.model}: {problem}")
                    elif status == 400 and "max_completion_tokens" in text and "max_tokens" in body:
                        self._newer = True
                        body["max_completion_tokens"] = body.pop("max_tokens")
                        continue
                    elif status < 500 and status not in (408, 409, 425):
                        raise CallFailed(problem)
                    else:
                        gate.reached()
                except TimeoutError:
                    timeouts += 1
                    problem = f"{url} did not answer within {gate.seconds:.0f} s"
                except aiohttp.ClientConnectorError as lost:
                    problem = f"{url} cannot be reached: {lost}"
                    gate.unreachable()
                    silent = min(one.gone for one in self._gates.values())
                    if silent > PATIENCE:
                        raise EndpointDown(f"{problem} (for {silent:.0f} s). What was answered is kept.") from None
                    attempt -= 1  # waiting for an endpoint to come back is bounded by its patience, not by attempts
                except (aiohttp.ClientError, ValueError) as lost:
                    problem = f"{url}: the answer was cut off or is not JSON ({type(lost).__name__})"
            attempt += 1
            await asyncio.sleep(backoff(max(0, attempt), told))
        raise CallFailed(f"after {ATTEMPTS} attempts: {problem}")


def check(name: str, access: Access) -> None:
    """Ask each URL for its models, with the `openai` package; raises `ModelError` where key, URL or model are wrong."""
    address = parse(name)
    key = os.environ.get(access.key, "")
    for url in address.urls:
        asyncio.run(_checked(url, address.model, access, key))


async def _checked(url: str, model: str, access: Access, key: str) -> None:
    """Raise `ModelError` where key, URL or model are wrong; a server that lists no models is taken at its word."""
    import openai

    client = openai.AsyncOpenAI(
        base_url=url, api_key=key or "none", default_headers=dict(access.headers), max_retries=1, timeout=20
    )
    try:
        names = [one.id async for one in client.models.list()]
    except openai.AuthenticationError as problem:
        hint = f"set {access.key}" if not key else f"look at {access.key}"
        raise ModelError(f"{url} refuses the key ({problem.message}): {hint}.") from None
    except openai.APIConnectionError as problem:
        raise ModelError(f"{url} cannot be reached: {problem.__cause__ or problem}. Is the server up?") from None
    except openai.APIStatusError as problem:
        if problem.status_code in (403,):
            raise ModelError(f"{url} refuses: {problem.message}") from None
        return
    finally:
        await client.close()
    if names and model not in names:
        raise ModelError(f"{url} has no model {model!r}{nearest(model, names)}")


def _reply(answer: dict[str, Any]) -> ChatReply:
    """What a server answered; raises `CallFailed` where it is not an answer."""
    try:
        choice = answer["choices"][0]
        text = choice["message"].get("content") or ""
        if isinstance(text, list):
            text = "".join(part.get("text") or "" for part in text)
        usage = answer.get("usage") or {}
        finish = Finish.length if choice.get("finish_reason") == "length" else Finish.stop
        said, thinking = _spoken(text)
    except (KeyError, IndexError, TypeError, AttributeError):
        raise CallFailed(f"the answer has no message: {_words(json.dumps(answer))}") from None
    return ChatReply(
        text=said,
        finish=Finish.length if thinking else finish,
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        cached_tokens=int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
    )


def _spoken(text: str) -> tuple[str, bool]:
    """What is said after the thinking, and whether the thinking never ended. Some templates open the tag themselves."""
    said = text.rpartition("</think>")[2]
    return ("", True) if "<think>" in said else (said.strip(), False)


def _choice_probabilities(answer: dict[str, Any], choices: tuple[str, ...]) -> dict[str, float]:
    """Probabilities of the choices from the first token's alternatives; empty where the server tells none.

    A token counts for the one choice that it begins; tokens that begin none or several are left out.
    """
    try:
        top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    except (KeyError, IndexError, TypeError):
        return {}
    found = dict.fromkeys(choices, 0.0)
    for one in top if isinstance(top, list) else []:
        token, logprob = (one.get("token"), one.get("logprob")) if isinstance(one, dict) else (None, None)
        word = str(token or "").strip().lower()
        begun = [choice for choice in choices if word and choice.lower().startswith(word)]
        if len(begun) == 1 and isinstance(logprob, int | float):
            found[begun[0]] += math.exp(logprob)
    total = sum(found.values())
    return {choice: share / total for choice, share in found.items()} if total > 0 else {}


def _seconds(header: str | None) -> float | None:
    """`Retry-After` in seconds; dates are not read."""
    try:
        seconds = float(header) if header else -1.0
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _words(text: str) -> str:
    """The server's own words: an error's message, else the start of the answer."""
    try:
        error = json.loads(text)["error"]
        said = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError):
        said = text
    return " ".join(str(said).split())[:300]
