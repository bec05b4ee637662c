"""What a run will take, before it starts.

A few scenarios of the plan are played with a model that only counts: prompts are the real ones, rendered from the real
generators, and answers are as long as a share of what the generators allow. What they took is scaled to the whole plan.
A token is taken to be four characters; the guess is good for the size of the bill, not for its cents.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import astuple, replace
from pathlib import Path

from simforge.config import SCORING, Recipe
from simforge.dialogue import play
from simforge.guards import GUARDS
from simforge.ledger import Ledger
from simforge.models import SERVED, ModelSpec
from simforge.models.scripted import actor
from simforge.plan import Plan
from simforge.roles import Roles
from simforge.script import Script
from simforge.types import ChatReply, ChatRequest, Finish, Role, Said, Usage

SAMPLE = 60
"Scenarios that are played, or a few more."
FILL = 0.6
"Share of the allowed tokens that an answer is taken to have."
SCORE = "0.0"
"What a text is taken to be worth."
CHARACTERS = 4
"Per token."
OVERHEAD = 4
"Tokens of a chat template per message."


class Counter:
    """A model that gives words and counts tokens. Only new requests reach it: what people share is asked once."""

    def __init__(self, reference: str) -> None:
        self.used = Usage()
        provider = reference.partition(":")[0]
        self._scores = provider in ("score", "reward")
        self._served = provider in SERVED
        "Whether it stands for an endpoint, which draws several answers for one reading of the prompt."

    async def chat(self, request: ChatRequest, dialogue: str = "") -> ChatReply:
        said = SCORE if self._scores else actor(request)
        text = said.text if isinstance(said, ChatReply) else said
        prompt = sum(len(message.content) // CHARACTERS + OVERHEAD for message in request.messages)
        completion = 0 if self._scores else 2 if request.choices else max(1, int(request.sampling.max_tokens * FILL))
        words = text.split()
        longer = (
            (words * (completion // max(1, len(words)) + 1))[:completion]
            if words and completion > 2 and request.schema is None
            else words
        )
        probabilities = said.choice_probabilities if isinstance(said, ChatReply) else {}
        drawn = request.n if self._served else 1
        self.used += Usage(1, prompt, 0, completion * drawn)
        text = " ".join(longer)
        answers = tuple(Said(text, Finish.stop, completion) for _ in range(drawn)) if drawn > 1 else ()
        return ChatReply(text, Finish.stop, prompt, 0, completion * drawn, probabilities, answers=answers)

    async def close(self) -> None:
        """Nothing to let go of."""


async def estimate(plan: Plan, script: Script, specs: Mapping[Role, ModelSpec]) -> tuple[dict[str, Usage], int]:
    """Calls and tokens of a whole run by role (without a writer of people), and how many pairs there are at most."""
    script = replace(script, recipe=_lenient(script.recipe))
    settings = plan.recipe.prompts  # people of a group share answers: whole groups, or the sharing would be missed
    group = settings.people * settings.per_persona
    scenarios = plan.scenarios(0, -(-SAMPLE // group) * group)
    counters = {role: Counter(spec.reference) for role, spec in specs.items()}
    with tempfile.TemporaryDirectory() as scratch, Ledger(Path(scratch)) as ledger:
        roles = Roles({role: (spec, counters[role]) for role, spec in specs.items()}, ledger, script.seed)
        played = [await play(scenario, script, roles) for scenario in scenarios]
    scale = len(plan) / len(scenarios)
    scales = dict.fromkeys(counters, scale)
    if plan.recipe.candidates.shared == "everyone":  # a prompt is answered once, whoever gets it
        asked = len({one.prompt.id for one in scenarios if one.prompt is not None})
        scorers = [role for role, spec in specs.items() if spec.reference.startswith(SCORING)]
        shared = (*plan.recipe.candidates.models, *scorers)
        scales |= dict.fromkeys(shared, min(scale, len(plan.prompts) / max(1, asked)))
    lines = [line for episode in played for line in episode.lines]
    compared = sum(len(line.pairs) + sum(one.turn is not None for one in line.discards) for line in lines)
    return {role: _scaled(counter.used, scales[role]) for role, counter in counters.items()}, round(compared * scale)


def _lenient(recipe: Recipe) -> Recipe:
    """The recipe without what looks at texts: those of the sample are words without sense."""
    checks = ("cut_off", "refusal", "off_language", "broken", "near_duplicates", "leak")
    return recipe.model_copy(
        update={
            "dialogue": recipe.dialogue.model_copy(update={"guards": dict.fromkeys(GUARDS, "off")}),
            "filters": recipe.filters.model_copy(update=dict.fromkeys(checks, False)),
            "pairing": recipe.pairing.model_copy(update={"length_ratio": None}),
        }
    )


def _scaled(used: Usage, scale: float) -> Usage:
    return Usage(*(round(number * scale) for number in astuple(used)))
