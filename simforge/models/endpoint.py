"""The `openai` provider: any OpenAI-compatible endpoint.

`openai:NAME@BASE_URL` gives the model's name and its URL; several URLs of one model are
separated by commas. The key is read from `OPENAI_API_KEY`, or from the variable that the recipe
names (see `keys`), and is stored nowhere else. Each call is one POST over a shared aiohttp session,
which needs a tenth of the CPU time of the `openai` package.

The calls of a dialogue go to one URL as long as it is not much busier than the others, so that
the prefix cache is used. 429, 5xx, lost connections, hung calls and answers that broke off are
retried a limited number of times. A wrong key, model or URL, an empty account, or a server that
refuses every first call stops the run with the server's own message. Redirects are not followed:
prompts and keys would follow them. A `vllm` model is called in the same way, at the URLs of its
replicas.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Self

from simforge.errors import CallFailed, EndpointDown, MalformedReply, ModelError
from simforge.identity import digest
from simforge.models import addresses, keys, replies
from simforge.models.contract import ModelSpec
from simforge.models.rate_limits import (
    MAX_IN_FLIGHT,
    UNLIMITED,
    UNREACHABLE_TIMEOUT,
    Bounds,
    Gate,
    GateState,
    TokenBucket,
    backoff,
)
from simforge.models.refusals import read_refusal
from simforge.models.replies import error_text
from simforge.types import (
    DEFAULT_ACCESS,
    Access,
    ChatReply,
    ChatRequest,
    JsonObject,
)

if TYPE_CHECKING:
    import aiohttp


Admit = Callable[[], Awaitable[None]]


log = logging.getLogger("simforge")


MAX_ATTEMPTS = 8
"Maximum number of attempts for one call."


MAX_REFUSALS = 64
"Maximum number of refusals of one call by an endpoint that serves other calls."


MAX_MALFORMED = 3
"Maximum number of attempts whose answers are malformed: they cost as much as good ones."


MAX_FIRST_REFUSALS = 5
"Number of refused calls (400, 422) after which a server that never answered is given up."


KEEP_ALIVE = 3.0
"Seconds for which an idle connection is kept. vLLM closes it after 5 s; later requests fail."


MAX_IMBALANCE = 4
"A dialogue leaves its URL if that has this many more calls than the least busy one."


URL_POLL_SECONDS = 0.2
"Seconds between two checks for a URL while a model has none."


CONNECT_TIMEOUT = 10.0
"Seconds that opening a connection may take."


MAX_REMEMBERED_DIALOGUES = 65_536
"Maximum number of dialogues whose URL is remembered."


OPTIONAL_FIELDS = (
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
"Fields that can be left out of a request."


TOP_LOGPROBS = 20
"Number of alternatives requested for the first token of a choice; OpenAI's maximum."


OVERLOADED_STATUSES = (429, 503, 529)


FATAL_STATUSES = (401, 402, 403, 404)


def resolve(
    name: str,
    access: Access = DEFAULT_ACCESS,
    provider: str = "openai",
    example: str = "openai:qwen3@http://localhost:8000/v1",
    default_url: str = "",
) -> ModelSpec:
    """Return the spec of an endpoint's model, identified by its name, its URLs and the extra
    fields of every request. Raises `UsageError`."""
    address = addresses.parse(name, provider, example, default_url)
    # the fields may hold a secret, and the fingerprint is stored with the data
    suffix = "" if access.body == "{}" else f"?{digest(access.body)}"
    return ModelSpec(
        reference=f"{provider}:{name}",
        fingerprint=f"{provider}:{address.model}@{','.join(sorted(address.urls))}{suffix}",
        licence="unknown",
        about=f"{address.model} at {', '.join(address.urls)}",
        access=access,
        model=address.model,
        urls=address.urls,
    )


@dataclass(slots=True)
class _Call:
    """One call in progress: its request, and the result of its attempts so far."""

    body: JsonObject
    payload: bytes
    max_tokens: int
    "Maximum number of tokens in the answer."
    attempts: int = 0
    "Attempts that count towards `MAX_ATTEMPTS`."
    pauses: int = 0
    refusals: int = 0
    timeouts: int = 0
    malformed: int = 0
    problem: str = "no attempt"
    retry_now: bool = False
    "True if the call is to be retried without a pause."
    retry_after: float | None = None
    "Seconds that the server asked the client to wait."


class Endpoint:
    """A model behind one or more URLs, as a client."""

    path = "/chat/completions"
    "Path appended to a URL."

    def __init__(
        self,
        spec: ModelSpec,
        session: aiohttp.ClientSession,
        admit: Admit | None,
        bounds: Bounds,
    ) -> None:
        self._name, self._session, self._admit = spec.model, session, admit
        key = keys.read_key(spec.access)
        self._redact = keys.Redactor(spec.access)
        self._headers = {
            "Authorization": f"Bearer {key or 'none'}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            **dict(spec.access.headers),
        }
        self._extra_body: JsonObject = json.loads(spec.access.body)
        self._max_in_flight = float(bounds.in_flight or MAX_IN_FLIGHT)
        self._workers = bounds.workers
        self._token_bucket = (
            TokenBucket(bounds.tokens_per_minute) if bounds.tokens_per_minute else None
        )
        self._gates: dict[str, Gate] = {}
        self.set_urls(spec.urls)
        self._home_urls: OrderedDict[str, str] = OrderedDict()
        "The current URL of each dialogue."
        self._enforces_choices = spec.enforces_choices
        self._unsupported_fields: set[str] = set()
        "Fields that the server does not accept."
        self._renamed_fields: dict[str, str] = {}
        self._folds_system_messages = False
        "True if the server's chat template has no system role."
        self._first_refusals = 0
        "Calls that were refused as invalid before any was answered."

    @classmethod
    async def open(
        cls, spec: ModelSpec, admit: Admit | None = None, bounds: Bounds = UNLIMITED
    ) -> Self:
        """Open a session. `admit` is awaited right before every POST and raises where no more
        may be sent."""
        import aiohttp

        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
        jar = aiohttp.DummyCookieJar()
        session = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            cookie_jar=jar,
            skip_auto_headers=("User-Agent",),
            auto_decompress=False,
        )
        return cls(spec, session, admit, bounds)

    async def close(self) -> None:
        await self._session.close()

    def set_urls(self, urls: tuple[str, ...]) -> None:
        """Use these URLs from now on; what has been learnt about URLs that stay is kept."""
        if set(urls) != set(self._gates):
            self._gates = {
                url: self._gates.get(url)
                or Gate(self._max_in_flight / len(urls), workers=self._workers)
                for url in urls
            }
            self._post_urls = {url: addresses.route(url, self.path) for url in urls}

    @property
    def gates(self) -> dict[str, GateState]:
        """The state of each URL's gate."""
        waiting = self._token_bucket.waiting if self._token_bucket is not None else 0
        return {
            url: replace(gate.state, demand=gate.demand + waiting)
            for url, gate in self._gates.items()
        }

    def set_share(self, url: str, factor: float, max_in_flight: float) -> None:
        """Apply this worker's share of the calls in flight at one URL."""
        if url in self._gates:
            self._gates[url].set_share(factor, max_in_flight)

    def set_token_rate(self, rate: float) -> None:
        """Apply this worker's share of the tokens per second."""
        if self._token_bucket is not None:
            self._token_bucket.rate = rate

    async def chat(self, request: ChatRequest, dialogue: str = "") -> ChatReply:
        body = self._body(request)
        if request.choices:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
            if self._enforces_choices:
                body["structured_outputs"] = {"choice": list(request.choices)}
        elif request.schema is not None:
            schema = {
                "name": "answer",
                "schema": json.loads(request.schema),
                "strict": True,
            }
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return await self._post(
            body,
            request,
            dialogue,
            lambda answer: replies.parse_reply(answer, request.choices),
        )

    def _body(self, request: ChatRequest) -> JsonObject:
        sampling = request.sampling
        body: JsonObject = {
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
        return body | self._extra_body

    def _encode(self, body: JsonObject) -> bytes:
        """Encode a body for sending, without the fields that the server does not accept."""
        if self._folds_system_messages:
            body = {**body, "messages": _fold_system_message(body["messages"])}
        if self._unsupported_fields or self._renamed_fields:
            body = {
                self._renamed_fields.get(name, name): value
                for name, value in body.items()
                if name not in self._unsupported_fields
            }
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "replace"
        )

    async def _choose_url(self, dialogue: str) -> str:
        """Choose the URL for a call of a dialogue: the one that answered it before, since that
        has its prefix cached, unless it has over `MAX_IMBALANCE` calls more than the least busy
        one. Measured with two vLLM replicas on two cores: 74 % of the prompt tokens came from
        the cache and 6.2 calls/s were answered, against 60 % and 5.2 with a random URL for each
        call."""
        while not self._gates:  # all of its servers are being restarted
            await asyncio.sleep(URL_POLL_SECONDS)
        if len(self._gates) == 1:
            return next(iter(self._gates))
        usable = [
            url for url, gate in self._gates.items() if not gate.should_avoid
        ] or list(self._gates)
        least_busy = min(
            usable, key=lambda url: (self._gates[url].demand, hash((url, dialogue)))
        )
        home = self._home_urls.get(dialogue)
        if (
            home not in usable
            or self._gates[home].demand > self._gates[least_busy].demand + MAX_IMBALANCE
        ):
            home = self._home_urls[dialogue] = least_busy
            if len(self._home_urls) > MAX_REMEMBERED_DIALOGUES:
                self._home_urls.popitem(last=False)
        return home

    async def _post(
        self,
        body: JsonObject,
        request: ChatRequest,
        dialogue: str,
        parse: Callable[[JsonObject], ChatReply],
    ) -> ChatReply:
        """Return the parsed answer to one call, retrying while that can help."""
        call = _Call(body, self._encode(body), request.sampling.max_tokens)
        while call.attempts < MAX_ATTEMPTS and call.malformed < MAX_MALFORMED:
            call.retry_now, call.retry_after = False, None
            reply = await self._attempt_when_admitted(call, dialogue, parse)
            if reply is not None:
                return reply
            if not call.retry_now:
                call.pauses += 1
                await asyncio.sleep(backoff(call.pauses, call.retry_after))
        raise CallFailed(
            f"after {call.attempts + call.malformed} attempts: {call.problem}"
        )

    async def _attempt_when_admitted(
        self, call: _Call, dialogue: str, parse: Callable[[JsonObject], ChatReply]
    ) -> ChatReply | None:
        """Make one attempt when the token limit and the gate of the dialogue's URL admit it;
        `None` if it failed."""
        bucket, used = self._token_bucket, 0.0
        taken = (
            await bucket.take(len(call.payload), call.max_tokens)
            if bucket is not None
            else 0.0
        )
        try:
            url = await self._choose_url(dialogue)
            gate = self._gates[url]
            await gate.enter()
            try:
                if self._admit is not None:
                    await self._admit()
                if (
                    self._gates.get(url) is not gate
                ):  # the URLs of the model have changed while this call waited
                    call.retry_now = True
                    return None
                reply = await self._attempt(call, url, gate, parse)
            finally:
                gate.leave()
            if bucket is not None and reply is not None:
                used = bucket.record_usage(reply.prompt_tokens, reply.completion_tokens)
            return reply
        finally:
            if bucket is not None:
                bucket.refund(taken - used)

    async def _attempt(
        self,
        call: _Call,
        url: str,
        gate: Gate,
        parse: Callable[[JsonObject], ChatReply],
    ) -> ChatReply | None:
        """Send one POST; if it fails, record the failure in the call and in the gate."""
        import aiohttp

        started = time.monotonic()
        timeout = gate.deadline(call.timeouts)
        status = 0
        try:
            try:
                posted = self._session.post(
                    self._post_urls[url],
                    data=call.payload,
                    headers=self._headers,
                    allow_redirects=False,
                    proxy=addresses.proxy_for(url),
                )
                async with timeout, posted as response:
                    status = response.status
                    body = self._redact.body(await replies.read_body(response))
            finally:
                gate.end_deadline(timeout)
            if status == 200:
                answer = replies.parse_json(body)
                if not isinstance(answer, dict):
                    raise MalformedReply(
                        f"the answer has no message: {replies.excerpt(answer)}"
                    )
                status = _embedded_status(answer)
                if status == 200:
                    reply = parse(answer)
                    gate.record_answer(time.monotonic() - started)
                    return reply
            call.retry_after = _retry_after_seconds(response.headers.get("Retry-After"))
            call.problem = f"{url} answered {status}: {error_text(body)}"
            if 300 <= status < 400:
                target = self._redact.text(response.headers.get("Location", "nowhere"))
                call.problem = (
                    f"{url} answered {status}, a redirect to {target[:200]}; redirects are not "
                    "followed: give the URL of the server itself"
                )
            self._handle_error(call, gate, status, body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as lost:
            call.problem = f"{url} cannot be reached: {lost}"
            # limited by the endpoint timeout, not by attempts
            gate.record_unreachable()
            silent = min(
                (other.unreachable_seconds for other in self._gates.values()),
                default=0.0,
            )
            if silent > UNREACHABLE_TIMEOUT:
                raise EndpointDown(
                    f"{call.problem} (for {silent:.0f} s). All answers so far are kept."
                ) from None
        except TimeoutError:
            waited = time.monotonic() - started
            call.problem = f"{url} did not answer within {waited:.0f} s"
            call.timeouts += 1
            gate.record_timeout(started)
            # others are answered: the gate's queue is pause enough, and this call's turn will come
            call.retry_now = True
            if not gate.answered_since(started) or call.timeouts >= MAX_REFUSALS:
                call.attempts += 1
        except MalformedReply as malformed:
            call.malformed += 1
            call.problem = f"{url}: {malformed}"
            gate.record_error()
        except (aiohttp.ClientError, ValueError, ArithmeticError) as lost:
            call.attempts += 1
            call.problem = f"{url}: the answer was cut off ({type(lost).__name__})"
        gate.problem = call.problem
        return None

    def _handle_error(self, call: _Call, gate: Gate, status: int, body: bytes) -> None:
        """Handle an error response. Raises if a retry cannot help."""
        hopeless = (
            status in FATAL_STATUSES
            or status < 400
            or (status == 429 and read_refusal(body).is_about_quota)
        )
        if hopeless and gate.has_served:
            raise EndpointDown(
                f"{self._name}: {call.problem} (it served before). All answers so far are kept."
            )
        if hopeless:
            raise ModelError(f"{self._name}: {call.problem}")
        if status in (400, 422, 500) and self._adapt_request(
            call.body, body, call.payload
        ):
            call.payload, call.retry_now = self._encode(call.body), True
        elif status in OVERLOADED_STATUSES:
            gate.record_refusal()
            call.refusals += 1
            if (
                not gate.is_serving or call.refusals >= MAX_REFUSALS
            ):  # others are served, so this call will be
                call.attempts += 1
        elif status < 500 and status not in (408, 409, 425):
            if not gate.has_served:
                self._first_refusals += 1
            if self._first_refusals >= MAX_FIRST_REFUSALS:
                raise ModelError(
                    f"{self._name}: the server refuses every call so far: {call.problem}"
                )
            raise CallFailed(call.problem)
        else:
            gate.record_error()
            call.attempts += 1

    def _adapt_request(self, body: JsonObject, answer: bytes, payload: bytes) -> bool:
        """Adapt a refused request for all later calls: rename or drop a field, or fold the system
        message into the first user message. Returns whether the request can be retried.

        For example, reasoning models accept no temperature, some servers no seed, and Gemma's
        chat template no system role. An adaptation is logged once.
        """
        refusal = read_refusal(answer, _message_texts(body))
        if "max_tokens" not in self._renamed_fields and refusal.asks_for(
            "max_completion_tokens", "max_tokens"
        ):
            self._renamed_fields["max_tokens"] = "max_completion_tokens"
            return True
        if (
            refusal.refuses_system_role
            and not self._folds_system_messages
            and any(message["role"] == "system" for message in body.get("messages", ()))
        ):
            self._folds_system_messages = True
            log.warning(
                "%s has no system role: its instructions are put before the first message (%s)",
                self._name,
                refusal.message[:120],
            )
            return True
        for name in OPTIONAL_FIELDS:
            if (
                name in body
                and name not in self._unsupported_fields
                and refusal.blames(name)
            ):
                self._unsupported_fields.add(name)
                log.warning(
                    "%s does not take %s: the field is left out (%s)",
                    self._name,
                    name,
                    refusal.message[:120],
                )
                return True
        # true if another call has adapted the fields in the meantime
        return self._encode(body) != payload


def _message_texts(body: JsonObject) -> list[str]:
    return [message["content"] for message in body.get("messages", ())]


def _embedded_status(answer: JsonObject) -> int:
    """Return the status of an answer with the HTTP status 200: that of an error inside it, as
    routers report the failures of the servers behind them."""
    error = answer.get("error")
    if error is None or answer.get("choices"):
        return 200
    code = error.get("code") if isinstance(error, dict) else None
    try:
        status = int(code) if isinstance(code, int | str) else 0
    except ValueError:
        status = 0
    return status if 400 <= status < 600 else 502


def _fold_system_message(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Put the text of system messages before the first user message."""
    instructions = [m["content"] for m in messages if m["role"] == "system"]
    others = [dict(m) for m in messages if m["role"] != "system"]
    for message in others:
        if message["role"] == "user":
            message["content"] = "\n\n".join([*instructions, message["content"]])
            return others
    return [{"role": "user", "content": "\n\n".join(instructions)}, *others]


def _retry_after_seconds(header: str | None) -> float | None:
    """Parse `Retry-After`: seconds, or a date."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return seconds if 0 <= seconds < float("inf") else None
