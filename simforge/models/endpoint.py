"""The `openai` provider: any OpenAI-compatible endpoint.

`openai:NAME@BASE_URL` names the model and where it is; several URLs of one model are joined by commas. The key comes
from `OPENAI_API_KEY`, or from the variable that the recipe names, and appears nowhere else. The `openai` package does
what it is for, checking key and model before anything starts; each call is one POST over a shared aiohttp session,
which costs a tenth of the package's own CPU time.

A dialogue's calls go to one URL while it is not much busier than the others, so that its prefix cache hits. 429, 5xx,
lost connections and hung calls are asked again within bounds; a wrong key, model or URL stops the run with the server's
own words. A `vllm` model is asked in the same way, at the URLs of its replicas.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from simforge.errors import CallFailed, EndpointDown, ModelError, UsageError, nearest
from simforge.models import ModelSpec
from simforge.models.admission import FREE, MOST, PATIENCE, Bounds, Gate, GateState, Pace, backoff
from simforge.types import USUAL, Access, ChatReply, ChatRequest, Finish, Message, Said

if TYPE_CHECKING:
    import aiohttp
    import openai

Admit = Callable[[], Awaitable[None]]

log = logging.getLogger("simforge")

ATTEMPTS = 8
"Most times that one call is tried."
REFUSALS = 64
"Most times that one call is turned away by an endpoint that serves others."
PROBES = 3
"Times that a server may fail to keep to choices before it is taken not to know them."
KEEP_ALIVE = 3.0
"Seconds that an idle connection is kept: vLLM closes its end after 5, and a request on a closed one is lost."
MARGIN = 4
"Calls by which a dialogue's own URL may be busier than the least busy one before the dialogue moves there."
WAIT = 0.2
"Seconds between two looks for a model that has no URL at the moment."
CONNECT = 10.0
"Seconds that a connection may take."
HOMES = 65_536
"Dialogues whose URL is remembered."
CHECK = 20.0
"Seconds that a server may take to answer when key and model are checked."
OPTIONAL = (
    "seed",
    "n",
    "logprobs",
    "top_logprobs",
    "structured_outputs",
    "response_format",
    "temperature",
    "top_p",
    "stop",
)
"Fields that a request can do without."
TOP = 20
"Alternatives asked for with the first token of a choice; the most that OpenAI gives."
EXAMPLE = "score:my-reward-model@http://localhost:8000/pooling"
PLACES = ("score", "reward", "data", "probs")
"Where servers put a score."
OVERLOADED = (429, 503, 529)
FATAL = (401, 403, 404)


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed reference."""

    model: str
    urls: tuple[str, ...]


def parse(name: str, provider: str = "openai") -> Address:
    """`NAME@URL[,URL...]`; without a URL, `OPENAI_BASE_URL` or OpenAI's own. Raises `UsageError`."""
    model, at, urls = name.rpartition("@")
    if not at and provider == "openai":
        model, urls = name, os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
    found = tuple(url.strip().rstrip("/") for url in urls.split(",") if url.strip())
    if not model or not found or not all(re.match(r"https?://[^/]+", url) for url in found):
        like = {"openai": "openai:qwen3@http://localhost:8000/v1"}.get(provider, EXAMPLE)
        raise UsageError(f"{provider}:{name} must be written {provider}:NAME@URL, for example {like}.")
    return Address(model, found)


def resolve(name: str, access: Access = USUAL) -> ModelSpec:
    """The spec of an endpoint's model: told by its name, where it is asked, and what every request has besides."""
    address = parse(name)
    about = f"{address.model} at {', '.join(address.urls)}"
    more = "" if access.body == "{}" else f"?{access.body}"
    fingerprint = f"openai:{address.model}@{','.join(sorted(address.urls))}{more}"
    return ModelSpec(f"openai:{name}", fingerprint, "unknown", about, access, address.urls)


def resolve_scorer(name: str, access: Access = USUAL) -> ModelSpec:
    """The spec of a reward model behind an endpoint; its URL is that of the scoring itself."""
    address = parse(name, "score")
    about = f"{address.model} at {', '.join(address.urls)}"
    more = "" if access.body == "{}" else f"?{access.body}"
    fingerprint = f"score:{address.model}@{','.join(sorted(address.urls))}{more}"
    return ModelSpec(f"score:{name}", fingerprint, "unknown", about, access, address.urls)


def model_of(spec: ModelSpec) -> str:
    """The name by which a server knows the model."""
    provider, _, name = spec.reference.partition(":")
    return name if provider == "vllm" else parse(name, provider).model


@dataclass(slots=True)
class _Call:
    """One call on its way: what is sent, and what has come of it so far."""

    body: dict[str, Any]
    sent: bytes
    most: int
    "Tokens that the answer may have."
    attempts: int = 0
    "That count against `ATTEMPTS`."
    pauses: int = 0
    refusals: int = 0
    timeouts: int = 0
    problem: str = "no attempt"
    at_once: bool = False
    "Whether to try again without a pause."
    told: float | None = None
    "Seconds that the server asked to wait."


class Endpoint:
    """A model behind one or more URLs, as a client."""

    path = "/chat/completions"
    "What comes after a URL."

    def __init__(self, spec: ModelSpec, session: aiohttp.ClientSession, admit: Admit | None, bounds: Bounds) -> None:
        self._name, self._session, self._admit = model_of(spec), session, admit
        key = os.environ.get(spec.access.key) or "none"
        self._headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            **dict(spec.access.headers),
        }
        self._more: dict[str, Any] = json.loads(spec.access.body)
        self._most = float(bounds.in_flight or MOST)
        self._among = bounds.among
        self._pace = Pace(bounds.tokens_per_minute) if bounds.tokens_per_minute else None
        self._gates: dict[str, Gate] = {}
        self.move(spec.urls)
        self._homes: OrderedDict[str, str] = OrderedDict()
        "The URL of each dialogue."
        self._constrains = spec.constrains
        self._refused: set[str] = set()
        "Fields that the server does not take."
        self._renamed: dict[str, str] = {}

    @classmethod
    async def open(cls, spec: ModelSpec, admit: Admit | None = None, bounds: Bounds = FREE) -> Self:
        """Open a session. `admit` is awaited right before every POST and raises where no more may be sent."""
        import aiohttp

        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT)
        jar = aiohttp.DummyCookieJar()
        session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=jar, skip_auto_headers=("User-Agent",)
        )
        return cls(spec, session, admit, bounds)

    async def close(self) -> None:
        await self._session.close()

    def move(self, urls: tuple[str, ...]) -> None:
        """Ask these URLs from now on; what is known of those that stay is kept."""
        if set(urls) != set(self._gates):
            self._gates = {url: self._gates.get(url) or Gate(self._most / len(urls), among=self._among) for url in urls}
            self._posts = {url: f"{url}{self.path}" for url in urls}

    @property
    def gates(self) -> dict[str, GateState]:
        """What is known of each URL."""
        waiting = self._pace.waiting if self._pace is not None else 0
        return {url: replace(gate.state, demand=gate.demand + waiting) for url, gate in self._gates.items()}

    def share(self, url: str, factor: float, most: float) -> None:
        """Take on a part of what all workers may do at one URL."""
        if url in self._gates:
            self._gates[url].share(factor, most)

    def keep_pace(self, rate: float) -> None:
        """Take on a part of the tokens a second that all workers may use."""
        if self._pace is not None:
            self._pace.rate = rate

    async def chat(self, request: ChatRequest, dialogue: str = "") -> ChatReply:
        body = self._body(request)
        if request.choices:
            body |= {"logprobs": True, "top_logprobs": TOP}
            if self._constrains:
                body["structured_outputs"] = {"choice": list(request.choices)}
        elif request.schema is not None:
            schema = {"name": "answer", "schema": json.loads(request.schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        answer = await self._post(body, request, dialogue)
        reply = _reply(answer)
        if request.choices:
            return replace(reply, choice_probabilities=_choice_probabilities(answer, request.choices))
        return reply

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._name,
            "messages": [message.as_dict() for message in request.messages],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
            "seed": request.seed,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if request.n > 1:
            body["n"] = request.n
        return body | self._more

    def _sent(self, body: dict[str, Any]) -> bytes:
        """A body as it goes out: without what the server does not take."""
        if self._refused or self._renamed:
            body = {self._renamed.get(name, name): each for name, each in body.items() if name not in self._refused}
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")

    async def _home(self, dialogue: str) -> str:
        """The URL of a dialogue: the one that has answered it so far, whose prefix cache it hits, unless that is busier
        than the least busy one by more than `MARGIN` calls. Measured with two vLLM replicas on two cores: 74 % of the
        prompts' tokens from the cache and 6.2 calls/s, against 60 % and 5.2 with a random URL for each call."""
        while not self._gates:  # all of its servers are being started again
            await asyncio.sleep(WAIT)
        if len(self._gates) == 1:
            return next(iter(self._gates))
        usable = [url for url, gate in self._gates.items() if not gate.avoided] or list(self._gates)
        least = min(usable, key=lambda url: (self._gates[url].demand, hash((url, dialogue))))
        home = self._homes.get(dialogue)
        if home not in usable or self._gates[home].demand > self._gates[least].demand + MARGIN:
            home = self._homes[dialogue] = least
            if len(self._homes) > HOMES:
                self._homes.popitem(last=False)
        return home

    async def _post(self, body: dict[str, Any], request: ChatRequest, dialogue: str) -> dict[str, Any]:
        """The answer to one call, asked again while that can help."""
        call = _Call(body, self._sent(body), request.sampling.max_tokens)
        while call.attempts < ATTEMPTS:
            call.at_once, call.told = False, None
            answer = await self._in_turn(call, dialogue)
            if answer is not None:
                return answer
            if not call.at_once:
                call.pauses += 1
                await asyncio.sleep(backoff(call.pauses, call.told))
        raise CallFailed(f"after {ATTEMPTS} attempts: {call.problem}")

    async def _in_turn(self, call: _Call, dialogue: str) -> dict[str, Any] | None:
        """One attempt, once the pace and the gate of the dialogue's URL let it through; `None` where it failed."""
        pace, used = self._pace, 0.0
        taken = await pace.take(len(call.sent), call.most) if pace is not None else 0.0
        try:
            url = await self._home(dialogue)
            gate = self._gates[url]
            await gate.enter()
            try:
                if self._admit is not None:
                    await self._admit()
                if self._gates.get(url) is not gate:  # the model has moved while this call waited
                    call.at_once = True
                    return None
                answer = await self._attempt(call, url, gate)
            finally:
                gate.leave()
            if pace is not None and answer is not None:
                used = pace.heard(answer.get("usage") or {})
            return answer
        finally:
            if pace is not None:
                pace.settle(taken - used)

    async def _attempt(self, call: _Call, url: str, gate: Gate) -> dict[str, Any] | None:
        """One POST; where it fails, what that means for the call and for the gate."""
        import aiohttp

        start = time.monotonic()
        bound = gate.deadline(call.timeouts)
        try:
            try:
                posted = self._session.post(self._posts[url], data=call.sent, headers=self._headers)
                async with bound, posted as response:
                    text = await response.read()
            finally:
                gate.settled(bound)
            if response.status == 200:
                answer = json.loads(text)
                if isinstance(answer, dict):
                    gate.answered(time.monotonic() - start)
                    return answer
                raise ValueError("not an object")
            call.told = _seconds(response.headers.get("Retry-After"))
            call.problem = f"{url} answered {response.status}: {_words(text)}"
            self._refuse(call, gate, response.status, text)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as lost:
            call.problem = f"{url} cannot be reached: {lost}"  # bounded by patience with the endpoint, not by attempts
            gate.unreachable()
            silent = min((one.gone for one in self._gates.values()), default=0.0)
            if silent > PATIENCE:
                raise EndpointDown(f"{call.problem} (for {silent:.0f} s). What was answered is kept.") from None
        except TimeoutError:
            call.attempts += 1
            call.timeouts += 1
            call.problem = f"{url} did not answer within {gate.seconds:.0f} s"
        except (aiohttp.ClientError, ValueError) as lost:
            call.attempts += 1
            call.problem = f"{url}: the answer was cut off or is not JSON ({type(lost).__name__})"
        return None

    def _refuse(self, call: _Call, gate: Gate, status: int, text: bytes) -> None:
        """What an answer that is no answer means. Raises where asking again cannot help."""
        if status in FATAL and gate.has_served:
            raise EndpointDown(f"{self._name}: {call.problem} (it served before). What was answered is kept.")
        if status in FATAL:
            raise ModelError(f"{self._name}: {call.problem}")
        if status in (400, 422) and self._adapted(call.body, text, call.sent):
            call.sent, call.at_once = self._sent(call.body), True
        elif status in OVERLOADED:
            gate.refused()
            call.refusals += 1
            if not gate.serves or call.refusals >= REFUSALS:  # while others are served, this one's turn comes
                call.attempts += 1
        elif status < 500 and status not in (408, 409, 425):
            raise CallFailed(call.problem)
        else:
            gate.reached()
            call.attempts += 1

    def _adapted(self, body: dict[str, Any], text: bytes, sent: bytes) -> bool:
        """Whether a refused request can be asked in another way: a field renamed, or left out, for good.

        Reasoning models take no temperature, some servers no seed, and so on; what is left out is said once.
        """
        said = _words(text) + " " + _parameter(text)
        if "max_completion_tokens" in said and "max_tokens" not in self._renamed:
            self._renamed["max_tokens"] = "max_completion_tokens"
            return True
        for name in OPTIONAL:
            if name in body and name not in self._refused and re.search(rf"\b{name}\b", said):
                self._refused.add(name)
                log.warning("%s does not take %s: it is asked without (%s)", self._name, name, _words(text)[:120])
                return True
        return self._sent(body) != sent  # another call has learnt something meanwhile


class ScoringEndpoint(Endpoint):
    """A reward model behind one or more URLs: its reply to a chat is the number that it gives the last message.

    `{"model": NAME, "messages": [...]}` is posted to the URL as it stands, as vLLM's `/pooling` and `/classify` and
    several reward servers take it, and the only number of the answer's `data` is the score.
    """

    path = ""

    async def chat(self, request: ChatRequest, dialogue: str = "") -> ChatReply:
        answer = await self._post(self._chat(request.messages), request, dialogue)
        tokens = int((answer.get("usage") or {}).get("prompt_tokens") or 0)
        return ChatReply(repr(_score(answer)), Finish.stop, tokens, 0, 0)

    async def probe(self, url: str, reference: str) -> None:
        """Have a few words scored, once and for a short time. Raises `ModelError`."""
        import aiohttp

        words = (Message("user", "Hello."), Message("assistant", "Hello, what can I do for you?"))
        timeout = aiohttp.ClientTimeout(total=CHECK)
        try:
            posted = self._session.post(url, json=self._chat(words), headers=self._headers, timeout=timeout)
            async with posted as answer:
                text = await answer.read()
            if answer.status != 200:
                raise ModelError(f"{reference}: {url} answered {answer.status}: {_words(text)}")
            _score(json.loads(text))
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            said = str(problem) or f"no answer in {CHECK:.0f} s"
            raise ModelError(f"{reference}: {url} cannot be reached: {said}. Is the server up?") from None
        except (CallFailed, ValueError) as problem:
            raise ModelError(f"{reference}: {problem}") from None

    def _chat(self, messages: tuple[Message, ...]) -> dict[str, Any]:
        return {"model": self._name, "messages": [message.as_dict() for message in messages], **self._more}


def check_scorer(spec: ModelSpec) -> ModelSpec:
    """Have each URL score a few words. Raises `ModelError` where key, URL or model are wrong, or no score comes."""

    async def probe() -> None:
        client = await ScoringEndpoint.open(spec)
        try:
            for url in spec.urls:
                await client.probe(url, spec.reference)
        finally:
            await client.close()

    asyncio.run(probe())
    return spec


def _score(answer: Any) -> float:
    """The one number of an answer, in any of the places where servers put it. Raises `CallFailed` where there is none,
    or there are several: an embedding, or the classes of a classifier, are no reward."""
    found = answer.get("data", answer) if isinstance(answer, dict) else answer
    while isinstance(found, dict | list):
        inner = [found[name] for name in PLACES if name in found] if isinstance(found, dict) else found
        if (isinstance(found, list) and len(found) != 1) or not inner:
            break
        found = inner[0]
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        many = f"{len(found)} numbers" if isinstance(found, list) else "no number"
        raise CallFailed(f"the answer has {many} where one score is needed: {_words(json.dumps(answer))[:160]}")
    return float(found)


def check(spec: ModelSpec, choices: bool) -> ModelSpec:
    """Ask each URL for its models, with the `openai` package, and where `choices` will be asked for, whether the server
    keeps to them. Raises `ModelError` where key, URL or model are wrong."""
    return asyncio.run(_checked(spec, choices))


async def _checked(spec: ModelSpec, choices: bool) -> ModelSpec:
    key, name = os.environ.get(spec.access.key, ""), model_of(spec)
    for url in spec.urls:
        async with _client(url, spec.access, key) as client:
            await _known(client, url, name, spec.access, key)
    if not choices:
        return spec
    async with _client(spec.urls[0], spec.access, key) as client:
        return replace(spec, constrains=await _keeps_to_choices(client, name, json.loads(spec.access.body)))


def _client(url: str, access: Access, key: str) -> openai.AsyncOpenAI:
    import openai

    headers = dict(access.headers)
    return openai.AsyncOpenAI(
        base_url=url, api_key=key or "none", default_headers=headers, max_retries=5, timeout=CHECK
    )


async def _known(client: openai.AsyncOpenAI, url: str, model: str, access: Access, key: str) -> None:
    """Raise `ModelError` where key, URL or model are wrong; a server that lists no models is taken at its word."""
    import openai

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
    if names and model not in names:
        raise ModelError(f"{url} has no model {model!r}{nearest(model, names)}")


async def _keeps_to_choices(client: openai.AsyncOpenAI, model: str, more: dict[str, Any]) -> bool:
    """Ask for a word that nobody would say: a server that ignores the constraint, as vLLM ignores the names of older
    versions, says something else. Where it does, verdicts are read from its words."""
    import openai

    words = ("zyxwv", "vwxyz")
    for probe in range(PROBES):
        try:
            said = await client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": f"Answer with a number. ({probe})"}],
                max_tokens=8,
                extra_body={**more, "structured_outputs": {"choice": list(words)}},
            )
        except openai.APIStatusError:
            break  # it does not know the field
        except openai.APIConnectionError:
            continue
        if said.choices and _spoken(said.choices[0].message.content or "")[0] in words:
            return True
    log.warning("%s does not keep to choices: verdicts are read from its words, else they are unreadable", model)
    return False


def _reply(answer: dict[str, Any]) -> ChatReply:
    """What a server answered; raises `CallFailed` where it is not an answer."""
    try:
        usage = answer.get("usage") or {}
        read = [_answer(choice) for choice in answer["choices"]]
        completion = int(usage.get("completion_tokens") or 0)
        told = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
        share = sum(thought for _, thought, _ in read) / max(1, sum(length for _, _, length in read))
        first = read[0][0]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise CallFailed(f"the answer has no message: {_words(json.dumps(answer))}") from None
    return ChatReply(
        text=first.text,
        finish=first.finish,
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        cached_tokens=int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
        completion_tokens=completion,
        thinking_tokens=round(completion * share) if told is None else int(told),
        answers=tuple(said for said, _, _ in read) if len(read) > 1 else (),
    )


def _answer(choice: dict[str, Any]) -> tuple[Said, int, int]:
    """One answer without its thinking; the characters of the thinking, and of both."""
    message = choice["message"]
    text = message.get("content") or ""
    if isinstance(text, list):
        text = "".join(part.get("text") or "" for part in text)
    said, unfinished = _spoken(text)
    thought = len(text) - len(said) if unfinished or "</think>" in text else 0
    apart = len(message.get("reasoning_content") or message.get("reasoning") or "")
    cut = unfinished or choice.get("finish_reason") == "length"
    said = said.encode("utf-8", "replace").decode()  # half of a surrogate pair is no text
    return Said(said, Finish.length if cut else Finish.stop, None), thought + apart, len(text) + apart


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


def _words(text: str | bytes) -> str:
    """The server's own words: an error's message, else the start of the answer."""
    try:
        error = json.loads(text)["error"]
        said = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError):
        said = text if isinstance(text, str) else text.decode("utf-8", "replace")
    return " ".join(str(said).split())[:300]


def _parameter(text: bytes) -> str:
    """The field that an error is about, where the server names it."""
    try:
        return str(json.loads(text)["error"].get("param") or "")
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
