"""The plan: the scenarios that a run plays.

A plan depends only on recipe, cast, prompts and seed, not on the executor. Scenarios are built
on demand, one shard at a time, so a plan of a million takes no memory. A person's dialogue
stays the same in a larger cast; its audience does not.

With shared prompts, people are in groups that get the same prompts. With mirrored profiles,
personas 2k and 2k+1, who want opposite things, are in one group, so that every prompt goes
to people who disagree. The audiences, who judge the same answers from their own
perspectives, are sampled separately, and only from people of the same split.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from simforge import catalog
from simforge.identity import digest, rng, shuffled_item
from simforge.judging.forms import FORMS
from simforge.personas import spaces
from simforge.personas.cast import Cast, persona_id
from simforge.personas.spaces import Profiles, Space
from simforge.recipe.schema import Recipe
from simforge.run.checks import Inputs
from simforge.text import near_duplicates
from simforge.types import Persona, Prompt, Scenario

AUDIENCE_CANDIDATES = 8
"Number of people among whom the one farthest from a person's preferences is chosen."


MAX_DRAWS = 400
"Maximum number of draws to find a person who can be in an audience or be a stranger."


@dataclass(frozen=True)
class Plan:
    """All scenarios of a run, by index."""

    recipe: Recipe
    cast: Cast
    space: Space
    profiles: Profiles
    "One profile for each person of the cast."
    prompts: Sequence[Prompt]
    "Empty when personas write their own openings."
    seed: int
    judge_form: str = "pairwise"
    "Form of the judge's generator: the subject of one judge call."

    def __len__(self) -> int:
        return len(self.cast) * self.recipe.prompts.per_persona

    @property
    def max_calls(self) -> int:
        """Return the maximum number of model calls of the run, without calls that have to be
        repeated."""
        dialogue = self.recipe.dialogue
        branches = 1.0
        total = float(self.recipe.prompts.source == "persona") - 1
        for turn in range(dialogue.turns):
            total += branches * (
                1 + (dialogue.infer is not None) + self._calls_per_turn(turn)
            )
            if dialogue.continue_with == "both":
                branches = min(float(dialogue.max_branches), 2 * branches)
        return int(len(self) * (total + (dialogue.feedback is not None)))

    def _calls_per_turn(self, turn: int) -> float:
        """Return the number of answers in a turn plus the judge calls for them."""
        recipe = self.recipe
        contrasts = (
            len(self.space.dimensions) if recipe.candidates.contrast == "all" else 1
        )
        variants, samples = recipe.candidates.variants_at(turn, None)
        others = len(self.space.dimensions) - 1
        answers_per_variant = {
            variant.name: samples
            * (others if variant.definition.per_missing_wish else 1)
            for variant in variants
        }
        answers = sum(
            answers_per_variant[variant.name]
            * (contrasts if variant.definition.per_dimension else 1)
            for variant in variants
        )
        judge = recipe.judge
        if judge is None:
            return float(answers)
        listed = recipe.pairing.compare
        if isinstance(listed, str):
            compared = 1.0
        else:
            pairs = [
                (a, b)
                for a, b in listed
                if a in answers_per_variant and b in answers_per_variant
            ]
            compared = sum(
                samples * (samples - 1) / 2
                if a == b
                else float(max(answers_per_variant[a], answers_per_variant[b]))
                for a, b in pairs
            )
        form = FORMS.find(self.judge_form)
        calls = form.calls(compared, float(contrasts), float(answers))
        orders = 2 if judge.orders == "both" and form.has_orders else 1
        perspectives = min(judge.audience, len(self.cast)) + 3 * judge.controls
        split = (
            len(self.space.dimensions)
            if judge.by == "dimension" and contrasts == 1
            else 1
        )
        return (
            answers
            + judge.share
            * calls
            * orders
            * perspectives
            * judge.repeats
            * len(judge.panel)
            * split
        )

    def persona(self, index: int) -> Persona:
        """Return person `index` of the cast with their profile."""
        traits = self.cast.traits(index)
        profile = self.profiles[index]
        identity = persona_id(traits, profile, index)
        return Persona(
            id=identity,
            index=index,
            text=self.cast.text(index),
            traits=traits,
            profile=profile,
        )

    def scenario(self, index: int) -> Scenario:
        """Return scenario `index`. The dialogues of one person are consecutive; people of
        one group are next to each other."""
        person, number = divmod(index, self.recipe.prompts.per_persona)
        persona = self.persona(person)
        prompt = self._prompt(person, number)
        key = digest(
            ["scenario", persona.id, prompt.id if prompt else None, number, self.seed]
        )
        kind, need, goals = (None, None, ()) if prompt else self._need(index, number)
        return Scenario(
            key=key,
            index=index,
            persona=persona,
            prompt=prompt,
            need=need,
            goals=goals if self.recipe.dialogue.goals else (),
            facts=self.cast.facts(person) if self._has_user else (),
            stranger=self._stranger(person, key) if self._needs_strangers else None,
            audience=self._audience(person, number),
            least_informative_trait=self._least_informative[person]
            if self._has_controls
            else "",
            group=self.group(person),
            kind=kind,
        )

    def scenarios(self, start: int, stop: int) -> tuple[Scenario, ...]:
        """Return a slice of the plan."""
        return tuple(
            self.scenario(index) for index in range(start, min(stop, len(self)))
        )

    def _need(
        self, index: int, number: int
    ) -> tuple[str | None, str | None, tuple[str, ...]]:
        """Return type, need and goals of dialogue `index`, which is the person's dialogue
        number `number`."""
        kinds = list(self.recipe.dialogue.conversations)
        kind = kinds[number % len(kinds)] if kinds else None
        needs = self.recipe.dialogue.conversations[kind].needs if kind else []
        if needs:
            person, per_kind = (
                index // self.recipe.prompts.per_persona,
                -(-self.recipe.prompts.per_persona // len(kinds)),
            )
            need = shuffled_item(
                needs,
                person * per_kind + number // len(kinds),
                self.seed,
                f"needs/{kind}",
            )
            return kind, self.cast.fill(need, person), ()
        person = index // self.recipe.prompts.per_persona
        return (kind, *self.cast.need(index, person, self.seed))

    def group(self, person: int) -> int:
        """Return the number of the group that gets the same prompts; a single last person
        joins the group before."""
        size = self.recipe.prompts.group_size
        alone = person == len(self.cast) - 1 and person % size == 0 and person > 0
        return person // size - alone

    def _stranger(self, person: int, key: str) -> Persona | None:
        """Return another person with different preferences, if there is one. In groups of
        more than two it comes from the person's own group, so that the answer steered to the
        stranger is also the stranger's own answer."""
        size, random, profile = (
            self.recipe.prompts.group_size,
            rng(self.seed, "stranger", key),
            self.profiles[person],
        )
        first = self.group(person) * size
        pool = (
            range(first, min(first + size, len(self.cast)))
            if size > 2 and self.prompts
            else range(len(self.cast))
        )
        split = self.person_split(person)
        for _ in range(MAX_DRAWS):
            candidate = pool[random.randrange(len(pool))]
            if (
                self.person_split(candidate) == split
                and self.profiles[candidate].values != profile.values
            ):
                return self.persona(candidate)
        if all(
            not variant.definition.needs_stranger
            for variant in self.recipe.candidates.all_variants
        ):
            return None
        persona = self.persona(person)
        return replace(
            persona,
            id=digest(["stranger", persona.id]),
            profile=self.space.opposite(profile),
        )

    def _audience(self, person: int, number: int) -> tuple[Persona, ...]:
        """Return the other people from whose perspectives the answers are judged. Of an
        audience of n (the person included), n // 2 others are chosen for their distance from
        the person's preferences, the rest at random. Person j of a group samples from the
        people whose number has the remainder j modulo the group size and who are in the same
        split, so held-out people appear in no other split."""
        judge, size = self.recipe.judge, self.recipe.prompts.group_size
        if judge is None or judge.audience == 1:
            return ()
        group, random = (
            self.group(person),
            rng(self.seed, "audience", f"{person}/{number}"),
        )
        pool, split = (
            range(person % size, len(self.cast), size),
            self.person_split(person),
        )
        members: list[int] = []
        for position in range(judge.audience - 1):
            drawn = (pool[random.randrange(len(pool))] for _ in range(MAX_DRAWS))
            eligible = (
                candidate
                for candidate in drawn
                if self.group(candidate) != group
                and candidate not in members
                and self.person_split(candidate) == split
            )
            candidates = list(
                itertools.islice(
                    eligible,
                    AUDIENCE_CANDIDATES if position < judge.audience // 2 else 1,
                )
            )
            if not candidates:
                break
            members.append(
                max(
                    candidates,
                    key=lambda candidate: self.profiles.distance(person, candidate),
                )
            )
        return tuple(self.persona(member) for member in members)

    def person_split(self, person: int) -> str:
        """Return the split of a person, whatever the prompts. Near-duplicates of a person
        are in the same split, and groups are not divided."""
        return self._split_of_cluster.get(
            self._cluster_of_group[self.group(person)], "train"
        )

    def dialogue_split(self, person: int, prompt_id: str | None) -> str:
        """Return the split of a dialogue, decided by its person first and by its prompt
        second. Near-duplicate prompts are held out together."""
        split = self.person_split(person)
        if (
            split == "test_personas"
            or prompt_id is None
            or not self.recipe.splits.test_prompts
        ):
            return split
        return (
            "test_prompts"
            if self._cluster_of_prompt[prompt_id] in self._held_out_prompts
            else split
        )

    @cached_property
    def cluster_summary(self) -> dict[str, dict[str, int]]:
        """For people and for prompts: their number, the number of clusters that are held out
        together, and the size of the largest cluster. Omitted for what no split holds out."""
        summary = {}
        if self._splits_people:
            summary["personas"] = _cluster_summary(len(self.cast), self._cluster_sizes)
        if self._splits_prompts:
            summary["prompts"] = _cluster_summary(
                len(self._cluster_of_prompt), Counter(self._cluster_of_prompt.values())
            )
        return summary

    @property
    def _splits_people(self) -> bool:
        return (
            self.recipe.splits.validation + self.recipe.splits.test_personas > 0
            and len(self.cast) > 0
        )

    @property
    def _splits_prompts(self) -> bool:
        return self.recipe.splits.test_prompts > 0 and len(self.prompts) > 0

    @cached_property
    def _cluster_of_group(self) -> list[int]:
        """For each group of people, the first group of the cluster that it is held out with."""
        groups = [self.group(person) for person in range(len(self.cast))]
        if not self._splits_people:
            return list(range(len(self.cast)))
        texts = None if self.cast.texts is None else self.cast.texts.to_list()
        first_alike = near_duplicates.cluster_people(self.cast.frame, texts)
        links = zip(groups, (groups[first] for first in first_alike), strict=True)
        return near_duplicates.connected_components(groups[-1] + 1, links)

    @cached_property
    def _cluster_sizes(self) -> Counter[int]:
        """Number of people in each cluster."""
        return Counter(
            self._cluster_of_group[self.group(person)]
            for person in range(len(self.cast))
        )

    @cached_property
    def _split_of_cluster(self) -> dict[int, str]:
        """Split of each cluster of people that is not in `train`."""
        if not self._splits_people:
            return {}
        splits, count = self.recipe.splits, len(self.cast)
        tests = self._choose_clusters(
            self._cluster_sizes, splits.test_personas * count, "split/persona"
        )
        remaining = Counter(
            {
                name: size
                for name, size in self._cluster_sizes.items()
                if name not in tests
            }
        )
        validation = self._choose_clusters(
            remaining, splits.validation * count, "split/persona"
        )
        return dict.fromkeys(validation, "validation") | dict.fromkeys(
            tests, "test_personas"
        )

    @cached_property
    def _held_out_prompts(self) -> set[str]:
        """Clusters of prompts that are held out."""
        sizes = Counter(self._cluster_of_prompt.values())
        return set(
            self._choose_clusters(
                sizes, self.recipe.splits.test_prompts * sizes.total(), "split/prompt"
            )
        )

    def _choose_clusters(
        self, sizes: Counter[Any], wanted: float, purpose: str
    ) -> list[Any]:
        """Choose clusters in random order until they have as many members as wanted. A
        cluster that is too large is skipped while there are others, so a cluster of half of
        the cast stays in `train`."""
        chosen: list[Any] = []
        left = wanted if len(sizes) > 2 else 0.0
        for name in sorted(
            sizes, key=lambda cluster: rng(self.seed, purpose, str(cluster)).random()
        ):
            if left > 0 and sizes[name] <= max(min(sizes.values()), 1.5 * left):
                chosen.append(name)
                left -= sizes[name]
        return chosen

    @cached_property
    def _cluster_of_prompt(self) -> dict[str, str]:
        """For each prompt in use, the first prompt of the cluster that it is held out with."""
        positions = range(
            (self.group(len(self.cast) - 1) + 1) * self.recipe.prompts.per_persona
        )
        used = (
            positions
            if len(positions) < len(self.prompts)
            else range(len(self.prompts))
        )
        asked = [
            shuffled_item(self.prompts, position, self.seed, "prompts")
            for position in used
        ]
        firsts = near_duplicates.cluster_prompts(prompt.text for prompt in asked)
        return {
            prompt.id: asked[first].id
            for prompt, first in zip(asked, firsts, strict=True)
        }

    @cached_property
    def _least_informative(self) -> list[str]:
        """Each person's least informative trait, as text."""
        return self.cast.least_informative()

    @cached_property
    def _has_controls(self) -> bool:
        """True if the judge is also asked with blind controls."""
        return self.recipe.judge is not None and self.recipe.judge.controls > 0

    @cached_property
    def _has_user(self) -> bool:
        return "user" in self.recipe.roles

    @cached_property
    def _needs_strangers(self) -> bool:
        return self._has_controls or any(
            variant.definition.needs_stranger
            for variant in self.recipe.candidates.all_variants
        )

    def _prompt(self, person: int, number: int) -> Prompt | None:
        if not self.prompts:
            return None
        position = self.group(person) * self.recipe.prompts.per_persona + number
        return shuffled_item(self.prompts, position, self.seed, "prompts")


def _cluster_summary(count: int, sizes: Counter[Any]) -> dict[str, int]:
    return {"n": count, "clusters": len(sizes), "largest": max(sizes.values())}


def make_plan(inputs: Inputs) -> Plan:
    """The plan of a run."""
    recipe, setup = inputs.recipe, inputs.setup
    profiles = spaces.sample_profiles(
        setup.space,
        catalog.label(recipe.cast.space),
        inputs.cast,
        setup.seed,
        recipe.cast.mirrored,
    )
    form = setup.judge.front.form if setup.judge else "pairwise"
    return Plan(
        recipe, inputs.cast, setup.space, profiles, inputs.prompts, setup.seed, form
    )
