"""The plan: which scenarios a run plays.

A pure function of recipe, cast, prompts and seed, whatever plays it. Scenarios are made when they are asked for, a
shard at a time, so a plan of a million costs nothing to hold. A person's dialogue is the same in a larger cast; who
else judges it is not.

With shared prompts, people come in groups that get the same ones: with mirrored profiles personas 2k and 2k+1, who want
opposite things, are in one group, so every prompt goes to people who disagree. Their audiences, who judge the same
answers from their own sides, are drawn apart, and only from people of the same split.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from simforge import clusters
from simforge.config import Recipe
from simforge.identity import cycled, digest, rng
from simforge.personas import Cast, persona_id
from simforge.preferences import Profiles, Space
from simforge.types import Condition, Persona, Prompt, Scenario

AMONG = 8
"People of whom the one is taken who is furthest from what another wants."
LOOKS = 400
"People who are looked at for one who may be in an audience, or be a stranger."
STEERED = frozenset({Condition.own, Condition.opposite, Condition.stranger, Condition.revised})
"Conditions that speak of one dimension, where the recipe contrasts dimensions."


@dataclass(frozen=True)
class Plan:
    """All scenarios of a run, by number."""

    recipe: Recipe
    cast: Cast
    space: Space
    profiles: Profiles
    "One for each person of the cast."
    prompts: Sequence[Prompt]
    "Empty when personas write their own openings."
    seed: int
    form: str = "pairwise"
    "What one call of the judge is about."

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
        others = len(self.space.dimensions) - 1
        each = {arm.name: samples * (others if arm.condition == Condition.others else 1) for arm in arms}
        answers = sum(each[arm.name] * (contrasts if arm.condition in STEERED else 1) for arm in arms)
        judge = recipe.judge
        if judge is None:
            return float(answers)
        listed = recipe.pairing.compare
        if isinstance(listed, str):
            compared = 1.0
        else:
            pairs = [(a, b) for a, b in listed if a in each and b in each]
            compared = sum(samples * (samples - 1) / 2 if a == b else float(max(each[a], each[b])) for a, b in pairs)
        asked = {"batch": compared * contrasts / 4, "ranking": float(contrasts), "rating": float(answers)}
        calls = asked.get(self.form, compared * contrasts)
        orders = 2 if judge.orders == "both" and self.form != "rating" else 1
        views = min(judge.audience, len(self.cast)) + 3 * judge.controls
        split = len(self.space.dimensions) if judge.by == "dimension" and contrasts == 1 else 1
        return answers + judge.share * calls * orders * views * judge.repeats * len(judge.panel) * split

    def persona(self, index: int) -> Persona:
        """Person `index` of the cast with their profile."""
        traits = self.cast.traits(index)
        profile = self.profiles[index]
        identity = persona_id(traits, profile, index)
        return Persona(id=identity, index=index, text=self.cast.text(index), traits=traits, profile=profile)

    def scenario(self, index: int) -> Scenario:
        """Scenario `index`: dialogues of one person stand together, people of one group beside each other."""
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
            audience=self._audience(person, number),
            least=self._least[person] if self._tested else "",
            group=self.group(person),
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

    def group(self, person: int) -> int:
        """Number of the group that gets the same prompts; a last one left alone joins the group before."""
        size = self.recipe.prompts.people
        alone = person == len(self.cast) - 1 and person % size == 0 and person > 0
        return person // size - alone

    def _stranger(self, person: int, key: str) -> Persona | None:
        """Somebody else who wants something else, if there is anybody: in groups of more than two of the own group, so
        that what is steered by a stranger is their own answer too."""
        size, source, own = self.recipe.prompts.people, rng(self.seed, "stranger", key), self.profiles[person]
        first = self.group(person) * size
        pool = range(first, min(first + size, len(self.cast))) if size > 2 and self.prompts else range(len(self.cast))
        held = self.held(person)
        for _ in range(LOOKS):
            other = pool[source.randrange(len(pool))]
            if self.held(other) == held and self.profiles[other].values != own.values:
                return self.persona(other)
        if all(arm.condition != Condition.stranger for arm in self.recipe.candidates.everyone):
            return None
        persona = self.persona(person)
        return replace(persona, id=digest(["stranger", persona.id]), profile=self.space.opposite(own))

    def _audience(self, person: int, number: int) -> tuple[Persona, ...]:
        """Others from whose side the answers are judged: half of all (with the person) for how far they are from what
        the person wants, the rest at random. Person j of a group draws from people whose number leaves the rest j, and
        who are in the same split, so that nobody who is held out is heard of in another."""
        judge, size = self.recipe.judge, self.recipe.prompts.people
        if judge is None or judge.audience == 1:
            return ()
        own, source = self.group(person), rng(self.seed, "audience", f"{person}/{number}")
        place, held = range(person % size, len(self.cast), size), self.held(person)
        found: list[int] = []
        for wanted in range(judge.audience - 1):
            drawn = (place[source.randrange(len(place))] for _ in range(LOOKS))
            free = (one for one in drawn if self.group(one) != own and one not in found and self.held(one) == held)
            several = list(itertools.islice(free, AMONG if wanted < judge.audience // 2 else 1))
            if not several:
                break
            found.append(max(several, key=lambda other: self.profiles.distance(person, other)))
        return tuple(self.persona(other) for other in found)

    def held(self, person: int) -> str:
        """The split that a person is in, whatever the prompts. Who is nearly the same as somebody is where they are,
        and groups are not parted."""
        return self._people_held.get(self._cluster[self.group(person)], "train")

    def split(self, person: int, prompt_id: str | None) -> str:
        """The split of a dialogue, by its person first and its prompt second. Prompts that are nearly the same are held
        out together."""
        held = self.held(person)
        if held == "test_personas" or prompt_id is None or not self.recipe.splits.test_prompts:
            return held
        return "test_prompts" if self._alike[prompt_id] in self._prompts_held else held

    @cached_property
    def clustered(self) -> dict[str, dict[str, int]]:
        """How many people and prompts there are, in how many clusters of what is held out together, and the most in
        one; nothing of what nobody is held out by."""
        found = {}
        if self._people_apart:
            found["personas"] = _told(len(self.cast), self._sizes)
        if self._prompts_apart:
            found["prompts"] = _told(len(self._alike), Counter(self._alike.values()))
        return found

    @property
    def _people_apart(self) -> bool:
        return self.recipe.splits.validation + self.recipe.splits.test_personas > 0 and len(self.cast) > 0

    @property
    def _prompts_apart(self) -> bool:
        return self.recipe.splits.test_prompts > 0 and len(self.prompts) > 0

    @cached_property
    def _cluster(self) -> list[int]:
        """For each group of people the first one of those that it is held out with."""
        groups = [self.group(person) for person in range(len(self.cast))]
        if not self._people_apart:
            return list(range(len(self.cast)))
        texts = None if self.cast.texts is None else self.cast.texts.to_list()
        near = clusters.of_people(self.cast.frame, texts)
        links = zip(groups, (groups[first] for first in near), strict=True)
        return clusters.linked(groups[-1] + 1, links)

    @cached_property
    def _sizes(self) -> Counter[int]:
        """People in each cluster."""
        return Counter(self._cluster[self.group(person)] for person in range(len(self.cast)))

    @cached_property
    def _people_held(self) -> dict[int, str]:
        """The split of each cluster of people that is not in `train`."""
        if not self._people_apart:
            return {}
        splits, count = self.recipe.splits, len(self.cast)
        tests = self._filled(self._sizes, splits.test_personas * count, "split/persona")
        rest = Counter({name: size for name, size in self._sizes.items() if name not in tests})
        tuned = self._filled(rest, splits.validation * count, "split/persona")
        return dict.fromkeys(tuned, "validation") | dict.fromkeys(tests, "test_personas")

    @cached_property
    def _prompts_held(self) -> set[str]:
        """The clusters of prompts that are held out."""
        found = Counter(self._alike.values())
        return set(self._filled(found, self.recipe.splits.test_prompts * found.total(), "split/prompt"))

    def _filled(self, sizes: Counter[Any], wanted: float, purpose: str) -> list[Any]:
        """Clusters, in an order drawn by the seed, until as many are in them as are wanted. One that is too large is
        passed over while there are others, so a kind of people that is half of a cast stays in `train`."""
        found: list[Any] = []
        left = wanted if len(sizes) > 2 else 0.0
        for name in sorted(sizes, key=lambda one: rng(self.seed, purpose, str(one)).random()):
            if left > 0 and sizes[name] <= max(min(sizes.values()), 1.5 * left):
                found.append(name)
                left -= sizes[name]
        return found

    @cached_property
    def _alike(self) -> dict[str, str]:
        """Of each prompt that is used the first one that it is held out with."""
        places = range((self.group(len(self.cast) - 1) + 1) * self.recipe.prompts.per_persona)
        used = places if len(places) < len(self.prompts) else range(len(self.prompts))
        asked = [cycled(self.prompts, place, self.seed, "prompts") for place in used]
        firsts = clusters.of_prompts(prompt.text for prompt in asked)
        return {prompt.id: asked[first].id for prompt, first in zip(asked, firsts, strict=True)}

    @cached_property
    def _least(self) -> list[str]:
        """Each person's least telling trait, in words."""
        return self.cast.least_telling()

    @cached_property
    def _tested(self) -> bool:
        """Whether the judge is asked in the dark too."""
        return self.recipe.judge is not None and self.recipe.judge.controls > 0

    @cached_property
    def _spoken(self) -> bool:
        return "user" in self.recipe.roles

    @cached_property
    def _strangers(self) -> bool:
        return self._tested or any(arm.condition == Condition.stranger for arm in self.recipe.candidates.everyone)

    def _prompt(self, person: int, number: int) -> Prompt | None:
        if not self.prompts:
            return None
        place = self.group(person) * self.recipe.prompts.per_persona + number
        return cycled(self.prompts, place, self.seed, "prompts")


def _told(count: int, sizes: Counter[Any]) -> dict[str, int]:
    return {"n": count, "clusters": len(sizes), "largest": max(sizes.values())}
