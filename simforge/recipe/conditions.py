"""Conditions: the ways in which an assistant is steered before it answers.

A condition says what the assistant is told about the person, and what follows from that: whether
its answers follow the person's own wishes (a label by construction prefers those), whether it
speaks of one dimension at a time, and what it needs of the recipe. Nothing else decides by the
name of a condition.

    CONDITIONS.find("opposite").steer(request)  ->  [Steering("style", "Answer formally.")]

To add a condition, add an object to `CONDITIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from simforge.catalog.registry import Registry
from simforge.personas.spaces import Space
from simforge.types import Profile, Scenario


@dataclass(frozen=True, slots=True)
class Steering:
    """The instruction of an assistant for one answer."""

    dimension: str | None
    "Dimension that it speaks of; `None` if it speaks of none, or of the whole profile."
    text: str
    "The instruction; empty if the assistant is told nothing."


@dataclass(frozen=True, slots=True)
class SteeringRequest:
    """The facts from which a condition makes its steering."""

    space: Space
    scenario: Scenario
    dimensions: Sequence[str | None]
    "Dimensions that the turn compares on; `[None]` for the whole profile."
    inferred: str | None
    "What an assistant has inferred about the person so far."

    @property
    def profile(self) -> Profile:
        """The profile of the person who has the dialogue."""
        return self.scenario.persona.profile

    def by_dimension(self, profile: Profile) -> list[Steering]:
        """Steering by a profile, on each dimension that the turn compares on."""
        return [
            Steering(dimension, self.space.steering(profile, dimension))
            for dimension in self.dimensions
        ]


@dataclass(frozen=True, slots=True)
class Condition:
    """A way to steer a candidate."""

    about: str
    "Meaning, as a sentence for the documentation."
    steer: Callable[[SteeringRequest], list[Steering]]
    "The steering of each answer that a turn needs."
    follows_wishes: bool = False
    "Its answers follow the person's own wishes, so a label by construction prefers them."
    per_dimension: bool = False
    "Where the recipe contrasts dimensions, each of them has answers of its own."
    per_missing_wish: bool = False
    "It has an answer for each wish that the person lacks, on that wish's dimension."
    needs_stranger: bool = False
    "It needs another person of the cast who wants something else."
    infers: bool = False
    "It tells what an assistant inferred; its answers may use those words."
    revises: Literal["", "plain"] = ""
    "Condition whose answers it revises, instead of answering anew."
    space_kinds: tuple[str, ...] = ()
    "Kinds of preference space in which it means something; empty if in all."


def _stranger_profile(request: SteeringRequest) -> Profile:
    assert request.scenario.stranger is not None
    return request.scenario.stranger.profile


CONDITIONS: Registry[Condition] = Registry(
    "condition",
    Condition,
    objects={
        "plain": Condition(
            "the assistant knows nothing about the person",
            lambda request: [Steering(None, "")],
        ),
        "own": Condition(
            "steered by the person's own profile",
            lambda request: request.by_dimension(request.profile),
            follows_wishes=True,
            per_dimension=True,
        ),
        "opposite": Condition(
            "steered by the opposite profile",
            lambda request: request.by_dimension(
                request.space.opposite(request.profile)
            ),
            per_dimension=True,
        ),
        "stranger": Condition(
            "steered by the profile of another person of the cast",
            lambda request: request.by_dimension(_stranger_profile(request)),
            per_dimension=True,
            needs_stranger=True,
        ),
        "inferred": Condition(
            "the assistant is told what was inferred about the person from the dialogue so far",
            lambda request: [Steering(None, request.inferred or "")],
            infers=True,
        ),
        "others": Condition(
            "steered by a preference that the person does not have; one answer for each",
            lambda request: [
                Steering(dimension, text)
                for dimension, text in request.space.other_steering(request.profile)
            ],
            per_missing_wish=True,
            space_kinds=("one_hot", "weights"),
        ),
        "revised": Condition(
            "a plain answer, revised by the person's own profile",
            lambda request: request.by_dimension(request.profile),
            follows_wishes=True,
            per_dimension=True,
            revises="plain",
        ),
    },
)
