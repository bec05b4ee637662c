"""Clusters: what is nearly the same is found, and held out together."""

from __future__ import annotations

import itertools
import json
import random

import polars as pl
from conftest import simforge

from simforge.run.checks import load_recipe
from simforge.run.pipeline import prepare
from simforge.text import near_duplicates

PACK = """
description: People of few kinds
licence: CC0-1.0
sources: [made up]
text: "{{ name }} is {{ age }}, lives in {{ town }} and works as {{ work }}."
traits:
  name: {type: string, draw: {one_of: [Ann, Bo, Cy, Di, Ed, Flo, Gus, Hal]}}
  age: {type: integer, minimum: 20, maximum: 60, draw: {one_of: [30, 40]}}
  town: {type: string, draw: {one_of: [Rome, Oslo, Lima, Cairo, Perth]}}
  work: {type: string, draw: {one_of: [a nurse, a cook, a driver]}}
"""


def alike(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def runs(text: str) -> set[str]:
    plain = " ".join(
        "".join(sign if sign.isalnum() else " " for sign in text.lower()).split()
    )
    return {plain[start : start + 5] for start in range(max(1, len(plain) - 4))}


def test_clusters_are_linked_over_several_steps_and_named_by_their_first():
    chain = [
        {f"w{number}" for number in range(start, start + 60)}
        for start in (0, 4, 8, 12, 500, 12)
    ]
    assert alike(chain[0], chain[3]) < 0.7 < alike(chain[0], chain[1])
    assert near_duplicates.cluster_sets(chain, 0.7, bands=64) == [0, 0, 0, 0, 4, 0]
    assert near_duplicates.cluster_sets(reversed(chain), 0.7, bands=64) == [
        0,
        1,
        0,
        0,
        0,
        0,
    ]
    assert near_duplicates.connected_components(6, [(5, 3), (1, 2), (2, 3)]) == [
        0,
        1,
        1,
        1,
        4,
        1,
    ]
    assert near_duplicates.cluster_sets([], 0.7, bands=64) == []


def test_prompts_are_near_whatever_their_case_and_signs_and_with_a_word_changed():
    first = "How do I look after a sourdough starter while I am away for two weeks?"
    texts = [
        first,
        first.upper().replace("?", " ..."),
        first.replace("two", "three"),
        "Write a poem about my cat.",
    ]
    assert near_duplicates.cluster_prompts(texts) == [0, 0, 0, 3]


def test_nobody_and_nothing_nearly_the_same_is_in_two_splits(tmp_path):
    """Every other person is a copy of somebody with one of twelve traits changed, every third
    prompt of another with a word added; what is in different splits is compared without the
    index."""
    source = random.Random(3)
    traits = [f"t{number}" for number in range(12)]
    people = [{name: source.choice("abcdefgh") for name in traits} for _ in range(200)]
    for one in source.sample(people, 100):
        people.append({**one, source.choice(traits): "z"})
    words = (
        "sun rain wind snow hill lake tree bird fish stone road house bread salt milk door "
        "light song book ship"
    )
    texts = [
        " ".join(source.choice(words.split()) for _ in range(14)) for _ in range(120)
    ]
    texts += [f"{one} please" for one in source.sample(texts, 60)]
    source.shuffle(people)
    pl.DataFrame(people).write_csv(tmp_path / "people.csv")
    (tmp_path / "prompts.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in texts)
    )
    (tmp_path / "p.yaml").write_text(
        "description: x\nlicence: CC0-1.0\nsources: [x]\ntext: '{{ t0 }} {{ t1 }}'\ntraits:\n"
        + "".join(
            f"  {name}: {{type: string, draw: {{one_of: [a, b, c, d, e, f, g, h, z]}}}}\n"
            for name in traits
        )
    )
    out = tmp_path / "out"
    shares = (
        "--set",
        "splits={validation: 0.2, test_personas: 0.2, test_prompts: 0.2}",
        "--set",
        "judge=null",
    )
    given = (
        "--cast",
        tmp_path / "people.csv",
        "--prompts",
        tmp_path / "prompts.jsonl",
        "--model",
        "scripted:",
    )
    made = (
        "--set",
        f"cast.pack={tmp_path / 'p.yaml'}",
        "--set",
        "prompts.group_size=2",
    )
    done = simforge(
        "generate", "psoup", "--personas", 300, *given, *shares, *made, "--out", out
    )
    assert done.status == 0, done.err
    read = {
        path.name.split("-")[0]: pl.read_parquet(path)
        for path in out.glob("data/personas/*.parquet")
    }
    assert {*read} == {"train", "validation", "test_personas"}
    kept = {
        name: [{f"{key}={row[key]}" for key in traits} for row in frame.to_dicts()]
        for name, frame in read.items()
    }
    for one, other in itertools.combinations(kept, 2):
        assert (
            max(alike(a, b) for a in kept[one] for b in kept[other])
            < near_duplicates.PEOPLE_SIMILARITY
        )
    read = {
        path.name.split("-")[0]: pl.read_parquet(path)
        for path in out.glob("data/dialogues/*.parquet")
    }
    said = {
        name: {row[0]["content"] for row in frame["messages"]}
        for name, frame in read.items()
    }
    known = said["train"] | said["validation"]
    assert len(said["test_prompts"]) > 10 and len(known) > 50
    assert (
        max(alike(runs(a), runs(b)) for a in said["test_prompts"] for b in known)
        < near_duplicates.PROMPT_SIMILARITY
    )
    told = json.loads((out / "manifest.json").read_text())["clusters"]
    assert (
        told["personas"]["n"] == 300 and told["personas"]["clusters"] <= 150
    )  # copies, and two to a group
    assert told["prompts"] == {"n": 180, "clusters": 120, "largest": 2}


def test_a_kind_of_people_is_held_out_whole_and_one_that_is_too_many_stays_in_train(
    tmp_path,
):
    (tmp_path / "few.yaml").write_text(PACK)
    splits = [
        f"cast.pack={tmp_path / 'few.yaml'}",
        "splits={validation: 0.1, test_personas: 0.1}",
    ]
    plan, _ = prepare(load_recipe("psoup", splits), 400, 0)
    found: dict[tuple[object, ...], set[str]] = {}
    for person in range(400):
        found.setdefault(tuple(plan.cast.traits(person).values()), set()).add(
            plan.person_split(person)
        )
    assert len(found) < 240 and all(len(held) == 1 for held in found.values())
    assert set().union(*found.values()) == {"train", "validation", "test_personas"}
    (tmp_path / "few.yaml").write_text(
        PACK.replace("[Ann, Bo, Cy, Di, Ed, Flo, Gus, Hal]", "[Ann]")
    )
    plan, _ = prepare(
        load_recipe("psoup", [splits[0], "splits={test_personas: 0.01}"]), 400, 0
    )
    assert {plan.person_split(person) for person in range(400)} == {
        "train"
    }  # all are linked, over those who share answers
