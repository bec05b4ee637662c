"""Who speaks in a dialogue: each role's model, and the ledger before it.

The dialogue asks a role and gets a reply; that replies are recorded, shared and counted is decided here and nowhere
else. `Roles` is built once per worker; `Calls` is one episode's view of it, which adds up what the episode used.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from simforge.errors import CallFailed
from simforge.generators import Generator
from simforge.identity import derived_seed, sha256
from simforge.ledger import Ledger
from simforge.models import SERVED, Model, ModelSpec
from simforge.money import Purse
from simforge.types import ChatReply, ChatRequest, Message, Role, Sampling, Usage

T = TypeVar("T")
SERVED_AS = tuple(f"{provider}:" for provider in SERVED)
"How references of models begin that may draw several answers for one reading of the prompt."


@dataclass(slots=True)
class Roles:
    """The models of a run by role, behind one ledger."""

    models: Mapping[Role, tuple[ModelSpec, Model]]
    ledger: Ledger
    seed: int
    on_reply: Callable[[Usage], None] | None = None
    "Hears of every reply."
    purse: Purse | None = None
    "What new calls may cost."

    def calls(self, dialogue: str = "") -> Calls:
        """What one episode asks; the models' replicas are told its key, so that one of them keeps its prefixes."""
        return Calls(self, dialogue)


@dataclass(slots=True)
class Calls:
    """What one episode asks, and what that took."""

    roles: Roles
    dialogue: str = ""
    usage: dict[str, Usage] = field(default_factory=dict)
    "By role; counts a reply from the ledger like any other, so that it does not depend on earlier runs."

    def model(self, role: Role) -> str:
        """The reference of a role's model."""
        return self.roles.models[role][0].reference

    async def ask(
        self,
        role: Role,
        generator: Generator,
        variables: Mapping[str, Any],
        history: Sequence[Message] = (),
        speaker: str = "assistant",
        attempt: str = "",
        schema: str | None = None,
        n: int = 1,
        notes: Sequence[Mapping[str, Any]] = (),
        hint: str | None = None,
        temperature: float | None = None,
    ) -> ChatReply:
        """One reply. The seed follows from what is asked and from `attempt`, so equal questions are one call.

        `schema` is JSON Schema as text, which the reply shall satisfy; `n` answers are drawn for it. `notes` and `hint`
        are the generator's affair; `temperature` stands in place of its own.
        """
        spec, model = self.roles.models[role]
        messages = generator.messages(variables, history, speaker, notes, hint)
        sampling = generator.sampling
        key = sha256(*(part for one in messages for part in (one.role, one.content))).hexdigest()[:16] + attempt
        request = ChatRequest(
            model=spec.fingerprint,
            messages=messages,
            sampling=sampling if temperature is None else replace(sampling, temperature=temperature),
            seed=derived_seed(self.roles.seed, role, key),
            schema=schema,
            choices=tuple(generator.front.choices) if schema is None else (),
            n=n,
        )
        drawn = [await self._answer(spec, model, request)] if n == 1 or spec.reference.startswith(SERVED_AS) else []
        have = sum(len(one.said) for one in drawn)
        if have < n:  # one at a time, by a model that draws no more; each is kept as it comes
            rest = [replace(request, n=1, seed=request.seed + number) for number in range(have, n)]
            drawn += await asyncio.gather(*(self._answer(spec, model, one) for one in rest))
        reply = together(drawn) if len(drawn) > 1 else drawn[0]
        used = replace(Usage.of(reply), calls=len(drawn))
        self.usage[role] = self.usage.get(role, Usage()) + used
        if self.roles.on_reply is not None:
            self.roles.on_reply(used)
        return reply

    async def score(self, role: Role, messages: tuple[Message, ...]) -> float:
        """The number that a model which scores gives the last message. Raises `CallFailed` where it is none."""
        spec, model = self.roles.models[role]
        request = ChatRequest(spec.fingerprint, messages, Sampling(0.0, 1.0, 1), 0)
        reply = await self._answer(spec, model, request)
        used = Usage.of(reply)
        self.usage[role] = self.usage.get(role, Usage()) + used
        if self.roles.on_reply is not None:
            self.roles.on_reply(used)
        try:
            number = float(reply.text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise CallFailed(f"{spec.reference} gave no number, but {reply.text[:80]!r}")
        return number

    async def _answer(self, spec: ModelSpec, model: Model, request: ChatRequest) -> ChatReply:
        """The ledger's reply, or a new one."""
        return (await self.roles.ledger.answer(request, lambda asked: self._paid(spec, model, asked)))[0]

    async def _paid(self, spec: ModelSpec, model: Model, request: ChatRequest) -> ChatReply:
        """A new call, within the budget."""
        purse = self.roles.purse
        if purse is None:
            return await model.chat(request, self.dialogue)
        cost = await purse.reserve(spec.reference, request)
        try:
            reply = await model.chat(request, self.dialogue)
            purse.pay(spec.reference, Usage.of(reply))
            return reply
        finally:
            purse.land(cost)


async def at_once(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in order; the first failure cancels the rest, so that a failed turn asks nothing more."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def together(replies: Sequence[ChatReply]) -> ChatReply:
    """Several replies to one request as one."""
    return replace(
        replies[0],
        prompt_tokens=sum(one.prompt_tokens for one in replies),
        cached_tokens=sum(one.cached_tokens for one in replies),
        completion_tokens=sum(one.completion_tokens for one in replies),
        thinking_tokens=sum(one.thinking_tokens for one in replies),
        answers=tuple(said for one in replies for said in one.said),
    )
