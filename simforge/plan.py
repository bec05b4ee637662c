"""The plan: which scenarios a run plays.

A pure function of recipe, cast, prompts and seed, whatever plays it. Scenarios are made when they are asked for, a
shard at a time, so a plan of a million costs nothing to hold.

With shared prompts, personas 2k and 2k+1 (mirrored: they want opposite things) get the same prompts, so every prompt
goes to people who disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simforge.config import Recipe
from simforge.identity import cycled, digest
from simforge.personas import Cast, persona_id
from simforge.preferences import Space
from simforge.types import Condition, Persona, Profile, Prompt, Scenario


@dataclass(frozen=True)
class Plan:
    """All scenarios of a run, by number."""

    recipe: Recipe
    cast: Cast
    space: Space
    profiles: Sequence[Profile]
    "One for each person of the cast."
    prompts: Sequence[Prompt]
    "Empty when personas write their own openings."
    seed: int

    def __len__(self) -> int:
        return len(self.cast) * self.recipe.prompts.per_persona

    @property
    def calls(self) -> int:
        """Most model calls that the run can take, when no message has to be asked for twice."""
        recipe, dimensions = self.recipe, len(self.space.dimensions)
        contrasts = dimensions if recipe.candidates.contrast == "all" else 1
        steered = [one for one in recipe.candidates.conditions if one != Condition.plain]
        plain = len(recipe.candidates.conditions) - len(steered)
        answers = recipe.candidates.samples * (plain + len(steered) * contrasts)
        judged = 0.0
        if recipe.judge is not None:
            orders = 2 if recipe.judge.orders == "both" else 1
            judged = recipe.judge.share * orders * len(recipe.pairing.compare) * contrasts
        turns = recipe.dialogue.turns
        spoken = turns - (0 if recipe.prompts.source == "persona" else 1)
        return int(len(self) * (turns * (answers + judged) + spoken))

    def persona(self, index: int) -> Persona:
        """Person `index` of the cast with their profile."""
        traits = self.cast.traits(index)
        profile = self.profiles[index]
        identity = persona_id(traits, profile, index)
        return Persona(id=identity, index=index, text=self.cast.text(index), traits=traits, profile=profile)

    def scenario(self, index: int) -> Scenario:
        """Scenario `index`: dialogues of one person stand together, twins (2k, 2k+1) beside each other."""
        person, number = divmod(index, self.recipe.prompts.per_persona)
        persona = self.persona(person)
        prompt = self._prompt(person, number)
        key = digest(["scenario", persona.id, prompt.id if prompt else None, number, self.seed])
        need = None if prompt else self.cast.need(index, self.seed)
        return Scenario(key=key, index=index, persona=persona, prompt=prompt, need=need)

    def scenarios(self, start: int, stop: int) -> tuple[Scenario, ...]:
        """A slice of the plan."""
        return tuple(self.scenario(index) for index in range(start, min(stop, len(self))))

    def _prompt(self, person: int, number: int) -> Prompt | None:
        if not self.prompts:
            return None
        twins = person // 2
        if person == len(self.cast) - 1 and person % 2 == 0 and person > 0:
            twins -= 1  # the last of an odd cast has no twin of their own: they join the pair before
        return cycled(self.prompts, twins * self.recipe.prompts.per_persona + number, self.seed, "prompts")
