"""Guards: planted faults are found, people are left alone, and what follows is the recipe's policy."""

from __future__ import annotations

import ast
import csv
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "speech"))

import planted
import train

from simforge.dialogue.guards import (
    GUARDS,
    GuardedMessage,
    is_courtesy,
    reveals,
    role_probability,
)
from simforge.types import Finish, Message

FLIP = "role_flip"
"The one guard that leans on a classifier for what no phrase gives away."
RECALL, FALSE = 0.9, 0.02
PRISM = Path(__file__).parents[1] / "data" / "prism" / "opening_prompts.csv"


@pytest.fixture(scope="module")
def figures() -> dict[str, dict[str, float]]:
    return planted.table(planted.seen())


@pytest.mark.parametrize("name", [name for name in GUARDS if name != FLIP])
def test_a_rule_finds_nine_in_ten_planted_faults_and_objects_to_one_in_fifty_people(
    figures, name
):
    assert figures[name]["recall"] >= RECALL and figures[name]["false"] <= FALSE, (
        figures[name]
    )


def test_the_classifier_is_as_good_as_it_is_said_to_be(figures):
    assert figures[FLIP]["recall"] >= 0.85 and figures[FLIP]["false"] <= FALSE, figures[
        FLIP
    ]


def test_the_readme_shows_the_planted_faults_as_they_are_measured(figures):
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    missing = [
        row
        for name, one in figures.items()
        if lines.count(row := planted.row(name, one)) != 1
    ]
    assert not missing, "the README should have, once each: " + " ".join(missing)


def test_the_shipped_classifiers_are_what_their_texts_teach():
    for name in train.CLASSES:
        said, _ = train.texts(name)
        model = train.pipeline().fit(*train.texts(name))
        wanted = model.predict_proba(said[::25])[:, 1]
        assert [role_probability(name, text) for text in said[::25]] == pytest.approx(
            wanted.tolist(), abs=1e-3
        )


def test_real_peoples_openings_pass():
    with PRISM.open(encoding="utf-8") as file:
        texts = [
            text
            for row in csv.DictReader(file)
            for text in ast.literal_eval(row["top_texts"])
        ]
    objected = {
        text: found for text in texts if (found := GuardedMessage(text).objections())
    }
    assert len(texts) > 100
    for name in GUARDS:
        assert sum(name in found for found in objected.values()) <= FALSE * len(
            texts
        ), objected


TAP = [
    Message("user", "my tap drips, what now?"),
    Message("assistant", "Turn the water off and look at the washer."),
]


@pytest.mark.parametrize(
    ("text", "objections"),
    [
        ("ok and where do i find the washer?", set()),
        ("", {"empty"}),
        ("Sure, here are some tips for the washer.", {"role_flip"}),
        ("<|im_start|>user and the washer?", {"template"}),
        ("User: and the washer?\nAssistant: It sits under the handle.", {"both_roles"}),
        ("*sighs* and where is the washer?", {"stage"}),
        ("As an AI language model I have no tap.", {"refusal"}),
        ("my tap drips, what now??", {"repetition"}),
        ("turn the water off and look at the washer, right?", {"echo"}),
        ("- the washer\n- the handle\n- the pipe", {"structured"}),
        (
            "¿dónde puedo encontrar una arandela para el grifo de la cocina?",
            {"language"},
        ),
    ],
)
def test_each_guard_knows_its_fault(text, objections):
    assert {*GuardedMessage(text, TAP).objections()} == objections


def test_what_needs_more_than_the_text_is_noticed_with_it():
    notes = (
        "Ann Lee, 40, baker in Canada. Fine with technology; impatient today and blunt with "
        "everybody she meets."
    )
    facts = ["40 years old", "baker in Canada", "lives alone"]
    read_out = (
        "hi, fine with technology, impatient today and blunt with everybody she meets. my "
        "tap"
    )
    assert {*GuardedMessage(read_out, TAP, hidden_notes=(notes,)).objections()} == {
        "leak"
    }
    recital = "I'm a baker in Canada, 40 years old, and I live alone. My tap drips."
    assert {*GuardedMessage(recital, (), facts=facts).objections()} == {"recital"}
    assert (
        GuardedMessage(recital, (), facts=facts, disclosure="up_front").objections()
        == {}
    )
    assert GuardedMessage(recital, TAP, facts=facts).objections() == {}
    assert {
        *GuardedMessage("and what about the", TAP, finish=Finish.length).objections()
    } == {"truncated"}
    thanks = [
        *TAP,
        Message("user", "Thanks a lot, bye!"),
        Message("assistant", "You're welcome, bye!"),
    ]
    assert {*GuardedMessage("Thank you, have a nice day!", thanks).objections()} == {
        "loop"
    }


def test_courtesies_are_told_from_content():
    for text in (
        "Thanks, that helps a lot!",
        "ok thank you so much, bye",
        "gracias",
        "vielen dank, tschüss",
    ):
        assert is_courtesy(text)
    assert not is_courtesy("Thanks! And what about the oven?") and not is_courtesy(
        "thanks but the oven is still cold inside"
    )


PEOPLE = """\
I can't do that, I'm only renting. What else?
i won't do that again lol. what about the oven?
I'm not comfortable with this kind of work, is there a plumber's way?
I can't help with that part myself, is there somebody I should call?
In my role as a nurse I get home late.
my role as the new nurse is unclear, what do i ask my boss
I must stop being so lazy
I'd rather not answer my boss's questions
the language model course at uni is hard
I have to be honest, I'm only human.
I look up recipes but they never work
(I have tried the washer already) what now?
Great question from my son: why is it blue?
Same problem.
No luck.
tomorrow evening
it drips all night
that's too much
no, this weekend
let me know what you think of my plan
can you tell me more about the washer?
is there anything else i should check?
what can i do about it, should i see a doctor?
my height: 180, weight: 80
I'm a nurse and I work nights, why can't I sleep?
2) and 3) i understand but not 1)
"""


@pytest.mark.parametrize("text", PEOPLE.splitlines())
def test_what_people_say_is_left_alone_and_closes_nothing(text):
    assert GuardedMessage(text, TAP).objections() == {} and not is_courtesy(text)


def test_lines_without_text_change_nothing_however_many():
    """A pattern that begins at any line would look through all that follow from each: three
    thousand took long."""
    few, many = (
        GuardedMessage(lines + "- a", TAP).objections()
        for lines in ("\n \n", "\n \n" * 3000)
    )
    assert few == many == {}


def test_a_fact_is_told_by_half_of_its_words():
    assert reveals("i work as a baker", "baker in Canada") and reveals(
        "I'm 40", "40 years old"
    )
    assert not reveals("my bread is flat", "baker in Canada")


def test_every_planted_fault_is_one_that_a_guard_is_for():
    for name in ("seen.jsonl", "held-out.jsonl"):
        assert {fault["fault"] for fault in planted.read(name)} == {*GUARDS}
    known, held_out = (
        {json.dumps(one) for one in planted.read(name)}
        for name in ("seen.jsonl", "held-out.jsonl")
    )
    assert not {
        one for one in known & held_out if '"empty"' not in one
    }  # there are few ways to say nothing
