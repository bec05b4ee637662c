"""Faults planted into clean dialogues, and what the guards make of them.

    uv run python tests/speech/planted.py

`clean.jsonl` has dialogues with user messages as people write them, `held-out.jsonl` messages
as models write them that slip; both were written for this, without a look at the guards.
`seen.jsonl` has those by which the rules were repaired. Each fault stands once in a dialogue,
in place of one message, so that it has that dialogue's history. What fires on a message where
nothing was planted is a false positive.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from simforge.dialogue.guards import GUARDS, GuardedMessage
from simforge.types import Finish, Message

HERE = Path(__file__).parent
RATE = 0.1
"Share of the messages that are planted faults."


@dataclass(frozen=True)
class Seen:
    """One user message of a dialogue, held against what was planted there."""

    planted: str | None
    kind: str
    guarded: GuardedMessage


def read(name: str) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in (HERE / name).read_text(encoding="utf-8").splitlines()
    ]


def messages(dialogue: dict[str, Any]) -> Iterator[tuple[int, GuardedMessage]]:
    """The user messages of a dialogue, as the guards see them, by their place."""
    said = [Message(one["role"], one["content"]) for one in dialogue["messages"]]
    facts = [
        part.strip()
        for part in re.split(r"[.;,]\s+|\.$", dialogue["persona"])
        if part.strip()
    ]
    for place in range(0, len(said), 2):
        yield (
            place,
            GuardedMessage(
                said[place].content,
                said[:place],
                (dialogue["persona"], dialogue["wants"]),
                facts,
            ),
        )


def plant(
    fault: dict[str, Any], dialogue: dict[str, Any], source: random.Random
) -> Seen:
    """A fault in a dialogue, with the context that it needs."""
    changed = {
        **dialogue,
        **{name: fault[name] for name in ("persona", "wants") if name in fault},
    }
    said = [dict(one) for one in dialogue["messages"]]
    places = [0] if fault["fault"] == "recital" else range(2, len(said), 2)
    place = source.choice(list(places))
    text = fault["texts"][1] if "texts" in fault else fault["text"]
    if "texts" in fault:
        said[place - 2]["content"] = fault["texts"][0]
    if "before" in fault:
        said[place - 2]["content"] = fault["before"]
    if "assistant" in fault:
        said[place - 1]["content"] = fault["assistant"]
    said[place]["content"] = text
    guarded = dict(messages({**changed, "messages": said}))[place]
    finish = Finish.length if fault["fault"] == "truncated" else Finish.stop
    return Seen(
        fault["fault"],
        fault.get("kind", ""),
        replace(guarded, text=text, finish=finish),
    )


def seen(name: str = "held-out.jsonl", seed: int = 0) -> list[Seen]:
    """All clean messages, and every fault in a dialogue of its own choosing."""
    source = random.Random(seed)
    clean = read("clean.jsonl")
    english = clean[:60]
    untouched = [
        Seen(None, "", guarded)
        for dialogue in clean
        for _, guarded in messages(dialogue)
    ]
    return untouched + [
        plant(fault, source.choice(english), source) for fault in read(name)
    ]


def table(found: list[Seen]) -> dict[str, dict[str, float]]:
    """By guard: how many faults were planted, the share found, and the share of clean messages
    that it objects to."""
    clean = [one.guarded for one in found if one.planted is None]
    figures = {}
    for name in GUARDS:
        planted = [one for one in found if one.planted == name]
        hits = sum(name in one.guarded.objections([name]) for one in planted)
        false = sum(name in one.objections([name]) for one in clean)
        by_any = sum(bool(one.guarded.objections()) for one in planted)
        figures[name] = {
            "planted": len(planted),
            "recall": hits / len(planted),
            "any": by_any / len(planted),
            "false": false / len(clean),
        }
    return figures


def row(name: str, figures: dict[str, float]) -> str:
    """A line of the table in the guide."""
    found = f"{figures['planted']:.0f} | {figures['recall']:.0%} | {figures['any']:.0%}"
    return f"| {name} | {found} | {figures['false']:.1%} |"


if __name__ == "__main__":
    everything = seen()
    for name, figures in table(everything).items():
        print(row(name, figures))
    if "-v" in sys.argv:
        for one in everything:
            objections = one.guarded.objections()
            if one.planted is None and objections:
                print("FALSE", objections, "|", one.guarded.text[:150])
            if one.planted is not None and one.planted not in objections:
                print(
                    "MISSED", one.planted, one.kind, "|", repr(one.guarded.text[:220])
                )
