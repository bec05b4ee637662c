"""The `score` provider: a reward model behind one or more URLs.

`{"model": NAME, "messages": [...]}` is posted to the URL unchanged, as expected by vLLM's
`/pooling` and `/classify` and by several reward servers. The only number in the answer's `data` is
the score of the last message.
"""

from __future__ import annotations

import asyncio

from simforge.errors import CallFailed, ModelError
from simforge.models import addresses, replies
from simforge.models.contract import ModelSpec
from simforge.models.endpoint import Endpoint, resolve
from simforge.types import (
    DEFAULT_ACCESS,
    Access,
    ChatReply,
    ChatRequest,
    Finish,
    JsonObject,
    Message,
)

EXAMPLE = "score:my-reward-model@http://localhost:8000/pooling"


CHECK_TIMEOUT = 20.0
"Seconds that a server may take to score a short chat before a run."


def resolve_scorer(name: str, access: Access = DEFAULT_ACCESS) -> ModelSpec:
    """Return the spec of a reward model behind an endpoint; its URL is that of the scoring
    route itself."""
    return resolve(name, access, "score", EXAMPLE)


class ScoringEndpoint(Endpoint):
    """A client whose reply to a chat is the score of the last message."""

    path = ""

    async def chat(self, request: ChatRequest, dialogue: str = "") -> ChatReply:
        return await self._post(
            self._chat(request.messages), request, dialogue, _score_reply
        )

    async def probe(self, url: str, reference: str) -> None:
        """Have a short chat scored, once and with a short timeout. Raises `ModelError`."""
        import aiohttp

        messages = (
            Message("user", "Hello."),
            Message("assistant", "Hello, what can I do for you?"),
        )
        try:
            posted = self._session.post(
                url,
                json=self._chat(messages),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=CHECK_TIMEOUT),
                allow_redirects=False,
                proxy=addresses.proxy_for(url),
            )
            async with posted as answer:
                body = self._redact.body(await replies.read_body(answer))
            if answer.status != 200:
                raise ModelError(
                    f"{reference}: {url} answered {answer.status}: {replies.error_text(body)}"
                )
            replies.parse_score(replies.parse_json(body))
        except (aiohttp.ClientError, TimeoutError, OSError) as problem:
            reason = str(problem) or f"no answer in {CHECK_TIMEOUT:.0f} s"
            raise ModelError(
                f"{reference}: {url} cannot be reached: {reason}. Is the server up?"
            ) from None
        except CallFailed as problem:
            raise ModelError(f"{reference}: {problem}") from None

    def _chat(self, messages: tuple[Message, ...]) -> JsonObject:
        return {
            "model": self._name,
            "messages": [message.as_dict() for message in messages],
            **self._extra_body,
        }


def _score_reply(answer: JsonObject) -> ChatReply:
    score = replies.parse_score(answer)
    tokens = replies.token_counts(answer)["prompt_tokens"]
    return ChatReply(repr(score), Finish.stop, tokens, 0, 0)


def check_scorer(spec: ModelSpec) -> ModelSpec:
    """Have each URL score a short chat. Raises `ModelError` if the key, URL or model is wrong,
    or no score is returned."""

    async def probe() -> None:
        client = await ScoringEndpoint.open(spec)
        try:
            for url in spec.urls:
                await client.probe(url, spec.reference)
        finally:
            await client.close()

    asyncio.run(probe())
    return spec
