"""Preference pairs with a planted truth: answers made of random words, and people who like some
of what is in them.

A person has two traits, each one of two things. What decides a label is the utility of the
chosen answer over that of the other: a common part, which all agree on, and a personal one,
which turns with the traits; `dose` is the personal one's share. Both follow the style of the
answers (how many words, exclamation marks, questions, bullets, commas).
"""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import polars as pl

WORDS = (
    "sun rain wind snow hill lake tree bird fish stone road house bread salt milk door light "
    "song book ship river "
    "cloud garden winter summer lamp table chair paper music city village forest field morning "
    "evening"
).split()
PERSONAL = (("exclamation", "bullets"), ("question", "commas"))
"What the first and the second trait turn."


def answer(source: random.Random) -> tuple[str, dict[str, float]]:
    """A text and what is in it, each about a standard deviation around 0."""
    parts = {
        name: source.choice((-1.0, 0.0, 1.0))
        for name in ("length", "exclamation", "question", "bullets", "commas")
    }
    words = [
        source.choice(WORDS)
        for _ in range(round(40 * math.exp(0.35 * parts["length"])))
    ]
    for _ in range(int(3 * (parts["commas"] + 1))):
        words[source.randrange(len(words) - 1)] += ","
    text = " ".join(words) + "."
    text += " Oh!" * int(2 * (parts["exclamation"] + 1)) + " Or?" * int(
        2 * (parts["question"] + 1)
    )
    text += "".join(
        f"\n- {source.choice(WORDS)}" for _ in range(int(2 * (parts["bullets"] + 1)))
    )
    return text, parts


def planted(
    dose: float, pairs: int = 6_000, people: int = 200, seed: int = 0
) -> tuple[pl.DataFrame, float]:
    """The pairs, with the columns `prompt`, `chosen`, `rejected`, `persona` and two traits; and
    the truth: bits a pair that the traits tell to somebody who knows all the utilities."""
    source = random.Random(seed)
    traits = [(source.choice("ab"), source.choice("cd")) for _ in range(people)]
    rows: list[dict[str, Any]] = []
    bits = []
    for _ in range(pairs):
        person = source.randrange(people)
        (one, a), (two, b) = answer(source), answer(source)
        gap = {name: a[name] - b[name] for name in a}

        def p(first: str, second: str, gap: dict[str, float] = gap) -> float:
            signs = (1 if first == "a" else -1, 1 if second == "c" else -1)
            personal = sum(
                sign * gap[name]
                for sign, names in zip(signs, PERSONAL, strict=True)
                for name in names
            )
            return 1 / (
                1 + math.exp(-(1 - dose) * 1.2 * gap["length"] - dose * 0.8 * personal)
            )

        mine, anyone = p(*traits[person]), sum(p(x, y) for x in "ab" for y in "cd") / 4
        bits.append(_entropy(anyone) - _entropy(mine))
        better, worse = (one, two) if source.random() < mine else (two, one)
        first, second = traits[person]
        prompt = f"Prompt {source.randrange(800)} about {source.choice(WORDS)}"
        rows.append(
            {
                "prompt": prompt,
                "chosen": better,
                "rejected": worse,
                "persona": f"p{person}",
                "first": first,
                "second": second,
            }
        )
    return pl.DataFrame(rows), float(np.mean(bits))


def _entropy(p: float) -> float:
    return -sum(x * math.log2(x) for x in (p, 1 - p) if x > 0)
