"""Candidates: asks for answers to one prefix that are given different information about the
person.

`plan_answers` decides which answers a turn needs; `request_answers` asks for them. Opposite
people of a group who share a prefix ask for the same texts (one person's `own` is the other's
`opposite`). A request's seed follows from its content and the group's number, so both get the
same answers, labelled the other way round: a shared pair.

`find_flaw` is the quality gate: an answer that is empty, cut off, refuses or quotes its
steering is in no pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from simforge.catalog.templates import Generator
from simforge.identity import digest, rng
from simforge.models.calls import Calls, gather_or_cancel
from simforge.personas.spaces import Space
from simforge.recipe.conditions import CONDITIONS, SteeringRequest
from simforge.recipe.schema import Candidates, Variant
from simforge.recipe.setup import Setup
from simforge.types import Candidate, ChatReply, Completion, Message, Scenario


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """One request for answers."""

    variant: Variant
    dimension: str | None
    steering: str
    samples: int
    "Number of answers; a model that supports it draws all for one reading of the prompt."


def contrast_dimensions(
    settings: Candidates, space: Space, scenario: Scenario, seed: int, turn: int
) -> list[str | None]:
    """Returns the dimensions that a turn compares. With rotation, people who share a prompt
    start with the same dimension."""
    names = space.wanted_dimensions(scenario.persona.profile)
    if settings.contrast == "whole":
        return [None]
    if settings.contrast == "all":
        return list(names)
    start = rng(
        seed, "contrast", scenario.prompt.id if scenario.prompt else scenario.key
    ).randrange(len(names))
    return [names[(start + turn) % len(names)]]


def plan_answers(
    variants: Sequence[Variant],
    samples: int,
    request: SteeringRequest,
) -> list[AnswerRequest]:
    """Plans the answers that a turn needs, in the recipe's order."""
    return [
        AnswerRequest(variant, steering.dimension, steering.text, samples)
        for variant in variants
        for steering in variant.definition.steer(request)
    ]


async def request_answers(
    requests: Sequence[AnswerRequest],
    branch_id: str,
    turn: int,
    prefix: tuple[Message, ...],
    scenario: Scenario,
    setup: Setup,
    calls: Calls,
) -> list[Candidate]:
    """Asks for all answers of a turn; revisions of plain answers wait for these."""
    shared = setup.recipe.candidates.shared == "everyone"
    context = _TurnContext(
        branch_id, turn, prefix, "" if shared else f"/{scenario.group}", setup, calls
    )
    candidates_by_number: dict[int, list[Candidate]] = {}
    revised = next(
        (
            r.variant.definition.revises
            for r in requests
            if r.variant.definition.revises
        ),
        "",
    )
    for is_revision in (False, True):
        numbers = [
            number
            for number, request in enumerate(requests)
            if bool(request.variant.definition.revises) is is_revision
        ]
        answers_to_revise = [
            candidate
            for candidates in candidates_by_number.values()
            for candidate in candidates
            if candidate.condition == revised
        ]
        drafts = [
            candidate
            for candidate in answers_to_revise
            if candidate.variant == answers_to_revise[0].variant
        ]
        pending = (
            context.revise(requests[n], drafts)
            if is_revision
            else context.ask(requests[n])
            for n in numbers
        )
        candidates_by_number |= zip(
            numbers, await gather_or_cancel(pending), strict=True
        )
    return [
        candidate
        for number in sorted(candidates_by_number)
        for candidate in candidates_by_number[number]
    ]


@dataclass(frozen=True, slots=True)
class _TurnContext:
    """The turn for which answers are requested, with what all of its requests share."""

    branch_id: str
    turn: int
    prefix: tuple[Message, ...]
    attempt: str
    "Separates requests: people of one group share answers, other groups get their own."
    setup: Setup
    calls: Calls

    async def ask(self, request: AnswerRequest) -> list[Candidate]:
        """Asks for the answers of one request."""
        if (
            request.steering
            and self.setup.writer is not None
            and not request.variant.definition.infers
        ):
            request = replace(
                request, steering=await self._write_system_message(request.steering)
            )
        reply = await self._ask_model(
            request,
            self.setup.assistant,
            {"steering": request.steering},
            request.samples,
        )
        return [
            self._candidate(request, number, completion)
            for number, completion in enumerate(reply.completions)
        ]

    async def _write_system_message(self, wishes: str) -> str:
        """Asks for a system message that describes what a person wants; people who want the
        same get the same message."""
        assert self.setup.writer is not None
        prompt = self.prefix[-1].content
        reply = await self.calls.ask(
            "writer", self.setup.writer.render({"wishes": wishes, "prompt": prompt})
        )
        return " ".join(reply.text.split()) or wishes

    async def revise(
        self, request: AnswerRequest, drafts: Sequence[Candidate]
    ) -> list[Candidate]:
        """Asks for a revision of each draft."""
        assert self.setup.reviser is not None
        reviser = self.setup.reviser
        variables_by_draft = [
            {"steering": request.steering, "draft": draft.text} for draft in drafts
        ]
        replies = await gather_or_cancel(
            self._ask_model(request, reviser, variables, 1)
            for variables in variables_by_draft
        )
        return [
            self._candidate(request, number, reply.completions[0])
            for number, reply in enumerate(replies)
        ]

    async def _ask_model(
        self,
        request: AnswerRequest,
        generator: Generator,
        variables: Mapping[str, str],
        count: int,
    ) -> ChatReply:
        variant_suffix = (
            "" if request.variant.name in CONDITIONS else f"/{request.variant.name}"
        )
        return await self.calls.ask(
            request.variant.model,
            generator.render(variables, self.prefix).at(request.variant.temperature),
            self.attempt + variant_suffix,
            n=count,
        )

    def _candidate(
        self, request: AnswerRequest, sample: int, completion: Completion
    ) -> Candidate:
        return Candidate(
            id=digest(
                [
                    "candidate",
                    self.branch_id,
                    self.turn,
                    request.variant.name,
                    request.dimension,
                    sample,
                ]
            ),
            turn=self.turn,
            variant=request.variant.name,
            condition=request.variant.condition,
            dimension=request.dimension,
            sample=sample,
            model=self.calls.model(request.variant.model),
            steering=request.steering,
            completion=completion,
        )
