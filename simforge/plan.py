"""The plan: which scenarios a run plays.

A pure function of recipe, cast, prompts and seed, whatever plays it. Scenarios are made when they are asked for, a
shard at a time, so a plan of a million costs nothing to hold.

With shared prompts, personas 2k and 2k+1 (mirrored: they want opposite things) get the same prompts, so every prompt
goes to people who disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from simforge.config import Recipe
from simforge.identity import cycled, digest, rng
from simforge.personas import Cast, persona_id
from simforge.preferences import Space
from simforge.types import Condition, Persona, Profile, Prompt, Scenario

TRIES = 32
"People who are looked at for one who wants something else."
STEERED = frozenset({Condition.own, Condition.opposite, Condition.stranger, Condition.revised})
"Conditions that speak of one dimension, where the recipe contrasts dimensions."


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
        dialogue = self.recipe.dialogue
        lines = 1.0
        total = float(self.recipe.prompts.source == "persona") - 1
        for turn in range(dialogue.turns):
            total += lines * (1 + (dialogue.infer is not None) + self._answers(turn))
            if dialogue.continue_with == "both":
                lines = min(float(dialogue.lines), 2 * lines)
        return int(len(self) * (total + (dialogue.feedback is not None)))

    def _answers(self, turn: int) -> float:
        """Answers of a turn, and calls of a judge for them."""
        recipe = self.recipe
        contrasts = len(self.space.dimensions) if recipe.candidates.contrast == "all" else 1
        arms, samples = recipe.candidates.competing(turn, None)
        answers = samples * sum(contrasts if arm.condition in STEERED else 1 for arm in arms)
        if recipe.judge is None:
            return answers
        if recipe.judge.way == "rating":
            return answers * (1 + recipe.judge.share)
        orders = 2 if recipe.judge.orders == "both" else 1
        names = {arm.name for arm in arms}
        listed = recipe.pairing.compare if recipe.pairing.compare != "best" else []
        pairs = [(a, b) for a, b in listed if names.issuperset((a, b))]
        compared = sum(samples * (samples - 1) / 2 if a == b else float(samples) for a, b in pairs)
        return answers + recipe.judge.share * orders * compared * contrasts

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
        kind, need, goals = (None, None, ()) if prompt else self._need(index, number)
        return Scenario(
            key=key,
            index=index,
            persona=persona,
            prompt=prompt,
            need=need,
            goals=goals if self.recipe.dialogue.goals else (),
            facts=self.cast.facts(person) if self._spoken else (),
            stranger=self._stranger(person, key) if self._strangers else None,
            kind=kind,
        )

    def scenarios(self, start: int, stop: int) -> tuple[Scenario, ...]:
        """A slice of the plan."""
        return tuple(self.scenario(index) for index in range(start, min(stop, len(self))))

    def _need(self, index: int, number: int) -> tuple[str | None, str | None, tuple[str, ...]]:
        """Type of the conversation, need and goals of dialogue `index`, which is a person's own `number`."""
        kinds = list(self.recipe.dialogue.conversations)
        kind = kinds[number % len(kinds)] if kinds else None
        needs = self.recipe.dialogue.conversations[kind].needs if kind else []
        if needs:
            person, own = index // self.recipe.prompts.per_persona, -(-self.recipe.prompts.per_persona // len(kinds))
            return kind, cycled(needs, person * own + number // len(kinds), self.seed, f"needs/{kind}"), ()
        return (kind, *self.cast.need(index, self.seed))

    def _stranger(self, person: int, key: str) -> Profile:
        """The profile of somebody else who wants something else, if there is anybody."""
        source, own = rng(self.seed, "stranger", key), self.profiles[person]
        for _ in range(TRIES):
            other = self.profiles[source.randrange(len(self.cast))]
            if other.values != own.values:
                return other
        return self.space.opposite(own)

    @cached_property
    def _spoken(self) -> bool:
        return "user" in self.recipe.roles

    @cached_property
    def _strangers(self) -> bool:
        return any(arm.condition == Condition.stranger for arm in self.recipe.candidates.everyone)

    def _prompt(self, person: int, number: int) -> Prompt | None:
        if not self.prompts:
            return None
        twins = person // 2
        if person == len(self.cast) - 1 and person % 2 == 0 and person > 0:
            twins -= 1  # the last of an odd cast has no twin of their own: they join the pair before
        return cycled(self.prompts, twins * self.recipe.prompts.per_persona + number, self.seed, "prompts")
