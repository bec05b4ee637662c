"""Personas, preference profiles and prompts."""

from __future__ import annotations

import json

import jsonschema
import polars as pl
import pytest

from simforge import config, personas, preferences, prompts
from simforge.errors import RecipeError, SourceError
from simforge.pipeline import prepare

PACK = """\
description: two traits
licence: CC0-1.0
sources: [written for this test]
traits:
  team: {type: string, draw: {categories: {red: 0.25, blue: 0.75}}}
  age: {type: integer, minimum: 20, maximum: 40, draw: {given: team, table: {
    red: {histogram: {edges: [20, 30], weights: [1]}}, blue: {histogram: {edges: [30, 40], weights: [1]}}}}}
text: "{{ team }} {{ age }}"
"""


@pytest.fixture
def pack(tmp_path):
    path = tmp_path / "pack.yaml"
    path.write_text(PACK)
    return personas.load(str(path))


def test_person_i_is_the_same_in_a_cast_of_ten_and_of_ten_thousand():
    everyday = personas.load("everyday")
    few, many = personas.sample(everyday, 10, seed=4), personas.sample(everyday, 10_000, seed=4)
    assert few.frame.equals(many.frame.head(10))
    assert not few.frame.equals(personas.sample(everyday, 10, seed=5).frame)


def test_every_sampled_person_fits_the_packs_own_json_schema():
    everyday = personas.load("everyday")
    cast = personas.sample(everyday, 2_000, seed=0)
    validator = jsonschema.Draft202012Validator(everyday.json_schema())
    assert [error.message for i in range(len(cast)) for error in validator.iter_errors(cast.traits(i))] == []
    assert cast.frame["age"].min() >= 18


def test_shares_and_conditions_are_those_of_the_pack(pack):
    frame = personas.sample(pack, 40_000, seed=1).frame
    share = (frame["team"] == "red").mean()
    assert abs(share - 0.25) < 0.01  # four standard errors
    assert frame.filter(pl.col("team") == "red")["age"].max() == 29
    assert frame.filter(pl.col("team") == "blue")["age"].min() == 30


def test_a_persons_text_is_the_template_over_their_traits(pack):
    cast = personas.sample(pack, 3, seed=1)
    assert cast.text(2) == f"{cast.traits(2)['team']} {cast.traits(2)['age']}"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("red: 0.25", "red: 0.5", r"traits\.team\.draw: the shares sum to 1.25, not 1"),
        ("given: team", "given: tem", "'tem' is not a trait above 'age'; did you mean 'team'"),
        ("blue: {histogram", "green: {histogram", "has no row for team = 'blue' and no default"),
        ("blue: {histogram", "green: {histogram", "team is never 'green'"),
        ("edges: [20, 30]", "edges: [20, 30, 40]", "1 weights need 2 edges, not 3"),
        ("edges: [20, 30]", "edges: [30, 20]", "edges must ascend"),
        ("type: integer", "type: int", "'int' is not allowed; did you mean 'integer'"),
        ("{{ age }}", "{{ agee }}", "'agee' is undefined"),
        ("{categories: {red: 0.25, blue: 0.75}}", "{one_of: [red], given: team, table: {}}", "needs exactly one of"),
        ("{categories: {red: 0.25, blue: 0.75}}", "{faker: {list: last_names, locale: xx_XX}}", "no locale 'xx_XX'"),
        ("  team:", "  id:", "not one of id, index"),
        ("licence: CC0-1.0\n", "", "licence: is missing"),
    ],
)
def test_a_broken_pack_is_refused_with_its_own_sentence(tmp_path, old, new, sentence):
    assert old in PACK
    path = tmp_path / "pack.yaml"
    path.write_text(PACK.replace(old, new))
    with pytest.raises(RecipeError, match=sentence):
        personas.load(str(path))


def test_twins_want_the_opposite_on_every_dimension_and_poles_are_balanced():
    space = preferences.load("psoup")
    drawn = [preferences.draw(space, "psoup", 0, index, mirrored=True) for index in range(400)]
    for one, other in zip(drawn[::2], drawn[1::2], strict=True):
        assert all(a != b for a, b in zip(one.values, other.values, strict=True))
    for dimension in space.dimensions:
        assert len({profile.pole(dimension) for profile in drawn}) == 2
        assert sum(profile.pole(dimension) == drawn[0].pole(dimension) for profile in drawn) == 200


@pytest.mark.parametrize("people", [2, 7, 60])
def test_every_prompt_goes_to_people_who_want_opposite_things(people):
    plan, _ = prepare(config.load("psoup", models=["scripted:"]), people, seed=0)
    wants: dict[str, set[tuple[str, ...]]] = {}
    for scenario in plan.scenarios(0, len(plan)):
        wants.setdefault(scenario.prompt.id, set()).add(scenario.persona.profile.values)
    space = plan.space
    for profiles in wants.values():
        some = next(iter(profiles))
        opposite = tuple(space.opposite(name, pole) for name, pole in zip(space.dimensions, some, strict=True))
        assert any(opposite == other for other in profiles) or any(
            tuple(space.opposite(n, p) for n, p in zip(space.dimensions, one, strict=True)) in profiles
            for one in profiles
        )


def test_a_scenario_does_not_depend_on_the_number_of_people():
    few, _ = prepare(config.load("quickstart"), 4, seed=0)
    many, _ = prepare(config.load("quickstart"), 400, seed=0)
    assert few.scenarios(0, 4) == many.scenarios(0, 4)


def test_people_who_open_dialogues_themselves_bring_different_needs():
    plan, _ = prepare(config.load("quickstart"), 100, seed=0)
    assert len({scenario.need for scenario in plan.scenarios(0, 100)}) == 100


def test_prompts_are_read_from_jsonl_csv_and_parquet_alike(tmp_path):
    rows = [{"q": "Why is the sky blue?", "input": ""}, {"q": "Sum it up.", "input": "A long text."}]
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
        ("p.txt", "why", "prompts come as .jsonl, .csv, .parquet"),
        ("p.parquet", "not parquet", "cannot be read as PARQUET"),
    ],
)
def test_a_prompt_file_that_cannot_be_used_says_why(tmp_path, name, content, sentence):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(SourceError, match=sentence):
        prompts.load(str(path), {"text": "text"})
