"""Behavior of a person in a dialogue, drawn from declared distributions before the dialogue
starts.

Message length and typing errors are not requested from a model with adjectives, which it
overdoes (arXiv 2605.20204). Instead the model is given a number of words, and typing errors are
added to its text afterwards.

    style = load_writing_style("oasst1")         # personas/writing/oasst1.yaml
    behavior = draw_behavior(recipe.dialogue, style, scenario, seed)
    add_typing_errors("I need help.", behavior, rng)  ->  "i need hlep"
"""

from __future__ import annotations

import math
import random
import re
from typing import Annotated

from pydantic import Field, model_validator

from simforge import catalog
from simforge.catalog import documents
from simforge.catalog.documents import Strict
from simforge.identity import rng
from simforge.recipe.schema import Dialogue
from simforge.text.measures import CJK
from simforge.types import Behavior, Scenario

Z_90 = 1.2815515655
"Standard normal quantile at 90 %."


MIN_WORDS, MAX_WORDS = 3, 80
"Minimum and maximum number of words requested for a message."


Share = Annotated[float, Field(ge=0, le=1)]


class MessageLength(Strict):
    """Distribution of message lengths in words: log-normal."""

    median: Annotated[float, Field(ge=1)]
    p90: Annotated[float, Field(ge=1)]
    "The 90th percentile."

    @model_validator(mode="after")
    def _check_order(self) -> MessageLength:
        if self.p90 < self.median:
            raise ValueError(f"p90 is {self.p90}, below the median of {self.median}")
        return self


class WritingStyle(Strict):
    """A writing style: a file in `personas/writing/`."""

    description: str
    source: str
    "Source of the figures."
    words: MessageLength
    variance_between_people: Share = 0.5
    """Share of the variance of log length that is between people; the rest is between one
    person's messages."""
    lower_case: Share = 0.0
    "Share of people who start messages in lower case."
    no_final_punctuation: Share = 0.0
    "Share of people who omit the final full stop or question mark."
    languages: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Languages that people write in, with shares; by default the model decides, which means
    the generator's language."""
    typos: Share = 0.0
    """Mean share of mistyped words over all people; each person's own share is drawn from an
    exponential distribution."""


def load_writing_style(reference: str) -> WritingStyle:
    """Read a writing style by name or path. Raises `RecipeError` with its mistakes."""
    entry = catalog.entry(
        "personas", reference if catalog.is_path(reference) else f"writing/{reference}"
    )
    return documents.validated(documents.read(entry.text, entry.label), WritingStyle)


def draw_behavior(
    dialogue: Dialogue, style: WritingStyle | None, scenario: Scenario, seed: int
) -> Behavior:
    """Draw the person's behavior in this dialogue. The writing style is fixed per person;
    the rest is drawn per dialogue."""
    dialogue_rng, person_rng = (
        rng(seed, "conduct", scenario.key),
        rng(seed, "writing", scenario.persona.id),
    )
    patience = (
        dialogue_rng.randint(dialogue.patience[0], dialogue.patience[1])
        if dialogue.patience
        else None
    )
    knowledge_shares = dialogue.knowledge
    knowledge = (
        dialogue_rng.choices(
            list(knowledge_shares), weights=list(knowledge_shares.values())
        )[0]
        if knowledge_shares
        else ""
    )
    if style is None:
        return Behavior(patience, knowledge)
    return Behavior(
        patience,
        knowledge,
        words=style.words.median
        * math.exp(
            _log_standard_deviation(style)
            * math.sqrt(style.variance_between_people)
            * person_rng.gauss(0, 1)
        ),
        lower_case=person_rng.random() < style.lower_case,
        no_final_punctuation=person_rng.random() < style.no_final_punctuation,
        typos=min(0.2, person_rng.expovariate(1 / style.typos)) if style.typos else 0.0,
        language=person_rng.choices(
            list(style.languages), weights=list(style.languages.values())
        )[0]
        if style.languages
        else "",
    )


def message_length(
    style: WritingStyle, behavior: Behavior, scenario: Scenario, turn: int, seed: int
) -> int:
    """Number of words requested for the person's message at a turn."""
    assert behavior.words is not None
    deviation = rng(seed, "length", f"{scenario.key}/{turn}").gauss(
        0, _log_standard_deviation(style) * math.sqrt(1 - style.variance_between_people)
    )
    return round(min(MAX_WORDS, max(MIN_WORDS, behavior.words * math.exp(deviation))))


def _log_standard_deviation(style: WritingStyle) -> float:
    """Standard deviation of the logarithm of the length."""
    return math.log(max(style.words.p90 / style.words.median, 1.0)) / Z_90


def add_typing_errors(
    text: str, behavior: Behavior, random_source: random.Random
) -> str:
    """Apply the person's typing habits to a message: lower case, no final stop (question marks
    stay, they are no habit), mistyped words."""
    if behavior.lower_case and text:
        text = re.sub(r"\bI\b", "i", text[0].lower() + text[1:])
    if behavior.no_final_punctuation:
        text = text.rstrip(".!。！") or text
    if behavior.typos:
        text = re.sub(
            r"[^\W\d_]{4,}",
            lambda match: (
                _mistype(match[0], random_source)
                if random_source.random() < behavior.typos
                and not CJK.search(match[0])  # not typed letter by letter
                else match[0]
            ),
            text,
        )
    return text


def _mistype(word: str, random_source: random.Random) -> str:
    """Swap two inner letters or drop one: the most common typing errors."""
    position = random_source.randrange(1, len(word) - 2)
    if random_source.random() < 0.5:
        return (
            word[:position] + word[position + 1] + word[position] + word[position + 2 :]
        )
    return word[:position] + word[position + 1 :]
