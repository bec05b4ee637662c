"""A dialogue: a person and an assistant, as one coroutine.

    the person speaks -> candidates answer the same prefix -> each comparison is judged -> one answer is gone on with

The coroutine keeps no checkpoints and knows nothing of retries, ledgers or workers. A turn enters the history only
when all of its calls succeeded. A call that fails ends the dialogue as a discard; a bug raises.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from simforge import candidates as answers
from simforge import judging, pairing
from simforge.config import Recipe
from simforge.errors import CallFailed
from simforge.generators import Generator
from simforge.identity import rng
from simforge.measures import WORD, words
from simforge.preferences import Space
from simforge.roles import Calls, Roles
from simforge.types import (
    Candidate,
    Comparison,
    Condition,
    Discard,
    Ending,
    Episode,
    Judgment,
    Message,
    PreferencePair,
    Scenario,
    Turn,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Script:
    """What all dialogues of a run have in common: plain values, so that it travels to the workers once."""

    recipe: Recipe
    space: Space
    user: Generator
    assistant: Generator
    judge: Generator | None
    seed: int


@dataclass(slots=True)
class _Record:
    """What has happened so far; the parts of the episode."""

    history: list[Message] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    judgments: list[Judgment] = field(default_factory=list)
    pairs: list[PreferencePair] = field(default_factory=list)
    discards: list[Discard] = field(default_factory=list)


async def play(scenario: Scenario, script: Script, roles: Roles) -> Episode:
    """Play one scenario to its ending."""
    calls, record = roles.calls(scenario.key), _Record()
    try:
        ending = await _turns(scenario, script, calls, record)
    except CallFailed as problem:
        record.discards.append(Discard(len(record.turns), "dialogue", "model_error", str(problem)))
        ending = Ending.model_error
    return Episode(
        scenario,
        tuple(record.turns),
        ending,
        tuple(record.judgments),
        tuple(record.pairs),
        tuple(record.discards),
        calls.usage,
    )


async def _turns(scenario: Scenario, script: Script, calls: Calls, record: _Record) -> Ending:
    for number in range(script.recipe.dialogue.turns):
        said = await _user_message(scenario, script, calls, record.history)
        if said is None:
            record.discards.append(Discard(number, "dialogue", "broken_role", "the user's message was not a user's"))
            return Ending.broken_role
        if number and closes(said):
            return Ending.satisfied
        prefix = (*record.history, Message("user", said))
        dimensions = answers.contrasts(script.recipe.candidates, script.space, scenario, script.seed, number)
        orders = answers.plan(script.recipe.candidates, script.space, scenario.persona.profile, dimensions)
        asked = (answers.answer(order, scenario, number, prefix, script.assistant, calls) for order in orders)
        made = [one for several in await _together(asked) for one in several]
        flaws = {one.id: answers.flaw(one, said, script.recipe.filters) for one in made}
        judgments, pairs, discards = await _labels(scenario, script, calls, made, flaws, prefix, dimensions)
        going_on = _continued(scenario, script, number, made, flaws, pairs)
        record.turns.append(Turn(number, said, tuple(made), going_on.id if going_on else None))
        record.judgments += judgments
        record.pairs += pairs
        record.discards += discards
        if going_on is None:
            return Ending.no_answer
        record.history += [Message("user", said), Message("assistant", going_on.text)]
    return Ending.max_turns


async def _user_message(scenario: Scenario, script: Script, calls: Calls, history: Sequence[Message]) -> str | None:
    """What the person says next; a message that is not a user's is asked for once more, then given up."""
    if scenario.prompt is not None and not history:
        return scenario.prompt.text
    person = scenario.persona
    wishes = " and ".join(script.space.wishes(person.profile))
    variables = {
        "persona": person.text,
        "traits": person.traits,
        "wants": wishes,
        "need": scenario.need,
        "turn": len(history) // 2,
    }
    for attempt in ("", "/again"):
        # The scenario's key separates people who happen to be described alike.
        reply = await calls.ask("user", script.user, variables, history, "user", attempt=scenario.key + attempt)
        said = unquoted(reply.text)
        if not_a_user(said, history) is None:
            return said
    return None


async def _labels(
    scenario: Scenario,
    script: Script,
    calls: Calls,
    made: Sequence[Candidate],
    flaws: dict[str, str | None],
    prefix: tuple[Message, ...],
    dimensions: Sequence[str | None],
) -> tuple[list[Judgment], list[PreferencePair], list[Discard]]:
    """Judge every comparison of sound answers and make pairs or discards of all."""
    judgments: list[Judgment] = []
    pairs: list[PreferencePair] = []
    discards: list[Discard] = []
    sound = []
    for comparison in pairing.comparisons(script.recipe.pairing, prefix, made, dimensions):
        flawed = next((one for one in (comparison.a, comparison.b) if flaws[one.id]), None)
        if flawed is None:
            sound.append(comparison)
        else:
            detail = f"{comparison.a.condition} / {comparison.b.condition}: the {flawed.condition} answer"
            discards.append(Discard(flawed.turn, "candidates", flaws[flawed.id] or "", detail))
    judged = await _together(_judged(comparison, scenario, script, calls) for comparison in sound)
    for comparison, found in zip(sound, judged, strict=True):
        judgments += found
        outcome = pairing.decide(comparison, found, script.recipe.labels)
        if isinstance(outcome, PreferencePair):
            pairs.append(outcome)
        else:
            discards.append(outcome)
    return judgments, pairs, discards


async def _judged(comparison: Comparison, scenario: Scenario, script: Script, calls: Calls) -> list[Judgment]:
    """Every judgment of one comparison: construction, measure, and the model where the recipe has one."""
    persona, settings = scenario.persona, script.recipe.judge
    rules = [judging.by_construction(comparison), judging.by_measure(comparison, script.space, persona)]
    found = [judgment for judgment in rules if judgment is not None]
    if comparison.a.text.strip() == comparison.b.text.strip():
        return found
    if settings is not None and script.judge is not None and judging.is_judged(comparison, settings, script.seed):
        found.append(await judging.pairwise(comparison, persona, script.space, settings, script.judge, calls))
    return found


def _continued(
    scenario: Scenario,
    script: Script,
    number: int,
    made: Sequence[Candidate],
    flaws: dict[str, str | None],
    pairs: Sequence[PreferencePair],
) -> Candidate | None:
    """The answer that enters the history; none that is empty, cut off or quotes its steering may."""
    policy = script.recipe.dialogue.continue_with
    sound = [one for one in made if flaws[one.id] is None]
    if not sound:
        return None
    if policy == "random":
        return rng(script.seed, "continue", f"{scenario.key}/{number}").choice(sound)
    if pairs:
        return pairs[0].chosen if policy == "preferred" else pairs[0].rejected
    return next((one for one in sound if one.condition == Condition.own), sound[0])


def unquoted(text: str) -> str:
    """A message without the quotation marks or the dash that small models put around it."""
    text = text.strip().removeprefix("- ").strip()
    if len(text) > 1 and text[0] in "\"'“" and text[-1] in "\"'”" and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def not_a_user(text: str, history: Sequence[Message]) -> str | None:
    """Why a message cannot be a user's, or `None`: no words, template tokens, notes read aloud, an assistant's
    phrases, the last message again, or far too long."""
    if words(text) < 2:
        return "no words"
    if _MARKUP.search(text):
        return "template tokens, or the notes read aloud"
    if _ASSISTANT.search(text):
        return "an assistant's phrase"
    if any(message.role == "user" and _alike(message.content, text) for message in history):
        return "said before"
    return "too long" if words(text) > 120 else None


def _alike(one: str, other: str) -> bool:
    """Whether two messages share most of their words (Jaccard similarity above 0.7)."""
    left, right = set(WORD.findall(one.lower())), set(WORD.findall(other.lower()))
    return len(left & right) > 0.7 * len(left | right)


def closes(text: str) -> bool:
    """Whether a later message only thanks or takes leave."""
    return "?" not in text and words(text) <= 30 and _CLOSING.search(text) is not None


async def _together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Results in order; the first failure cancels the rest, so that a failed turn asks nothing more."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


_MARKUP = re.compile(
    r"<\||\|>|^\W*(?:user|assistant|human|ai|system|person|needs help with|first message)\s*:|the assistant answered"
    r"|next message|```",
    re.IGNORECASE | re.MULTILINE,
)
_ASSISTANT = re.compile(
    r"^(?:sure|certainly|of course|absolutely)\b[,!.]|how (?:can|may) i (?:help|assist) you|i(?:'|’)?m here to help"
    r"|as an ai\b|happy to (?:help|assist)|i can (?:help|assist) you|here are (?:some|a few)|let me know if you"
    r"|i(?:'|’)?m sorry,? but i can",
    re.IGNORECASE,
)
_CLOSING = re.compile(r"\b(?:thanks|thank you|thx|cheers|bye|goodbye|that(?:'|’)s all|great help)\b", re.IGNORECASE)
