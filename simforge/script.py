"""The script: what all dialogues of a run have in common."""

from __future__ import annotations

from dataclasses import dataclass

from simforge.conduct import Writing
from simforge.config import Recipe
from simforge.generators import Generator
from simforge.preferences import Space


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

    @property
    def generators(self) -> list[Generator]:
        """All generators that a run uses."""
        used = (self.user, self.assistant, self.judge, self.infer, self.reviser, self.writer, self.feedback)
        return [one for one in used if one is not None]
