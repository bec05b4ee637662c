"""Rules: judgments that no model makes.

- By construction: the answer that was steered by the person's own profile beats one that was not.
- By measure: a number computed from each text, if the space has a measure for the dimension.
- By scorers: scores of the texts, weighted by the profile.

`aggregation` combines the verdicts of models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simforge.identity import digest, rng
from simforge.personas.spaces import Space
from simforge.recipe.conditions import CONDITIONS
from simforge.text.measures import MEASURES
from simforge.types import (
    Comparison,
    Judgment,
    Method,
    Outcome,
    Persona,
    ProfileShown,
    Role,
)


@dataclass(frozen=True, slots=True)
class Rater:
    """The judge of a comparison: its model or rule, the person from whose side it judges, and what
    it is shown about them."""

    persona: Persona
    profile_shown: ProfileShown = ProfileShown.profile
    role: Role = ""
    "Name in the recipe's `models`; empty for rules and for a panel."
    judge: str = ""
    "The model, or the rule's name."

    def judgment(
        self, comparison: Comparison, method: Method, outcome: Outcome, **more: Any
    ) -> Judgment:
        return Judgment(
            id=digest(
                [
                    comparison_digest(comparison, method),
                    self.persona.id,
                    self.profile_shown,
                    self.role,
                ]
            ),
            turn=comparison.a.turn,
            persona_id=self.persona.id,
            profile_shown=self.profile_shown,
            a=comparison.a.id,
            b=comparison.b.id,
            dimension=comparison.dimension,
            method=method,
            judge=self.judge,
            role=self.role,
            outcome=outcome,
            **more,
        )


def by_construction(comparison: Comparison, persona: Persona) -> Judgment | None:
    """Prefers the answer that follows the person's own wishes; `None` if neither answer does,
    or both do."""
    a, b = comparison.a.condition, comparison.b.condition
    a_follows, b_follows = (CONDITIONS.find(name).follows_wishes for name in (a, b))
    if a_follows == b_follows:
        return None
    better, worse, outcome = (a, b, Outcome.a) if a_follows else (b, a, Outcome.b)
    return Rater(persona, judge=f"{better}>{worse}").judgment(
        comparison, "construction", outcome
    )


def by_measure(
    comparison: Comparison, space: Space, persona: Persona
) -> Judgment | None:
    """Prefers the answer that the dimension's measure favours for this person; `None` if there
    is no measure."""
    axis = space.dimensions.get(comparison.dimension or "")
    pole = space.pole(persona.profile, comparison.dimension)
    if axis is None or axis.measure is None or pole is None:
        return None
    measure = MEASURES[axis.measure]
    value_a, value_b = measure(comparison.a.text), measure(comparison.b.text)
    lead = value_a - value_b if pole.side == "high" else value_b - value_a
    outcome = (
        Outcome.tie if abs(lead) < axis.gap else Outcome.a if lead > 0 else Outcome.b
    )
    return Rater(persona, judge=axis.measure).judgment(
        comparison, "measure", outcome, value_a=value_a, value_b=value_b
    )


def by_scorers(
    comparison: Comparison,
    scores: dict[str, dict[str, float]],
    space: Space,
    persona: Persona,
    gap: float,
) -> Judgment:
    """Compares the scorers' values, weighted by the person's profile, in standard deviations; a
    tie within the gap."""
    a, b = (
        space.utility(persona.profile, scores[candidate.id])
        for candidate in (comparison.a, comparison.b)
    )
    outcome = (
        Outcome.tie if a == b or abs(a - b) < gap else Outcome.a if a > b else Outcome.b
    )
    names = dict.fromkeys(
        axis.scorer or axis.measure or "" for axis in space.dimensions.values()
    )
    return Rater(persona, judge=", ".join(names)).judgment(
        comparison, "scorers", outcome, value_a=a, value_b=b
    )


def uniform_draw(seed: int, purpose: str, comparison: Comparison) -> float:
    return rng(seed, purpose, comparison_digest(comparison, "model")).random()


def comparison_digest(comparison: Comparison, method: str) -> str:
    return digest(
        ["judgment", comparison.a.id, comparison.b.id, comparison.dimension, method]
    )
