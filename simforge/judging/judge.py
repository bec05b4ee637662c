"""Judging: asks models which of two answers a person would prefer.

    judged = await TurnJudge(scenario, setup, prefix, calls).judge(comparisons)

The form of the judge's generator decides the question: two answers, several pairs at once, all
answers of a turn to rank, or each answer to rate. Unless the recipe says otherwise, every
question is asked in both orders. It is asked for every person of the scenario. Some comparisons
are also judged as a blind control, without the person's profile; this separates what the
profile decides from what anybody would prefer. If a reply cannot be parsed, the judge is asked
once more and given the mistake. If that fails too, the verdict is `unreadable`: never a tie or
a vote.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from simforge.catalog.templates import Generator
from simforge.identity import digest, rng
from simforge.judging.aggregation import combine_dimensions, combine_panel
from simforge.judging.forms import FORMS, JudgeForm, OrderedVerdict, Round
from simforge.judging.parsing import ParseFailure, object_schema, parse_ratings
from simforge.judging.reliability import BLIND_CONTROLS
from simforge.judging.rules import Rater, comparison_digest, uniform_draw
from simforge.models.calls import Calls, gather_or_cancel
from simforge.personas.spaces import Space
from simforge.recipe.schema import Judge
from simforge.recipe.setup import Setup
from simforge.text.measures import MEASURES
from simforge.types import (
    Candidate,
    ChatReply,
    Comparison,
    JsonObject,
    Judgment,
    Message,
    Persona,
    Profile,
    ProfileShown,
    Role,
    Scenario,
    Verdict,
)

DEFAULT_WISH = "good"
"Wish of a person about whom nothing is known; it completes 'likes answers that are ...'."


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rating:
    """A person's rating of one answer."""

    points: float
    "Mean of the attributes' ratings, weighted by the profile if it covers them all."
    attributes: dict[str, float]
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Perspective:
    """The person from whose side answers are judged, and what the judge is shown about that
    person."""

    persona: Persona
    profile_shown: ProfileShown
    text: str
    profile: Profile | None

    @classmethod
    def of(
        cls, persona: Persona, profile_shown: ProfileShown, scenario: Scenario
    ) -> Perspective:
        if profile_shown == ProfileShown.nobody:
            return cls(
                persona, profile_shown, "Somebody of whom nothing is known.", None
            )
        if profile_shown == ProfileShown.trait:
            return cls(
                persona,
                profile_shown,
                f"Somebody of whom only this is known: {scenario.least_informative_trait}.",
                None,
            )
        if profile_shown == ProfileShown.stranger:
            assert scenario.stranger is not None
            return cls(
                persona,
                profile_shown,
                scenario.stranger.text,
                scenario.stranger.profile,
            )
        return cls(persona, profile_shown, persona.text, persona.profile)

    def wants(self, space: Space, dimension: str | None) -> str:
        return (
            " and ".join(space.liked(self.profile, dimension))
            if self.profile
            else DEFAULT_WISH
        )


@dataclass(slots=True)
class TurnJudge:
    """Judges the answers to one prefix."""

    scenario: Scenario
    setup: Setup
    prefix: tuple[Message, ...]
    calls: Calls
    ratings: dict[tuple[Role, str, ProfileShown, str], Rating | None] = field(
        default_factory=dict
    )
    "Cache of ratings, by judge, person, what the judge was shown, and candidate."

    async def judge(
        self, comparisons: Sequence[Comparison]
    ) -> list[dict[str, list[Judgment]]]:
        """Returns the models' judgments of each comparison, by person. The last one with the
        whole profile is the label.

        The scenario's own person comes first. Comparisons outside the recipe's share get no
        judgments.
        """
        settings, judgments_by_person = (
            self.setup.recipe.judge,
            [dict[str, list[Judgment]]() for _ in comparisons],
        )
        if settings is None or self.setup.judge is None:
            return judgments_by_person
        sampling_units = self._sampling_units(comparisons)
        judged = [
            n
            for n, comparison in enumerate(comparisons)
            if self._is_sampled("judged", settings.share, comparison, sampling_units[n])
        ]
        controlled = [
            n
            for n in judged
            if self._is_sampled(
                "control", settings.controls, comparisons[n], sampling_units[n]
            )
        ]
        owner = self.scenario.persona
        perspectives = [
            (Perspective.of(person, ProfileShown.profile, self.scenario), judged)
            for person in (owner, *self.scenario.audience)
        ]
        owner_perspective, controls = (
            perspectives[0][0],
            [
                Perspective.of(owner, shown, self.scenario)
                for shown in self._available_controls()
            ],
        )
        perspectives = [
            *(
                (
                    perspective,
                    [
                        n
                        for n in controlled
                        if self._want_different(
                            perspective, owner_perspective, comparisons[n]
                        )
                    ],
                )
                for perspective in controls
            ),
            *perspectives,
        ]
        perspectives = [
            (perspective, numbers) for perspective, numbers in perspectives if numbers
        ]
        judgment_lists = await gather_or_cancel(
            self._judge_perspective([comparisons[n] for n in numbers], perspective)
            for perspective, numbers in perspectives
        )
        for (perspective, numbers), judgment_lists_of_perspective in zip(
            perspectives, judgment_lists, strict=True
        ):
            for number, comparison_judgments in zip(
                numbers, judgment_lists_of_perspective, strict=True
            ):
                judgments_by_person[number].setdefault(
                    perspective.persona.id, []
                ).extend(comparison_judgments)
        return judgments_by_person

    def _sampling_units(self, comparisons: Sequence[Comparison]) -> list[Comparison]:
        """Returns the comparison whose random draw decides for each comparison: itself or, for
        rankings, the first one on its sheet."""
        if not self.form.shares_sheet:
            return list(comparisons)
        first: dict[str | None, Comparison] = {}
        return [
            first.setdefault(comparison.dimension, comparison)
            for comparison in comparisons
        ]

    def _is_sampled(
        self,
        purpose: str,
        share: float,
        comparison: Comparison,
        sampling_unit: Comparison,
    ) -> bool:
        """Returns whether a comparison is in a random share. Two answers with the same text are
        never in one."""
        same = comparison.a.text.split() == comparison.b.text.split()
        return (
            not same and uniform_draw(self.setup.seed, purpose, sampling_unit) < share
        )

    def _available_controls(self) -> list[ProfileShown]:
        """Returns the blind controls that can be run. Without a stranger, the stranger control
        is left out; without a trait, or if the generator does not show the persona, the trait
        control is left out."""
        missing = {
            ProfileShown.stranger: self.scenario.stranger is None,
            ProfileShown.trait: not self.scenario.least_informative_trait
            or not self.generator.uses("persona"),
        }
        return [shown for shown in BLIND_CONTROLS if not missing.get(shown)]

    def _want_different(
        self, perspective: Perspective, other: Perspective, comparison: Comparison
    ) -> bool:
        """Returns whether two perspectives want different things in a comparison. If the
        stranger wants the same, the control tests nothing."""
        return perspective.wants(self.setup.space, comparison.dimension) != other.wants(
            self.setup.space, comparison.dimension
        )

    @property
    def form(self) -> JudgeForm:
        return FORMS.find(self.generator.front.form)

    @property
    def generator(self) -> Generator:
        assert self.setup.judge is not None
        return self.setup.judge

    async def _judge_perspective(
        self, comparisons: Sequence[Comparison], perspective: Perspective
    ) -> list[list[Judgment]]:
        """Returns the judgments of each comparison from one perspective. The last judgment of
        each is the combined result."""
        assert self.setup.recipe.judge is not None
        panel = self.setup.recipe.judge.panel
        by_judge = await gather_or_cancel(
            self._judge_with_role(comparisons, perspective, role) for role in panel
        )
        names = ", ".join(dict.fromkeys(self.calls.model(role) for role in panel))
        combined = []
        for comparison, members in zip(
            comparisons, zip(*by_judge, strict=True), strict=True
        ):
            judgments = [
                judgment
                for judgments_of_judge in members
                for judgment in judgments_of_judge
            ]
            if len(panel) > 1:
                rater = Rater(perspective.persona, perspective.profile_shown, "", names)
                judgments.append(
                    combine_panel(
                        comparison,
                        rater,
                        [judgments_of_judge[-1] for judgments_of_judge in members],
                    )
                )
            combined.append(judgments)
        return combined

    async def _judge_with_role(
        self, comparisons: Sequence[Comparison], perspective: Perspective, role: Role
    ) -> list[list[Judgment]]:
        """Returns one judge's judgments of each comparison: overall, or on each dimension and
        then overall, weighted."""
        space, settings = self.setup.space, self.setup.recipe.judge
        assert settings is not None
        if settings.by == "overall" or perspective.profile is None:
            return [
                [judgment]
                for judgment in await self._ask_all_passes(
                    comparisons, perspective, role
                )
            ]
        weights = space.weights(perspective.profile)
        comparisons_by_dimension = [
            [replace(comparison, dimension=name) for name in weights]
            if comparison.dimension is None
            else [comparison]
            for comparison in comparisons
        ]
        judged = iter(
            await self._ask_all_passes(
                [
                    comparison
                    for group in comparisons_by_dimension
                    for comparison in group
                ],
                perspective,
                role,
            )
        )
        judgments_by_comparison = []
        for comparison, group in zip(
            comparisons, comparisons_by_dimension, strict=True
        ):
            judgments = [next(judged) for _ in group]
            if comparison.dimension is None:
                judgments.append(
                    combine_dimensions(
                        comparison,
                        self._rater(perspective, role),
                        judgments,
                        list(weights.values()),
                    )
                )
            judgments_by_comparison.append(judgments)
        return judgments_by_comparison

    def _rater(self, perspective: Perspective, role: Role) -> Rater:
        return Rater(
            perspective.persona, perspective.profile_shown, role, self.calls.model(role)
        )

    async def _ask_all_passes(
        self, comparisons: Sequence[Comparison], perspective: Perspective, role: Role
    ) -> list[Judgment]:
        """Returns one judge's judgments, combined over all orders and repeats."""
        settings, ask, combine = (
            self.setup.recipe.judge,
            self.form.ask,
            self.form.combine,
        )
        assert settings is not None and ask is not None and combine is not None
        passes = [
            (orders, f"/repeat {repeat}" if repeat else "")
            for orders in self._orders(comparisons, settings)
            for repeat in range(settings.repeats)
        ]
        verdicts_by_pass: list[list[OrderedVerdict]] = await gather_or_cancel(
            ask(self, Round(comparisons, orders, perspective, role, attempt))
            for orders, attempt in passes
        )
        verdicts_by_order: list[dict[str, list[Verdict]]] = [{} for _ in comparisons]
        for placed in verdicts_by_pass:
            for orders_of_comparison, (order, verdict) in zip(
                verdicts_by_order, placed, strict=True
            ):
                orders_of_comparison.setdefault(order, []).append(verdict)
        rater = self._rater(perspective, role)
        return [
            combine(
                comparison,
                rater,
                verdicts,
                self._question_digest(comparison, perspective),
            )
            for comparison, verdicts in zip(comparisons, verdicts_by_order, strict=True)
        ]

    def _orders(
        self, comparisons: Sequence[Comparison], settings: Judge
    ) -> list[list[str]]:
        """Returns the orders in which each comparison is asked, one list per pass. Answers that
        are rated singly have no order and need one pass."""
        count = len(comparisons)
        if not self.form.has_orders:
            return [["ab"] * count]
        if settings.orders == "both":
            return [["ab"] * count, ["ba"] * count]
        sampling_units = self._sampling_units(comparisons)
        return [
            [
                rng(
                    self.setup.seed, "order", comparison_digest(comparison, "model")
                ).choice(["ab", "ba"])
                for comparison in sampling_units
            ]
        ]

    def _question_digest(self, comparison: Comparison, perspective: Perspective) -> str:
        """Returns a digest of the question that a comparison asks, independent of the order of
        the answers."""
        shown = perspective.text if self.generator.uses("persona") else ""
        perspective_parts = [
            perspective.wants(self.setup.space, comparison.dimension),
            shown,
        ]
        texts = sorted((comparison.a.text, comparison.b.text))
        return digest(
            [[message.as_dict() for message in self.prefix], *texts, *perspective_parts]
        )

    async def rate(
        self,
        candidates: Sequence[Candidate],
        perspective: Perspective,
        role: Role,
        attempt: str = "",
    ) -> list[Rating | None]:
        """Rates each answer; `None` if the rating cannot be parsed."""

        async def one(candidate: Candidate) -> None:
            key = (
                role,
                perspective.persona.id,
                perspective.profile_shown,
                candidate.id + attempt,
            )
            if key not in self.ratings:
                self.ratings[key] = await self._rate_candidate(
                    candidate, perspective, role, attempt
                )

        await gather_or_cancel(one(candidate) for candidate in candidates)
        return [
            self.ratings[
                role,
                perspective.persona.id,
                perspective.profile_shown,
                candidate.id + attempt,
            ]
            for candidate in candidates
        ]

    async def _rate_candidate(
        self, candidate: Candidate, perspective: Perspective, role: Role, attempt: str
    ) -> Rating | None:
        generator, space = self.generator, self.setup.space
        names, (low, high) = (
            generator.front.attributes or ["rating"],
            generator.front.scale,
        )
        schema = object_schema(
            {
                name: {"type": "integer", "minimum": low, "maximum": high}
                for name in names
            }
        )
        variables = {
            "answer": candidate.text,
            "wants": perspective.wants(space, None),
            "attributes": names,
        }

        def read(reply: ChatReply) -> dict[str, float] | ParseFailure:
            return parse_ratings(reply.text, names, low, high)

        parsed, repaired = await self.ask_with_repair(
            perspective, role, variables, read, attempt, schema
        )
        if isinstance(parsed, ParseFailure):
            return None
        weights = space.weights(perspective.profile) if perspective.profile else {}
        fits = (
            generator.front.attributes
            and {*weights} <= {*parsed}
            and sum(weights.values()) > 0
        )
        shares = weights if fits else dict.fromkeys(parsed, 1.0)
        points = sum(share * parsed[name] for name, share in shares.items()) / sum(
            shares.values()
        )
        return Rating(points, parsed, repaired)

    async def scores(
        self, candidates: Sequence[Candidate]
    ) -> dict[str, dict[str, float]]:
        """Scores each answer with the space's scorers and measures, by candidate and
        dimension."""
        axes = self.setup.space.dimensions

        async def one(candidate: Candidate) -> dict[str, float]:
            messages = (*self.prefix, Message("assistant", candidate.text))
            scorers = {
                name: axis.scorer
                for name, axis in axes.items()
                if axis.scorer is not None
            }
            numbers = dict(
                zip(
                    scorers,
                    await gather_or_cancel(
                        self.calls.score(scorer, messages)
                        for scorer in scorers.values()
                    ),
                    strict=True,
                )
            )
            return {
                name: numbers[name]
                if axis.scorer is not None
                else MEASURES[axis.measure or ""](candidate.text)
                for name, axis in axes.items()
            }

        scores_by_candidate = await gather_or_cancel(
            one(candidate) for candidate in candidates
        )
        return {
            candidate.id: scores
            for candidate, scores in zip(candidates, scores_by_candidate, strict=True)
        }

    async def ask_with_repair(
        self,
        perspective: Perspective,
        role: Role,
        variables: JsonObject,
        parse: Callable[[ChatReply], T | ParseFailure],
        attempt: str = "",
        schema: JsonObject | None = None,
    ) -> tuple[T | ParseFailure, bool]:
        """Asks once; if the reply cannot be parsed, asks a second time with the mistake.
        Returns the parsed reply and whether there was a second call."""
        generator, text = self.generator, None if schema is None else json.dumps(schema)
        all_variables = {
            "prefix": [message.as_dict() for message in self.prefix],
            "persona": perspective.text,
            **variables,
        }
        reply = await self.calls.ask(
            role, generator.render(all_variables, self.prefix), attempt, text
        )
        parsed = parse(reply)
        if not isinstance(parsed, ParseFailure):
            return parsed, False
        all_variables["draft"] = reply.text
        second_reply = await self.calls.ask(
            role,
            generator.render(all_variables, self.prefix, hint=parsed.mistake),
            f"{attempt}/again",
            text,
        )
        return parse(second_reply), True
