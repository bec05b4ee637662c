"""The models behind the roles of a dialogue, and the ledger in front of them.

The dialogue asks a role and gets a reply. How replies are recorded, shared and counted is
decided only in this module. `Roles` is built once per worker. `Calls` is the interface of one
episode to it, and adds up what the episode used.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from simforge.catalog.templates import RenderedPrompt
from simforge.errors import CallFailed
from simforge.identity import derived_seed, sha256
from simforge.models.budget import Budget
from simforge.models.contract import Model, ModelSpec
from simforge.models.ledger import Ledger
from simforge.models.providers import provider_of
from simforge.types import ChatReply, ChatRequest, Message, Role, Sampling, Usage

T = TypeVar("T")


@dataclass(slots=True)
class Roles:
    """The models of a run by role, behind one ledger."""

    models: Mapping[Role, tuple[ModelSpec, Model]]
    ledger: Ledger
    seed: int
    on_reply: Callable[[Usage], None] | None = None
    "Called after every reply."
    budget: Budget | None = None
    "Limit on the cost of new calls."

    def calls(self, dialogue: str = "") -> Calls:
        """Return the calls of one episode. Its key is passed to the models' replicas, so that
        the same replica keeps its prefixes cached."""
        return Calls(self, dialogue)


@dataclass(slots=True)
class Calls:
    """The calls of one episode, and their usage."""

    roles: Roles
    dialogue: str = ""
    usage: dict[str, Usage] = field(default_factory=dict)
    "Usage by role. Replies from the ledger count too, so it does not depend on earlier runs."

    def model(self, role: Role) -> str:
        """Return the reference of a role's model."""
        return self.roles.models[role][0].reference

    async def ask(
        self,
        role: Role,
        prompt: RenderedPrompt,
        attempt: str = "",
        schema: str | None = None,
        n: int = 1,
    ) -> ChatReply:
        """Ask for one reply. The seed is derived from the messages, the role and `attempt`, so
        equal requests are one call.

        `schema` is a JSON Schema, as text, that the reply must satisfy; it replaces the choices
        of the prompt. `n` is the number of answers to sample.
        """
        spec, model = self.roles.models[role]
        texts = (
            part
            for message in prompt.messages
            for part in (message.role, message.content)
        )
        request = ChatRequest(
            model=spec.fingerprint,
            messages=prompt.messages,
            sampling=prompt.sampling,
            seed=derived_seed(
                self.roles.seed, role, sha256(*texts).hexdigest()[:16] + attempt
            ),
            schema=schema,
            choices=prompt.choices if schema is None else (),
            n=n,
        )
        replies = (
            [await self._reply_to(spec, model, request, role)]
            if n == 1 or provider_of(spec.reference).draws_many
            else []
        )
        received = sum(len(partial.completions) for partial in replies)
        if received < n:
            # one call per answer, for a model that returns one at a time; each is recorded at once
            remaining = [
                replace(request, n=1, seed=request.seed + number)
                for number in range(received, n)
            ]
            replies += await asyncio.gather(
                *(self._reply_to(spec, model, single, role) for single in remaining)
            )
        reply = combine_replies(replies) if len(replies) > 1 else replies[0]
        used = replace(Usage.of(reply), calls=len(replies))
        self.usage[role] = self.usage.get(role, Usage()) + used
        if self.roles.on_reply is not None:
            self.roles.on_reply(used)
        return reply

    async def score(self, role: Role, messages: tuple[Message, ...]) -> float:
        """Return the score that a scoring model gives the last message. Raises `CallFailed` if
        the reply is not a number."""
        spec, model = self.roles.models[role]
        request = ChatRequest(spec.fingerprint, messages, Sampling(0.0, 1.0, 1), 0)
        reply = await self._reply_to(spec, model, request, role)
        used = Usage.of(reply)
        self.usage[role] = self.usage.get(role, Usage()) + used
        if self.roles.on_reply is not None:
            self.roles.on_reply(used)
        try:
            number = float(reply.text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise CallFailed(
                f"{spec.reference} gave no number, but {reply.text[:80]!r}"
            )
        return number

    async def _reply_to(
        self, spec: ModelSpec, model: Model, request: ChatRequest, role: Role
    ) -> ChatReply:
        """Return the reply from the ledger, or from a new call."""
        return (
            await self.roles.ledger.answer(
                request,
                lambda unanswered: self._call_within_budget(spec, model, unanswered),
                role,
            )
        )[0]

    async def _call_within_budget(
        self, spec: ModelSpec, model: Model, request: ChatRequest
    ) -> ChatReply:
        """Make a new call, within the budget."""
        budget = self.roles.budget
        if budget is None:
            return await model.chat(request, self.dialogue)
        cost = await budget.reserve(spec.reference, request)
        try:
            reply = await model.chat(request, self.dialogue)
            budget.charge(spec.reference, Usage.of(reply))
            return reply
        finally:
            budget.release(cost)


async def gather_or_cancel(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the results in order. The first failure cancels the rest, so that a failed turn
    makes no further calls."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def combine_replies(replies: Sequence[ChatReply]) -> ChatReply:
    """Combine several replies to one request into one."""
    return replace(
        replies[0],
        prompt_tokens=sum(reply.prompt_tokens for reply in replies),
        cached_tokens=sum(reply.cached_tokens for reply in replies),
        completion_tokens=sum(reply.completion_tokens for reply in replies),
        thinking_tokens=sum(reply.thinking_tokens for reply in replies),
        answers=tuple(
            completion for reply in replies for completion in reply.completions
        ),
    )
