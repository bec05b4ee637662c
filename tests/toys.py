"""A toy extension of every kind, added from outside, and a run that uses them all.

    python tests/toys.py FOLDER

Each toy is one object. Nothing in SimForge is changed for it, which is what a test holds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from simforge.audit import sections
from simforge.dataset import tables
from simforge.dataset.columns import Column, TurnRow
from simforge.dialogue.guards import Guard, GuardedMessage
from simforge.judging.aggregation import by_model
from simforge.judging.forms import (
    FORMS,
    JUDGE_VARIABLES,
    JudgeForm,
    OrderedVerdict,
    Round,
)
from simforge.judging.judge import TurnJudge
from simforge.judging.parsing import parse_word, verdict_or_unreadable
from simforge.models import scripted
from simforge.models.contract import Model, ModelSpec
from simforge.models.providers import PROVIDERS, Provider
from simforge.personas.distributions import Distribution, Number
from simforge.personas.pack import add_distribution
from simforge.recipe.conditions import CONDITIONS, Condition, Steering
from simforge.text.measures import measure
from simforge.types import Verdict


class Loud(Provider):
    """A provider: the scripted actor, in capitals."""

    about = "the scripted actor, in capitals"

    def resolve(self, name: str, access: Any, server_arguments: str) -> ModelSpec:
        return ModelSpec(f"loud:{name}", f"loud:{name}", "Apache-2.0", "a loud model")

    async def open(self, spec: ModelSpec, admit: Any, bounds: Any) -> Model:
        return _Shouting("")


class _Shouting(scripted.ScriptedModel):
    async def chat(self, request: Any, dialogue: str = "") -> Any:
        reply = await super().chat(request, dialogue)
        if request.choices or request.schema:
            return reply
        return scripted.make_reply(request, reply.text.upper())


async def _ask_for_one_word(judge: TurnJudge, asked: Round) -> list[OrderedVerdict]:
    """A judge form: one comparison a call, in a word."""
    words = judge.generator.front.choices
    verdicts: list[Verdict] = []
    for comparison in asked.as_shown():
        variables = {"one": comparison.a.text, "other": comparison.b.text}
        parsed = await judge.ask_with_repair(
            asked.perspective,
            asked.role,
            variables,
            lambda reply: parse_word(reply, words),
            asked.attempt,
        )
        verdicts.append(verdict_or_unreadable(*parsed))
    return list(zip(asked.orders, verdicts, strict=True))


class Triangular(Distribution):
    """A distribution: from 0 to `high`, falling in a straight line."""

    high: Number

    @property
    def support(self) -> tuple[float, float]:
        return 0.0, self.high

    def quantile(self, uniform: Any) -> Any:
        return self.high * (1 - np.sqrt(1 - uniform))

    def cdf(self, numbers: Any) -> Any:
        return 1 - (1 - np.clip(numbers / self.high, 0, 1)) ** 2


@measure
def capitals(text: str) -> float:
    """A measure: letters in upper case."""
    return float(sum(map(str.isupper, text)))


def _has_no_anchor(message: GuardedMessage) -> str | None:
    return "an anchor" if "anchor" in message.text.lower() else None


def _loudness(row: TurnRow) -> float:
    return capitals(row.turn.user)


def add_all() -> None:
    """One line for each kind of extension."""
    PROVIDERS.add("loud", Loud())
    FORMS.add(
        "toy_word",
        JudgeForm(
            about="one comparison of two answers, decided in a word",
            variables={**JUDGE_VARIABLES, "one": "x", "other": "x"},
            ask=_ask_for_one_word,
            combine=by_model,
            calls=lambda compared, dimensions, answers: compared * dimensions,
            needs_choices=True,
        ),
    )
    CONDITIONS.add(
        "loud", Condition("told to shout", lambda request: [Steering(None, "Shout.")])
    )
    add_distribution("triangular", Triangular)
    anchor = Guard(_has_no_anchor, "speaks of an anchor", "flag", "No anchors.")
    tables.add_guard("anchor", anchor)
    loudness = Column("loudness", pa.float64(), "Capitals of the message.", _loudness)
    tables.add_column("turns", loudness)
    sections.SECTIONS.add(
        "loudness",
        sections.Section(
            order=100,
            quick=lambda data: {
                "loudness": {"value": 1.0, "n": 1, "interval": [1.0, 1.0]}
            },
            findings=lambda results: iter([(sections.GOOD, "It is loud.")]),
            rows=lambda results: iter(
                [("Loudness", [("loudness", results["loudness"], "high")])]
            ),
        ),
    )


PACK = """
description: People of a toy.
licence: CC0-1.0
sources: [made up]
traits:
  age: {type: number, draw: {triangular: {high: 90}}}
text: "Somebody of {{ age }}."
needs: [a lamp]
"""
SPACE = """
description: A toy's wishes.
kind: poles
source: made up
dimensions:
  volume:
    poles:
      loud: {steer: Shout., wants: loud, side: high}
      quiet: {steer: Whisper., wants: quiet, side: low}
    measure: capitals
    gap: 1
"""
JUDGE = """---
role: judge
description: A toy's judge.
form: toy_word
choices: ["1", "2"]
---
@user
{{ one }} or {{ other }}, for {{ persona }}?
"""
RECIPE = """
description: A run of toys.
models: {user: "loud:", assistants: "loud:", judge: "loud:"}
cast: {pack: ./pack.yaml, space: ./space.yaml}
candidates: {conditions: [own, loud, opposite]}
judge: {generator: ./judge.md}
pairing: {compare: [[own, opposite], [own, loud]]}
labels: {by: judge, check: none}
filters: {leak: false}
dialogue: {guards: {anchor: flag}}
"""
VIEW = '''"""View of a toy: one column."""


def frame(run):
    return run.pairs().select("prompt", loud="chosen_condition")
'''


def main(folder: Path) -> int:
    from simforge.cli.main import main as simforge

    for name, text in (
        ("pack.yaml", PACK),
        ("space.yaml", SPACE),
        ("judge.md", JUDGE),
        ("toys.yaml", RECIPE),
        ("view.py", VIEW),
    ):
        (folder / name).write_text(text.lstrip("\n"), encoding="utf-8")
    run = str(folder / "RUN")
    return (
        simforge(["generate", "./toys.yaml", "--personas", "12", "--out", run])
        or simforge(["personas", "check", "./pack.yaml", "-n", "5000"])
        or simforge(
            ["export", run, "--view", "./view.py", "--to", str(folder / "x.jsonl")]
        )
    )


if __name__ == "__main__":
    import os

    os.chdir(sys.argv[1])
    add_all()
    sys.exit(main(Path(sys.argv[1])))
