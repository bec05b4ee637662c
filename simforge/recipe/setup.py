"""The setup: what all dialogues of a run have in common."""

from __future__ import annotations

from dataclasses import dataclass

from simforge.catalog import templates
from simforge.catalog.templates import Generator
from simforge.personas.spaces import Space
from simforge.recipe.behavior import WritingStyle, load_writing_style
from simforge.recipe.schema import Recipe


@dataclass(frozen=True, slots=True)
class Setup:
    """Recipe, space and generators of a run, as plain values that are sent to each worker
    once."""

    recipe: Recipe
    space: Space
    user: Generator
    assistant: Generator
    judge: Generator | None
    seed: int
    writing: WritingStyle | None = None
    "Writing style, if the recipe does not leave it to the model."
    infer: Generator | None = None
    "Asks the assistant to infer the person's profile."
    reviser: Generator | None = None
    "Asks the assistant to revise a plain answer."
    writer: Generator | None = None
    "Asks the writer to turn the person's wishes into a system message."
    feedback: Generator | None = None
    "Asks the judge to fill in a survey after the dialogue."

    @classmethod
    def from_recipe(cls, recipe: Recipe, space: Space, seed: int) -> Setup:
        """Read everything that dialogues need from the catalogue."""
        dialogue, answers = recipe.dialogue, recipe.candidates
        revises = any(variant.definition.revises for variant in answers.all_variants)
        return cls(
            recipe,
            space,
            user=templates.load(dialogue.user),
            assistant=templates.load(answers.generator),
            judge=templates.load(recipe.judge.generator) if recipe.judge else None,
            seed=seed,
            writing=load_writing_style(dialogue.writing) if dialogue.writing else None,
            infer=templates.load(dialogue.infer) if dialogue.infer else None,
            reviser=templates.load(answers.reviser) if revises else None,
            writer=templates.load(answers.writer) if answers.writer else None,
            feedback=templates.load(dialogue.feedback) if dialogue.feedback else None,
        )

    @property
    def generators(self) -> list[Generator]:
        """All generators that a run uses."""
        all_generators = (
            self.user,
            self.assistant,
            self.judge,
            self.infer,
            self.reviser,
            self.writer,
            self.feedback,
        )
        return [generator for generator in all_generators if generator is not None]
