"""An estimate of a run's calls, tokens and pairs, before it starts.

A few scenarios of the plan are run with a model that only counts. The prompts are the real
ones, rendered from the real generators; each answer is assumed to fill a fixed share of the
tokens that its generator allows. The counts are scaled to the whole plan. A token is assumed to
be four characters, so the estimate shows the order of magnitude of the bill, not its cents.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from simforge.dialogue.guards import GUARDS
from simforge.dialogue.play import play
from simforge.models import providers
from simforge.models.budget import load_prices, price_of
from simforge.models.calls import Roles
from simforge.models.contract import ModelSpec
from simforge.models.ledger import Ledger
from simforge.models.scripted import actor
from simforge.recipe.schema import Recipe
from simforge.recipe.setup import Setup
from simforge.run.checks import load_inputs
from simforge.run.models import model_specs
from simforge.run.options import Options
from simforge.run.plan import Plan, make_plan
from simforge.types import ChatReply, ChatRequest, Completion, Finish, Role, Usage

SAMPLE_SCENARIOS = 60
"Minimum number of scenarios to play; it is rounded up to whole groups."


FILL_SHARE = 0.6
"Assumed length of an answer, as a share of the tokens that are allowed."


PLACEHOLDER_SCORE = "0.0"
"The score that every text gets."


CHARACTERS_PER_TOKEN = 4
"Assumed characters per token."


TOKENS_PER_MESSAGE = 4
"Tokens that a chat template adds per message."


class CountingModel:
    """A model that returns placeholder words and counts tokens. Only new requests reach it:
    a request that people share is counted once."""

    def __init__(self, reference: str) -> None:
        self.used = Usage()
        self._provider = providers.provider_of(reference)

    async def chat(self, request: ChatRequest, dialogue: str = "") -> ChatReply:
        answer = PLACEHOLDER_SCORE if self._provider.scores else actor(request)
        text = answer.text if isinstance(answer, ChatReply) else answer
        prompt = sum(
            len(message.content) // CHARACTERS_PER_TOKEN + TOKENS_PER_MESSAGE
            for message in request.messages
        )
        completion = (
            0
            if self._provider.scores
            else 2
            if request.choices
            else max(1, int(request.sampling.max_tokens * FILL_SHARE))
        )
        words = text.split()
        padded = (
            (words * (completion // max(1, len(words)) + 1))[:completion]
            if words and completion > 2 and request.schema is None
            else words
        )
        probabilities = (
            answer.choice_probabilities if isinstance(answer, ChatReply) else {}
        )
        sample_count = request.n if self._provider.draws_many else 1
        self.used += Usage(1, prompt, 0, completion * sample_count)
        text = " ".join(padded)
        answers = (
            tuple(
                Completion(text, Finish.stop, completion) for _ in range(sample_count)
            )
            if sample_count > 1
            else ()
        )
        return ChatReply(
            text,
            Finish.stop,
            prompt,
            0,
            completion * sample_count,
            probabilities,
            answers=answers,
        )

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


async def _simulate_usage(
    plan: Plan, setup: Setup, specs: Mapping[Role, ModelSpec]
) -> tuple[dict[str, Usage], int]:
    """Estimate calls and tokens of a whole run by role (without a writer of people), and the
    maximum number of pairs."""
    setup = replace(setup, recipe=_without_text_checks(setup.recipe))
    settings = plan.recipe.prompts  # whole groups only: people of a group share answers
    scenarios_per_group = settings.group_size * settings.per_persona
    scenarios = plan.scenarios(
        0, -(-SAMPLE_SCENARIOS // scenarios_per_group) * scenarios_per_group
    )
    counters = {role: CountingModel(spec.reference) for role, spec in specs.items()}
    with tempfile.TemporaryDirectory() as scratch, Ledger(Path(scratch)) as ledger:
        roles = Roles(
            {role: (spec, counters[role]) for role, spec in specs.items()},
            ledger,
            setup.seed,
        )
        episodes = [await play(scenario, setup, roles) for scenario in scenarios]
    scale = len(plan) / len(scenarios)
    scales = dict.fromkeys(counters, scale)
    if (
        plan.recipe.candidates.shared == "everyone"
    ):  # a prompt is answered once for everybody
        prompt_count = len(
            {
                scenario.prompt.id
                for scenario in scenarios
                if scenario.prompt is not None
            }
        )
        scorers = [
            role for role, spec in specs.items() if providers.is_scorer(spec.reference)
        ]
        shared = (*plan.recipe.candidates.model_names, *scorers)
        scales |= dict.fromkeys(
            shared, min(scale, len(plan.prompts) / max(1, prompt_count))
        )
    lines = [line for episode in episodes for line in episode.branches]
    comparisons = sum(
        len(line.pairs) + sum(discard.turn is not None for discard in line.discards)
        for line in lines
    )
    return {
        role: _scaled(counter.used, scales[role]) for role, counter in counters.items()
    }, round(comparisons * scale)


def _without_text_checks(recipe: Recipe) -> Recipe:
    """The recipe without checks on texts, because the sample's texts are meaningless words."""
    checks = ("cut_off", "refusal", "off_language", "broken", "near_duplicates", "leak")
    return recipe.model_copy(
        update={
            "dialogue": recipe.dialogue.model_copy(
                update={"guards": dict.fromkeys(GUARDS, "off")}
            ),
            "filters": recipe.filters.model_copy(update=dict.fromkeys(checks, False)),
            "pairing": recipe.pairing.model_copy(update={"max_length_ratio": None}),
        }
    )


def _scaled(usage: Usage, scale: float) -> Usage:
    return Usage(*(round(number * scale) for number in astuple(usage)))


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimated size and cost of a run."""

    dialogues: int
    pairs: int
    "Upper bound: every comparison is decided and every answer passes the filters."
    usage: dict[str, Usage]
    "Calls and tokens by role."
    references: dict[str, str]
    "Model reference by role."
    cost: dict[str, float | None]
    "Cost by role; `None` if the prices do not name its model."


def estimate_run(options: Options) -> Estimate:
    """Estimate the calls, tokens and cost of a run without asking a model. Raises
    `UsageError`."""
    inputs = load_inputs(
        options.pipeline,
        options.overrides,
        options.models,
        options.prompts,
        options.personas,
        options.seed,
        options.cast,
    )
    recipe, setup, plan = inputs.recipe, inputs.setup, make_plan(inputs)
    specs, _ = model_specs(recipe, recipe.roles, options)
    usage, pairs = asyncio.run(_simulate_usage(plan, setup, specs))
    prices = load_prices(options.prices)
    cost = {}
    for role, role_usage in usage.items():
        price = price_of(recipe.models[role], prices)
        cost[role] = price.cost_of(role_usage) if price is not None else None
    return Estimate(
        len(plan),
        pairs,
        usage,
        {role: spec.reference for role, spec in specs.items()},
        cost,
    )
