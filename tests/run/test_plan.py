"""Plans and prompts: who plays what."""

from __future__ import annotations

import json
from dataclasses import replace

import polars as pl
import pytest

from simforge.errors import SourceError
from simforge.recipe import prompts
from simforge.run.checks import load_recipe
from simforge.run.pipeline import prepare


@pytest.mark.parametrize("people", [2, 7, 60])
def test_every_prompt_goes_to_people_who_want_opposite_things(people):
    plan, _ = prepare(load_recipe("psoup", models=["scripted:"]), people, seed=0)
    wants: dict[str, set[tuple[str, ...]]] = {}
    for scenario in plan.scenarios(0, len(plan)):
        wants.setdefault(scenario.prompt.id, set()).add(scenario.persona.profile.values)
    for profiles in wants.values():
        opposites = [tuple(opposite(value) for value in values) for values in profiles]
        assert profiles & set(opposites), "nobody disagrees about this prompt"


def opposite(pole: str) -> str:
    pairs = [
        ("elementary", "expert"),
        ("concise", "informative"),
        ("friendly", "unfriendly"),
    ]
    return dict([*pairs, *((b, a) for a, b in pairs)])[pole]


def test_a_dialogue_does_not_depend_on_the_number_of_people_only_who_else_judges_it_does():
    few, _ = prepare(load_recipe("quickstart"), 4, seed=0)
    many, _ = prepare(load_recipe("quickstart"), 400, seed=0)
    alone = {"audience": (), "stranger": None, "least_informative_trait": ""}
    pairs = zip(few.scenarios(0, 4), many.scenarios(0, 4), strict=True)
    assert all(replace(one, **alone) == replace(other, **alone) for one, other in pairs)


def test_people_who_open_dialogues_themselves_bring_different_needs():
    plan, _ = prepare(load_recipe("quickstart"), 100, seed=0)
    assert len({scenario.need for scenario in plan.scenarios(0, 100)}) == 100


def test_prompts_are_read_from_jsonl_csv_and_parquet_alike(tmp_path):
    rows = [
        {"q": "Why is the sky blue?", "input": ""},
        {"q": "Sum it up.", "input": "A long text."},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pl.DataFrame(rows).write_csv(tmp_path / "p.csv")
    pl.DataFrame(rows).write_parquet(tmp_path / "p.parquet")
    columns = {"text": "q", "context": "input"}
    read = [
        [prompt.text for prompt in prompts.load(str(tmp_path / f"p.{kind}"), columns)]
        for kind in ("jsonl", "csv", "parquet")
    ]
    assert read == [["Why is the sky blue?", "Sum it up.\n\nA long text."]] * 3


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("p.jsonl", '{"text": "a"}\n\n{"text": oops}\n', "line 3: broken JSON"),
        ("p.jsonl", '{"text": "a"}\n["b"]\n', "line 2: must be an object"),
        ("p.jsonl", "", "is empty"),
        ("p.csv", "", "is empty"),
        ("p.csv", "question\nwhy\n", "has no column 'text'; its columns are: question"),
        ("p.jsonl", '{"text": "a"}\n{"text": " "}\n', "row 2 has no text"),
        ("p.jsonl", '{"text": 3}\n', "holds int, not text"),
        ("p.txt", "why", "prompts come as .parquet, .jsonl, .json, .csv"),
        ("p.parquet", "not parquet", "cannot be read as Parquet"),
    ],
)
def test_a_prompt_file_that_cannot_be_used_says_why(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(SourceError, match=sentence):
        prompts.load(str(path), {"text": "text"})
