"""Simulated users: what moves them, how they write, and the dialogues and trees that come of it."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from itertools import pairwise

import polars as pl
import pytest
from conftest import simforge
from helpers import generated, played, recipe_of, table

from simforge.dialogue.guards import GUARDS, GuardedMessage, is_courtesy, reveals
from simforge.dialogue.user import User, without_quotes
from simforge.errors import RecipeError, SimForgeError
from simforge.identity import file_sha256, rng
from simforge.judging import parsing
from simforge.recipe.behavior import (
    MAX_WORDS,
    add_typing_errors,
    draw_behavior,
    load_writing_style,
    message_length,
)
from simforge.run.checks import TEMPLATE_VARIABLES
from simforge.run.pipeline import prepare
from simforge.types import Behavior, Ending

# What moves a user.


def test_facts_are_told_one_a_turn_in_an_order_of_their_own_and_recorded_as_told(
    tmp_path,
):
    (episode,) = played(
        tmp_path,
        "aloe",
        "dialogue.turns=4",
        model="scripted:scripts:says_what_it_is_told",
    )
    (line,) = episode.branches
    told = [turn.user_turn.revealed_facts for turn in line.turns]
    assert (
        all(len(new) == 1 for new in told)
        and len({n for new in told for n in new}) == 4
    )
    for turn in line.turns:
        assert episode.scenario.facts[turn.user_turn.revealed_facts[0]] in turn.user


def test_what_is_told_up_front_is_told_in_the_opening(tmp_path):
    overrides = ("dialogue.turns=2", "dialogue.disclosure=up_front")
    (episode,) = played(
        tmp_path, "aloe", *overrides, model="scripted:scripts:says_what_it_is_told"
    )
    assert len(episode.branches[0].turns[0].user_turn.revealed_facts) == len(
        episode.scenario.facts
    )
    assert (
        episode.branches[0].turns[0].user_turn.flags == ()
    )  # no recital where it was asked for


def test_goals_come_up_one_a_turn_and_are_met_by_an_answer_that_takes_them_up(tmp_path):
    (episode,) = played(
        tmp_path,
        "quickstart",
        "dialogue.turns=3",
        model="scripted:scripts:asks_and_answers",
    )
    turns = episode.branches[0].turns
    assert [turn.user_turn.raised_goals for turn in turns] == [(), (0,), (1,)]
    assert [turn.user_turn.met_goals for turn in turns] == [(), (0,), (1,)]


def test_people_leave_when_their_patience_is_used_up(tmp_path):
    overrides = (
        "dialogue.turns=8",
        "dialogue.continue_with=rejected",
        "dialogue.patience=[2,2]",
        "dialogue.goals=false",
    )
    (episode,) = played(tmp_path, "quickstart", *overrides, "labels.check=none")
    (line,) = episode.branches
    assert (line.ending, len(line.turns)) == (Ending.gave_up, 2)
    assert [turn.user_turn.mood for turn in line.turns] == ["", "a little impatient"]
    calm = played(
        tmp_path,
        "quickstart",
        *overrides[:2],
        "dialogue.goals=false",
        "labels.check=none",
    )[0].branches[0]
    assert (calm.ending, calm.turns[-1].user_turn.mood) == (Ending.max_turns, "fed up")


def test_what_people_know_and_how_patient_they_are_is_drawn_as_declared():
    recipe = recipe_of(
        "quickstart",
        "dialogue.knowledge={nothing: 3, a lot: 1}",
        "dialogue.patience=[1,4]",
        "dialogue.continue_with=random",
    )
    plan, script = prepare(recipe, 1000, seed=0)
    drawn = [
        draw_behavior(recipe.dialogue, None, one, 0) for one in plan.scenarios(0, 1000)
    ]
    knows = Counter(one.knowledge for one in drawn)
    assert 0.71 < knows["nothing"] / 1000 < 0.79
    assert {one.patience for one in drawn} == {1, 2, 3, 4} and script.writing is None


def test_people_write_in_the_languages_that_are_declared_and_the_model_is_told(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    way = tmp_path / "way.yaml"
    way.write_text(
        "description: d\nsource: s\nwords: {median: 10, p90: 30}\nlanguages: {Spanish: 1, "
        "English: 3}\n",
        encoding="utf-8",
    )
    recipe = recipe_of("quickstart", f"dialogue.writing={way}")
    plan, script = prepare(recipe, 800, seed=0)
    drawn = [
        draw_behavior(recipe.dialogue, script.writing, one, 0).language
        for one in plan.scenarios(0, 800)
    ]
    assert 0.2 < drawn.count("Spanish") / 800 < 0.3 and {*drawn} == {
        "Spanish",
        "English",
    }
    played(
        tmp_path,
        "quickstart",
        f"dialogue.writing={way}",
        model="scripted:scripts:recording",
    )
    first = json.loads((tmp_path / "calls").read_text().splitlines()[0])
    assert f"Writes in {drawn[0]}." in first[-1]["content"]


@pytest.mark.parametrize("name", ["oasst1", "arena", "clariq", "simulatorarena"])
def test_messages_are_asked_to_be_as_long_as_peoples_are(name):
    way = load_writing_style(name)
    recipe = recipe_of("quickstart", f"dialogue.writing={name}")
    plan, _ = prepare(recipe, 3000, seed=0)
    lengths = []
    for scenario in plan.scenarios(0, 3000):
        drawn = draw_behavior(recipe.dialogue, way, scenario, 0)
        lengths.append(message_length(way, drawn, scenario, 0, 0))
    assert statistics.median(lengths) == pytest.approx(way.words.median, rel=0.1)
    assert statistics.quantiles(lengths, n=10)[-1] == pytest.approx(
        min(way.words.p90, MAX_WORDS), rel=0.15
    )


def test_slips_of_the_hand_are_put_in_and_belong_to_the_person():
    careless = Behavior(lower_case=True, no_final_punctuation=True, typos=1.0)
    text = typed = add_typing_errors(
        "Please help me, I need bread.", careless, rng(0, "t", "k")
    )
    assert re.fullmatch(r"pl?e?a?s?e?\w* he?l?p? ?\w* ?me, i \w+ \w+", text), text
    assert (
        typed != "please help me, i need bread"
        and len(typed) >= len("please help me, i need bread") - 4
    )
    assert (
        add_typing_errors("Please help.", Behavior(), rng(0, "t", "k"))
        == "Please help."
    )


def test_the_way_of_writing_is_the_persons_and_shows_in_the_run(tmp_path):
    out = generated(
        tmp_path / "r", "quickstart", "--set", "dialogue.writing=clariq", people=60
    )
    people = table(out, "dialogues").unnest("behavior")
    lower = people.filter("lower_case")["id"].to_list()
    assert 0.15 < len(lower) / 60 < 0.5
    said = table(out, "turns").select(
        "dialogue_id", first=pl.col("text").str.slice(0, 1)
    )
    assert (
        said.filter(pl.col("dialogue_id").is_in(lower))["first"]
        .str.contains("[a-z]")
        .all()
    )
    assert (
        not said.filter(~pl.col("dialogue_id").is_in(lower))["first"]
        .str.contains("[a-z]")
        .any()
    )


def test_a_model_that_is_trained_to_be_a_user_gets_its_own_format_and_ends_by_its_token(
    tmp_path,
):
    (episode,) = played(
        tmp_path,
        "quickstart",
        "dialogue.user=user/userlm",
        model="scripted:scripts:is_a_user_model",
    )
    (line,) = episode.branches
    assert (line.ending, len(line.turns), line.closing) == (Ending.satisfied, 1, None)


def test_small_models_quotation_marks_are_left_out():
    assert (
        without_quotes('"How do I start?"')
        == without_quotes("- How do I start?")
        == "How do I start?"
    )


def test_generators_are_rehearsed_with_what_a_user_is_told(tmp_path):
    plan, script = prepare(recipe_of("quickstart"), 1, seed=0)
    user = User.of(plan.scenario(0), script)
    assert {*TEMPLATE_VARIABLES["user"]} == {
        *user.dialogue_variables(),
        *user.turn_variables(0),
        "draft",
    }


def test_a_shared_prompt_tells_nothing_of_the_person(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        '{"text": "I am a factory worker and I live in India with my parents, what now?"}\n'
    )
    (episode, *_) = played(
        tmp_path, "quickstart", f"prompts.source={prompts}", "dialogue.turns=2"
    )
    assert (
        episode.scenario.facts
        and episode.branches[0].turns[0].user_turn.revealed_facts == ()
    )


# What follows when a guard objects.


@pytest.mark.parametrize(
    ("policy", "ending", "turns", "flags", "repaired"),
    [
        ("repair", Ending.max_turns, 2, [(), ()], [(), ("stage",)]),
        ("nudge", Ending.max_turns, 2, [(), ()], [(), ("stage",)]),
        ("flag", Ending.max_turns, 2, [(), ("stage",)], [(), ()]),
        ("cut", Ending.broken_role, 1, [()], [()]),
        ("discard", Ending.guarded, 1, [()], [()]),
        ("off", Ending.max_turns, 2, [(), ()], [(), ()]),
    ],
)
def test_the_recipe_says_what_follows(tmp_path, policy, ending, turns, flags, repaired):
    overrides = (
        f"dialogue.guards.stage={policy}",
        "dialogue.turns=2",
        "labels.check=none",
    )
    (episode,) = played(
        tmp_path, "quickstart", *overrides, model="scripted:scripts:sighs_once"
    )
    (line,) = episode.branches
    assert (line.ending, len(line.turns)) == (ending, turns)
    assert [turn.user_turn.flags for turn in line.turns] == flags and [
        turn.user_turn.repaired for turn in line.turns
    ] == repaired
    assert bool(line.pairs) == (policy != "discard")
    reasons = {one.reason for one in line.discards if one.stage == "dialogue"}
    assert reasons == ({ending.value} if ending != Ending.max_turns else set())


def test_a_message_that_cannot_be_mended_ends_the_dialogue_or_stays_with_its_flag(
    tmp_path,
):
    always = {"model": "scripted:scripts:sighs_always"}
    (line,) = played(tmp_path, "quickstart", "dialogue.guards.stage=repair", **always)[
        0
    ].branches
    assert (line.ending, len(line.turns)) == (Ending.broken_role, 0)
    (line,) = played(
        tmp_path,
        "quickstart",
        "dialogue.guards.stage=nudge",
        "dialogue.turns=1",
        **always,
    )[0].branches
    assert (line.ending, line.turns[0].user_turn.flags) == (
        Ending.max_turns,
        ("stage",),
    )


def test_a_guard_that_does_not_exist_is_refused_with_the_nearest():
    with pytest.raises(
        RecipeError, match="there is no guard 'stagee'; did you mean 'stage'"
    ):
        recipe_of("quickstart", "dialogue.guards.stagee=flag")


def test_the_guards_can_be_listed():
    shown = simforge("show", "guards")
    assert shown.status == 0 and "role_flip" in shown.out and "repair" in shown.out


def test_what_forbids_most_decides_where_guards_differ(tmp_path):
    strict = (
        "dialogue.guards.stage=repair",
        "dialogue.guards.structured=discard",
        "labels.check=none",
    )
    (line,) = played(
        tmp_path, "quickstart", *strict, model="scripted:scripts:sighs_in_bold"
    )[0].branches
    assert (line.ending, line.pairs, {*line.rejected_by}) == (
        Ending.guarded,
        (),
        {"stage", "structured"},
    )


def test_a_second_try_that_is_worse_leaves_the_first(tmp_path):
    mild = ("dialogue.guards.structured=flag", "dialogue.turns=1")
    (line,) = played(
        tmp_path, "quickstart", *mild, model="scripted:scripts:first_bold_then_sighing"
    )[0].branches
    assert (line.ending, line.turns[0].user_turn.flags) == (
        Ending.max_turns,
        ("truncated", "structured"),
    )


def test_people_who_say_nothing_new_are_cut_short(tmp_path):
    loose = (
        "dialogue.guards.repetition=off",
        "dialogue.turns=6",
        "dialogue.goals=false",
    )
    (line,) = played(
        tmp_path, "quickstart", *loose, model="scripted:scripts:says_nothing_new"
    )[0].branches
    assert (line.ending, len(line.turns), line.rejected_by) == (
        Ending.loop,
        2,
        ("loop",),
    )


def test_a_person_who_is_told_to_tell_one_fact_may(tmp_path):
    (episode,) = played(
        tmp_path, "aloe", "dialogue.turns=1", model="scripted:scripts:introduces_itself"
    )
    assert [turn.user_turn.flags for turn in episode.branches[0].turns] == [()]


def test_dialogues_that_guards_ended_are_counted_with_the_messages_that_were_not_let_in(
    tmp_path,
):
    out = generated(tmp_path / "r", "quickstart", model="scripted:scripts:sighs_always")
    fidelity = json.loads((out / "manifest.json").read_text())["fidelity"]
    assert fidelity["endings"] == {"broken_role": 8} and fidelity["messages"] == 8
    assert (
        fidelity["guards"]["stage"]["ended"] == 8
        and fidelity["guards"]["stage"]["share"] == 1
    )
    assert table(out, "dialogues")["rejected_by"].to_list() == [["stage"]] * 8


def test_people_who_were_read_back_have_the_same_facts(tmp_path):
    out = generated(tmp_path / "r", "quickstart", people=4)
    recipe = recipe_of("quickstart")
    drawn, read = (
        prepare(recipe, 4, seed=0)[0],
        prepare(recipe, None, seed=0, cast_source=str(out))[0],
    )
    facts = [scenario.facts for scenario in drawn.scenarios(0, 4)]
    assert facts == [scenario.facts for scenario in read.scenarios(0, 4)] and all(facts)


def test_no_need_comes_twice_before_all_were_used():
    recipe = recipe_of("prism")
    plan, _ = prepare(recipe, 14, seed=0)
    scenarios = [
        one for one in plan.scenarios(0, len(plan)) if one.kind == "values guided"
    ]
    assert {*Counter(one.need for one in scenarios).values()} == {2}


def test_the_most_calls_that_a_plan_can_take_count_every_sample():
    recipe = recipe_of(
        "quickstart",
        "candidates.samples=3",
        "judge.share=1.0",
        "dialogue.turns=1",
        "prompts.per_persona=1",
    )
    plan, _ = prepare(recipe, 10, seed=0)
    assert plan.max_calls == 10 * (
        1 + 3 * 3 + 2 * 3 * 2 * (1 + 3 * 0.1)
    )  # a tenth is judged three times in the dark


@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        ('{"rating": 85}', 85),
        ("85", 85),
        ('{"rating": -5}', None),
        ("-5", None),
        ('{"rating": 1e999}', None),
        ("8 or 9", None),
        ('{"rating": 101}', None),
        ("about 70, I think", 70),
        ('{"rating": true}', None),
        ("85/100", None),
    ],
)
def test_a_rating_is_a_whole_number_from_1_to_100_or_none(reply, rating):
    found = parsing.parse_ratings(reply, ["rating"], 1, 100)
    assert (
        None if isinstance(found, parsing.ParseFailure) else found["rating"]
    ) == rating


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("dialogue.patience=[4,2]",), "needs two numbers, the fewest and the most"),
        (
            ("dialogue.patience=[2,4]",),
            "every person gets the answer that they prefer",
        ),
        (
            (
                "candidates.conditions=[plain, inferred]",
                "pairing.compare=[[inferred, plain]]",
                "labels.by=judge",
                "judge.share=1",
            ),
            "the condition `inferred` needs a generator here",
        ),
        (("pairing.compare=best", "labels.by=judge", "judge=null"), "needs ratings"),
        (
            ("candidates.conditions=[winner]",),
            "`winner` needs an `opening` and competes only with itself",
        ),
        (
            ("candidates.conditions=[{name: winner, model: user}, plain]",),
            "name: 'winner' is reserved for",
        ),
        (
            ("candidates.conditions=[{name: own, condition: plain}, plain]",),
            "'own' is the name of a condition",
        ),
        (
            (
                "candidates.conditions=[plain, own, revised]",
                "pairing.compare=[[own, revised]]",
            ),
            "a label by construction needs",
        ),
        (
            ("pairing.compare=best", "labels.by=judge", "judge.share=1"),
            "pairing.compare: is best, which needs ratings: use judge/rating",
        ),
        (
            ("dialogue.knowledge={a lot: 1}", "dialogue.user=user/userlm"),
            "never uses {{ knowledge }}",
        ),
        (("dialogue.user=judge/pairwise",), "There are: user/adversarial"),
        (
            ("candidates.conditions=[revised, own]",),
            "`revised` revises the `plain` answer",
        ),
        (("candidates.conditions=[own, oposite]",), "did you mean 'opposite'"),
        (("models.rival='scripted:'",), "models.rival: is never used"),
        (
            ("dialogue.turns=0", "dialogue.guards.ecko=off"),
            "there is no guard 'ecko'; did you mean 'echo'",
        ),
        (("dialogue.guards.stage=forbid",), "'forbid' is not allowed"),
        (
            ("dialogue.writing=oasst",),
            "there is no way of writing named 'oasst'; did you mean 'oasst1'",
        ),
        (
            (
                "dialogue.conversations={chat: {guide: x}}",
                "prompts.source=everyday-instructions",
            ),
            "people who write their own openings",
        ),
    ],
)
def test_what_cannot_be_played_is_refused_with_the_reason(overrides, sentence):
    with pytest.raises(SimForgeError, match=sentence):
        prepare(recipe_of("quickstart", *overrides), 1, seed=0)


# Trees, and who competes.


def test_a_branch_whose_patience_is_used_up_ends_too(tmp_path):
    impatient = (
        "dialogue.continue_with=both",
        "dialogue.patience=[1,1]",
        "dialogue.turns=4",
        "labels.check=none",
    )
    (episode,) = played(tmp_path, "quickstart", *impatient, "dialogue.goals=false")
    branches = [line for line in episode.branches if line.branched_at == 0]
    assert branches and all(
        line.ending == Ending.gave_up and len(line.own_turns) == 0 for line in branches
    )


def test_going_on_with_both_makes_a_tree_whose_rows_keep_their_parents(tmp_path):
    both = (
        "--set",
        "dialogue.continue_with=both",
        "--set",
        "dialogue.turns=3",
        "--set",
        "labels.check=none",
    )
    out = generated(
        tmp_path / "r",
        "quickstart",
        *both,
        "--set",
        "dialogue.max_branches=4",
        people=3,
    )
    dialogues, candidates, turns = (
        table(out, name) for name in ("dialogues", "candidates", "turns")
    )
    assert dialogues.height == 12 and dialogues["parent"].null_count() == 3
    by_id = {row["id"]: row for row in dialogues.to_dicts()}
    answers = {row["id"]: row for row in candidates.to_dicts()}
    for row in dialogues.filter(pl.col("parent").is_not_null()).to_dicts():
        shared = 2 * row["branched_at"] + 1
        assert row["messages"][:shared] == by_id[row["parent"]]["messages"][:shared]
        assert row["messages"][shared] != by_id[row["parent"]]["messages"][shared]
    for row in candidates.filter(pl.col("turn") > 0).to_dicts():
        assert row["prefix"][-2]["content"] == answers[row["parent"]]["text"]
    assert (
        turns.filter(pl.col("dialogue_id").is_in(list(by_id))).height
        == turns.height
        == candidates.height / 3
    )
    assert set(table(out, "preferences")["dialogue_id"]) <= {*by_id}


def test_a_killed_and_resumed_tree_is_identical_to_an_unbroken_one(tmp_path):
    tree = (
        "--set",
        "dialogue.continue_with=both",
        "--set",
        "dialogue.turns=4",
        "--concurrency",
        2,
    )
    whole = generated(
        tmp_path / "whole",
        "quickstart",
        *tree,
        model="scripted:scripts:counting",
        env={"CALLS": str(tmp_path / "w")},
    )
    env = {"CALLS": str(tmp_path / "calls"), "DIE_AT": "150"}
    command = (
        "generate",
        "quickstart",
        "--personas",
        8,
        "--out",
        tmp_path / "r",
        *tree,
    )
    assert (
        simforge(*command, "--model", "scripted:scripts:dies_midway", env=env).status
        == 9
    )
    assert (
        simforge(
            *command,
            "--model",
            "scripted:scripts:dies_midway",
            env=env | {"DIE_AT": "-1"},
        ).status
        == 0
    )
    asked = (tmp_path / "calls").read_text().splitlines()
    assert len(asked) - len({*asked}) <= 1 and len({*asked}) == len(
        (tmp_path / "w").read_text().splitlines()
    )
    named = re.compile(r"_model$|^model$|^judge$")
    for name in (
        "preferences",
        "dialogues",
        "turns",
        "candidates",
        "judgments",
        "discards",
    ):
        mine, other = (table(run, name) for run in (tmp_path / "r", whole))
        kept = [column for column in mine.columns if not named.search(column)]
        assert mine.select(kept).equals(other.select(kept)), name


def test_workers_do_not_show_in_a_trees_bytes(tmp_path):
    tree = ("--set", "dialogue.continue_with=both", "--set", "dialogue.turns=3")
    one, four = (
        generated(
            tmp_path / str(n), "quickstart", *tree, "--workers", n, "--concurrency", 3
        )
        for n in (1, 4)
    )
    digests = [
        {p.relative_to(run): file_sha256(p) for p in sorted(run.rglob("*.parquet"))}
        for run in (one, four)
    ]
    assert digests[0] == digests[1]


def test_strangers_revisions_other_models_and_temperatures_compete_by_their_names(
    tmp_path, monkeypatch
):
    variants = (
        "[plain, own, stranger, revised, {name: hot, temperature: 1.5}, {name: other, "
        "condition: own, model: second}]"
    )
    pairs = "[[own, plain], [own, stranger], [own, revised]]"
    overrides = (
        f"candidates.conditions={variants}",
        "labels.by=judge",
        "judge.share=1",
        f"pairing.compare={pairs}",
    )
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    overrides = (*overrides, "models.second='scripted:'")
    (episode,) = played(
        tmp_path,
        "quickstart",
        *overrides,
        model="scripted: second=scripted:scripts:counting",
    )
    (first, *_) = episode.branches[0].turns
    names = [one.variant for one in first.candidates]
    assert names == ["plain", "own", "stranger", "revised", "hot", "other"]
    texts = dict(zip(names, (one.text for one in first.candidates), strict=True))
    assert (
        len({*texts.values()}) == 6
        and first.candidates[5].model == "scripted:scripts:counting"
    )
    own, stranger = episode.scenario.persona.profile, episode.scenario.stranger
    assert stranger is not None and stranger.profile.values != own.values


def test_the_opening_has_other_candidates_and_the_winner_goes_on(tmp_path):
    out = generated(tmp_path / "r", "prism", people=4)
    dialogues, candidates = table(out, "dialogues"), table(out, "candidates")
    assert dialogues["conversation_type"].value_counts()["count"].to_list() == [8, 8, 8]
    by_turn = candidates.group_by("dialogue_id", "turn").agg(
        pl.len(), pl.col("variant").n_unique().alias("variants")
    )
    assert by_turn.filter(turn=0).select(
        pl.col("len").unique(), pl.col("variants").unique()
    ).row(0) == (4, 4)
    assert by_turn.filter(pl.col("turn") > 0).select(
        pl.col("len").unique(), pl.col("variants").unique()
    ).row(0) == (2, 1)
    won = candidates.filter("continued").select(
        "dialogue_id", pl.col("turn") + 1, winner="variant"
    )
    after = candidates.filter(pl.col("turn") > 0).join(won, on=["dialogue_id", "turn"])
    assert after.filter(pl.col("variant") != pl.col("winner")).is_empty()
    best = candidates.group_by("dialogue_id", "turn").agg(pl.col("rating").max())
    assert (
        candidates.filter("continued")
        .join(best, on=["dialogue_id", "turn", "rating"], how="anti")
        .is_empty()
    )
    assert table(out, "preferences")["value_gap"].min() >= 10
    assert dialogues["feedback"].list.len().unique().to_list() == [7]


def test_ratings_and_surveys_that_cannot_be_read_are_discards_and_no_numbers(tmp_path):
    out = generated(
        tmp_path / "r",
        "prism",
        "--model",
        "judge=scripted:scripts:mumbles_always",
        people=1,
    )
    assert (
        table(out, "candidates")["rating"].null_count()
        == table(out, "candidates").height
    )
    assert table(out, "preferences").is_empty()
    reasons = Counter(table(out, "discards")["reason"])
    assert reasons == {"unreadable": table(out, "candidates").height + 6}


def test_an_aloe_turn_takes_six_calls_and_its_requests_extend_each_other(
    endpoint, tmp_path
):
    server = endpoint(latency_ms=1, words=30)
    loose = [
        part for name in GUARDS for part in ("--set", f"dialogue.guards.{name}=flag")
    ]  # it has ninety words
    loose += ["--set", "judge.controls=0"]
    out = generated(tmp_path / "r", "aloe", *loose, people=6, model=server.model)
    turns, stats = table(out, "turns"), server.stats()
    assert turns["inferred"].null_count() == 0 and turns.height == 60
    assert stats["repeated_bodies"] == 0
    assert (
        6 * turns.height <= stats["requests"] <= 6 * turns.height + 3
    )  # a few are asked at the start
    assert stats["prefix_reuse"] >= 0.7, stats


def test_each_request_of_a_dialogue_begins_with_the_one_before(tmp_path, monkeypatch):
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    overrides = (
        "dialogue.turns=4",
        "dialogue.writing=arena",
        "dialogue.patience=[9,9]",
        "judge.orders=one",
        "judge.controls=0",
    )
    played(tmp_path, "aloe", *overrides, model="scripted:scripts:recording")
    asked = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    assert len(asked) == 4 * 5
    by_system: dict[str, list[list[dict[str, str]]]] = {}
    for messages in asked:
        by_system.setdefault(messages[0]["content"], []).append(messages)
    user, infer, answers, judge = by_system.values()
    for before, after in pairwise(user):
        assert (
            after[: len(before)] == before
        )  # the person's notes of earlier turns stay as they were
    plain = [
        messages for messages in answers if "Your notes" not in messages[-1]["content"]
    ]
    for before, after in pairwise(plain):
        assert after[: len(before)] == before
    for role in (
        infer,
        judge,
        [messages for messages in answers if messages not in plain],
    ):
        for before, after in pairwise(role):
            assert (
                after[: len(before) - 1] == before[:-1]
            )  # all but the last message, which asks


def test_the_manifest_and_the_card_say_how_the_users_were(tmp_path):
    out = generated(
        tmp_path / "r",
        "quickstart",
        "--set",
        "dialogue.turns=3",
        model="scripted:scripts:sighs_once",
    )
    fidelity = json.loads((out / "manifest.json").read_text())["fidelity"]
    kept = generated(
        tmp_path / "f",
        "quickstart",
        "--set",
        "dialogue.guards.stage=flag",
        model="scripted:scripts:sighs_once",
    )
    flags = {
        (row["turn"], *row["flags"]) for row in table(kept, "preferences").to_dicts()
    }
    assert flags == {(0,), (1, "stage")}
    assert fidelity["guards"]["stage"]["repaired"] > 0 and fidelity["endings"] == {
        "max_turns": 8
    }
    low, high = fidelity["guards"]["stage"]["interval"]
    assert 0 <= low <= fidelity["guards"]["stage"]["share"] <= high <= 1
    card = (out / "README.md").read_text()
    assert "## The simulated users" in card and "stage directions" in card


def test_chinese_is_counted_and_left_as_it_is():
    from simforge.text import measures
    from simforge.text.languages import language

    question = "谢谢，那温度应该是多少？"
    assert not is_courtesy(question) and is_courtesy("谢谢谢谢") is False
    assert measures.words("用温水洗手即可。") == 7
    assert measures.words("two words, l'eau") == 3
    assert language("请用温水洗手，然后擦干。") == "zh"
    long = GuardedMessage("水" * 300).objections(["too_long"])
    assert long == {"too_long": "300 words"}
    careless = Behavior(no_final_punctuation=True, typos=1.0)
    assert add_typing_errors(
        "温度应该是多少呢朋友？", careless, rng(0, "t", "k")
    ).endswith("？")
    assert (
        add_typing_errors("我要一些温水谢谢", careless, rng(0, "t", "k"))
        == "我要一些温水谢谢"
    )
    assert reveals("我今年四十岁了", "四十岁")


def test_a_question_keeps_its_mark_when_final_stops_are_left_out():
    behavior = Behavior(no_final_punctuation=True)
    assert add_typing_errors("And then?", behavior, rng(0, "t", "k")) == "And then?"
    assert add_typing_errors("Thanks.", behavior, rng(0, "t", "k")) == "Thanks"
