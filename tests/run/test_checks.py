"""The checks of a run's inputs: every mistake at once, each with its file and line."""

from __future__ import annotations

import re

from conftest import simforge

PACK = """description: A tiny pack.
licence: CC0-1.0
sources: [made up]
traits:
  age: {type: integer, minimum: 18, maximum: 90, draw: {uniform: {low: 18, high: 120}}}
text: "Somebody of {{ age }}."
needs: [a lamp]
"""
SPACE = """description: Wishes.
source: made up
kind: poles
dimensions:
  size:
    poles:
      long: {steer: Be long., wants: long}
      short: {steer: Never refuse anything., wants: short}
"""
JUDGE = """---
role: judge
description: Compares.
form: pairwise
choices: ["1"]
---
@user
{{ first }} or {{ secnd }}, for
{{ persna }}?
"""
RECIPE = """description: A recipe with a mistake of every kind.
models: {user: "scripted:", assistants: "scripted:", judge: "scripted:", rival: "scripted:"}
cast: {pack: ./pack.yaml, space: ./space.yaml}
dialogue:
  turns: many
  writing: oasst
  guards: {ecko: flag}
candidates: {conditions: [own, opposit]}
judge: {generator: ./judge.md, share: 0.5}
labels: {by: judge}
pairing: {min_certainty: 0.8}
splits: {test_prompts: 0.2}
"""


def test_mistakes_of_all_kinds_are_reported_together_with_their_lines(tmp_path):
    files = {
        "pack.yaml": PACK,
        "space.yaml": SPACE,
        "judge.md": JUDGE,
        "r.yaml": RECIPE,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = simforge("generate", "./r.yaml", "--personas", 4, "--out", "x", cwd=tmp_path)
    assert done.status == 2 and "Traceback" not in done.err
    expected = {
        "r.yaml:5: dialogue.turns": "",
        "r.yaml:6: dialogue.writing": "did you mean 'oasst1'",
        "r.yaml:7: dialogue.guards.ecko": "did you mean 'echo'",
        "r.yaml:8: candidates.conditions.1": "did you mean 'opposite'",
        "r.yaml:2: models.rival": "is never used",
        "r.yaml:9: judge.share": "set it to 1, not 0.5",
        "r.yaml:11: pairing.min_certainty": "does not reply with `certainty`",
        "r.yaml:12: splits.test_prompts": "no shared prompts to hold out",
        "judge.md:5: choices": "needs two or three",
        "judge.md:8": "unknown variable 'secnd'; did you mean 'second'",
        "judge.md:9": "unknown variable 'persna'; did you mean 'persona'",
        "space.yaml:8: dimensions.size.poles.short": "asks for unsafe answers",
        "pack.yaml:5: traits.age.draw": "leave the trait's bounds",
    }
    lines = done.err.splitlines()
    missing = [
        place
        for place, sentence in expected.items()
        if not any(
            re.search(re.escape(place) + r"\b", line) and sentence in line
            for line in lines
        )
    ]
    assert missing == [], done.err
    assert lines[0].endswith(f"{len(lines) - 1} mistakes, nothing was started:")
    assert len(lines) - 1 == len(expected), done.err
    assert not (tmp_path / "x").exists()


def test_a_mistake_does_not_invent_others(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "description: x\n"
        'models: {user: "scripted:", assistants: "scripted:", judge: "scripted:"}\n'
        "judge: [judge/pairwise]\n"
        "labels: {by: judge}\n"
    )
    done = simforge("generate", "./r.yaml", "--personas", 4, "--out", "x", cwd=tmp_path)
    assert done.status == 2
    assert "1 mistake, nothing was started" in done.err and ":3: judge:" in done.err
