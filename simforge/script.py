"""The script: what all dialogues of a run have in common."""

from __future__ import annotations

from dataclasses import dataclass

from simforge import conduct, generators
from simforge.conduct import Writing
from simforge.config import Recipe
from simforge.generators import Generator
from simforge.preferences import Space
from simforge.types import Condition


@dataclass(frozen=True, slots=True)
class Script:
    """Plain values, so that they travel to the workers once."""

    recipe: Recipe
    space: Space
    user: Generator
    assistant: Generator
    judge: Generator | None
    seed: int
    writing: Writing | None = None
    "How people write, where the recipe does not leave it to the model."
    infer: Generator | None = None
    "Asks the assistant what it makes of the person."
    reviser: Generator | None = None
    "Asks the assistant to revise a plain answer."
    writer: Generator | None = None
    "Asks the writer to put what a person wants into a system message."
    feedback: Generator | None = None
    "Asks the judge to fill in a survey afterwards."

    @classmethod
    def of(cls, recipe: Recipe, space: Space, seed: int) -> Script:
        """Everything that dialogues need, read from the catalogue."""
        dialogue, answers = recipe.dialogue, recipe.candidates
        revises = any(arm.condition == Condition.revised for arm in answers.everyone)
        return cls(
            recipe,
            space,
            user=generators.load(dialogue.user),
            assistant=generators.load(answers.generator),
            judge=generators.load(recipe.judge.generator) if recipe.judge else None,
            seed=seed,
            writing=conduct.load(dialogue.writing) if dialogue.writing else None,
            infer=generators.load(dialogue.infer) if dialogue.infer else None,
            reviser=generators.load(answers.reviser) if revises else None,
            writer=generators.load(answers.writer) if answers.writer else None,
            feedback=generators.load(dialogue.feedback) if dialogue.feedback else None,
        )

    @property
    def generators(self) -> list[Generator]:
        """All generators that a run uses."""
        used = (self.user, self.assistant, self.judge, self.infer, self.reviser, self.writer, self.feedback)
        return [one for one in used if one is not None]
