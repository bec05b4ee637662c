"""Conduct: how a person behaves in a dialogue, drawn before it starts out of declared distributions.

How long and how carelessly people write is not asked of a model by adjectives, which it overdoes (arXiv 2605.20204): it
is asked for a number of words, and the slips of the hand are put in afterwards.

    way = load("oasst1")                         # personas/writing/oasst1.yaml
    conduct = draw(recipe.dialogue, way, scenario, seed)
    typed("I need help.", conduct, rng)  ->  "i need hlep"
"""

from __future__ import annotations

import math
import random
import re
from typing import Annotated

from pydantic import Field, model_validator

from simforge import catalog, documents
from simforge.config import Dialogue
from simforge.documents import Strict
from simforge.identity import rng
from simforge.types import Conduct, Scenario

NINETIETH = 1.2815515655
"Standard normal quantile at 90 %."
SHORTEST, LONGEST = 3, 80
"Words that a message is asked to have."

Share = Annotated[float, Field(ge=0, le=1)]


class Words(Strict):
    """Length of messages in words: log-normal."""

    median: Annotated[float, Field(ge=1)]
    p90: Annotated[float, Field(ge=1)]
    "The 90th percentile."

    @model_validator(mode="after")
    def _ordered(self) -> Words:
        if self.p90 < self.median:
            raise ValueError(f"p90 is {self.p90}, below the median of {self.median}")
        return self


class Writing(Strict):
    """How people write: a file in `personas/writing/`."""

    description: str
    source: str
    "Where the figures come from."
    words: Words
    between: Share = 0.5
    "Share of the variance of log length that lies between people, and not between one person's messages."
    lower_case: Share = 0.0
    "People who start messages in lower case."
    no_stop: Share = 0.0
    "People who leave out the last full stop or question mark."
    languages: dict[str, Annotated[float, Field(gt=0)]] = {}
    "Languages that people write in, with shares; by default the model decides, which is the generator's language."
    typos: Share = 0.0
    "Share of words that are mistyped, on average over people; each person's own is drawn from an exponential."


def load(reference: str) -> Writing:
    """Read a way of writing by name or path; raises `RecipeError` with its mistakes."""
    found = catalog.entry("personas", reference if catalog.is_path(reference) else f"writing/{reference}")
    return documents.validated(documents.read(found.text, found.label), Writing)


def draw(dialogue: Dialogue, way: Writing | None, scenario: Scenario, seed: int) -> Conduct:
    """How the person behaves in this dialogue. The way of writing is the person's, the rest the dialogue's."""
    here, always = rng(seed, "conduct", scenario.key), rng(seed, "writing", scenario.persona.id)
    patience = here.randint(dialogue.patience[0], dialogue.patience[1]) if dialogue.patience else None
    known = dialogue.knowledge
    knowledge = here.choices(list(known), weights=list(known.values()))[0] if known else ""
    if way is None:
        return Conduct(patience, knowledge)
    return Conduct(
        patience,
        knowledge,
        words=way.words.median * math.exp(_spread(way) * math.sqrt(way.between) * always.gauss(0, 1)),
        lower_case=always.random() < way.lower_case,
        no_stop=always.random() < way.no_stop,
        typos=min(0.2, always.expovariate(1 / way.typos)) if way.typos else 0.0,
        language=always.choices(list(way.languages), weights=list(way.languages.values()))[0] if way.languages else "",
    )


def length(way: Writing, conduct: Conduct, scenario: Scenario, turn: int, seed: int) -> int:
    """How many words the person's message of a turn is to have."""
    assert conduct.words is not None
    drawn = rng(seed, "length", f"{scenario.key}/{turn}").gauss(0, _spread(way) * math.sqrt(1 - way.between))
    return round(min(LONGEST, max(SHORTEST, conduct.words * math.exp(drawn))))


def _spread(way: Writing) -> float:
    """Standard deviation of the logarithm of the length."""
    return math.log(max(way.words.p90 / way.words.median, 1.0)) / NINETIETH


def typed(text: str, way: Conduct, source: random.Random) -> str:
    """A message as the person's hands leave it: lower case, no last stop, words mistyped."""
    if way.lower_case and text:
        text = re.sub(r"\bI\b", "i", text[0].lower() + text[1:])
    if way.no_stop:
        text = text.rstrip(".?!") or text
    if way.typos:
        text = re.sub(r"[^\W\d_]{4,}", lambda m: _mistyped(m[0], source) if source.random() < way.typos else m[0], text)
    return text


def _mistyped(word: str, source: random.Random) -> str:
    """Two letters inside swapped, or one of them missing: the commonest slips of a hand."""
    at = source.randrange(1, len(word) - 2)
    if source.random() < 0.5:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + word[at + 1 :]
