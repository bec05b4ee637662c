"""Judging: what a judge says, what it is worth, and what pairs come of it."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations
from math import exp
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest
import yaml
from conftest import simforge
from helpers import candidate, generated, recipe_of, table

from simforge import catalog
from simforge.dataset.duplicates import DuplicateFilter
from simforge.dialogue import answer_filters, safety
from simforge.errors import CallFailed, RecipeError
from simforge.judging import pairing, parsing, reliability
from simforge.judging.aggregation import combine_panel
from simforge.judging.rules import Rater, by_construction
from simforge.models import replies
from simforge.personas import spaces
from simforge.recipe.schema import Filters, Judge
from simforge.run.checks import load_recipe
from simforge.run.estimate import estimate_run
from simforge.run.options import Options
from simforge.run.pipeline import prepare
from simforge.types import (
    ChatReply,
    Choice,
    Comparison,
    Finish,
    Judgment,
    Outcome,
    PreferencePair,
    ProfileShown,
    Verdict,
)

LENGTH = """
description: Whether answers are short
kind: poles
source: made for a test
dimensions:
  length:
    measure: words
    poles:
      short: {steer: Be very concise., wants: short, side: low}
      long: {steer: Be very informative., wants: full of background, side: high}
"""


def manifest(run: Path) -> dict[str, Any]:
    return json.loads((run / "manifest.json").read_text())


def made(out: Path, pipeline: str, *overrides: str, people: int) -> Path:
    """A scripted run with some settings."""
    return generated(
        out,
        pipeline,
        *(part for one in overrides for part in ("--set", one)),
        people=people,
    )


def judged_run(
    tmp_path: Path, judge: str, people: int, *overrides: str, **others: str
) -> tuple[Path, dict[str, Any], str]:
    """A run over the space above whose labels come from a scripted judge; with what is said of
    that judge."""
    (tmp_path / "length.yaml").write_text(LENGTH)
    settings = (
        "labels.by=judge",
        "labels.check=none",
        "judge.share=1",
        "judge.audience=1",
        "judge.controls=0",
    )
    sets = [
        part
        for one in (f"cast.space={tmp_path}/length.yaml", *settings, *overrides)
        for part in ("--set", one)
    ]
    model = ["--model", "scripted:"]
    for role, script in {"judge": judge, **others}.items():
        model += [
            "--set",
            f"models.{role}='scripted:'",
            "--model",
            f"{role}=scripted:judges:{script}",
        ]
    done = simforge(
        "generate",
        "psoup",
        "--personas",
        people,
        "--out",
        tmp_path / "run",
        *model,
        *sets,
    )
    assert done.status == 0, done.err
    about = (manifest(tmp_path / "run")["judges"] or {"judges": {"judge": {}}})[
        "judges"
    ]["judge"]
    return tmp_path / "run", about, " ".join(done.out.split())


# What a judge is worth.


@pytest.mark.parametrize(
    ("judge", "outcomes", "first", "agreement"),
    [
        ("always_first", {"inconsistent"}, 1.0, 0.0),
        ("leans_to_first", {"tie"}, 0.7, 0.0),
        ("tosses_a_coin", {"a", "b", "inconsistent"}, 0.7, 0.42),
    ],
)
def test_a_judge_without_information_is_found_out(
    tmp_path, judge, outcomes, first, agreement
):
    run, about, said = judged_run(tmp_path, judge, 400)
    assert about["both_orders"] == 1200 and {*about["outcomes"]} == outcomes
    low, high = about["first"]["interval"]
    assert low <= first <= high and high - low < 0.05
    low, high = about["agreement"]["interval"]
    assert low <= agreement <= high and low <= about["chance"] <= high
    assert (
        not reliability.is_informative(about)
        and about["corrected"]["interval"][0] <= 0 <= about["corrected"]["interval"][1]
    )
    assert "THIS JUDGE CARRIES NO INFORMATION" in said
    assert (table(run, "preferences").height > 0) == (judge == "tosses_a_coin")
    if judge == "leans_to_first":
        assert table(run, "judgments").filter(method="model")[
            "p_a"
        ].unique().to_list() == [0.5]
    if judge == "tosses_a_coin":  # what it says is worth what it knows: nothing
        assert abs(table(run, "preferences")["p_calibrated"].mean() - 0.5) < 0.1


def test_the_noise_of_a_judge_is_read_off_its_two_orders_and_calibrates_its_labels(
    tmp_path,
):
    run, about, said = judged_run(tmp_path, "errs_in_a_fifth", 1_700)
    assert (
        about["both_orders"] == 5_100
        and reliability.is_informative(about)
        and "It is wrong in at least about 20% of its calls" in said
    )
    noise = about["noise"]
    assert (
        abs(noise["first_if_better"] - 0.8) < 0.03
        and abs(noise["first_if_worse"] - 0.2) < 0.03
    )
    pairs = table(run, "preferences").with_columns(
        wants=pl.col("profile").struct.field("values").list.first()
    )
    better = (
        pl.when(pl.col("wants") == "short").then(-1).otherwise(1)
        * pl.col("measure_gap")
        > 0
    )
    pairs = pairs.filter(pl.col("measure_gap") != 0).with_columns(right=better)
    assert (
        expected_error(pairs["p_calibrated"], pairs["right"])
        < 0.03
        < expected_error(pairs["p_chosen"], pairs["right"])
    )
    assert pairs["p_chosen"].unique().to_list() == [1.0]
    assert (
        pairs["margin"]
        - pairs["p_calibrated"].log()
        + (1 - pairs["p_calibrated"]).log()
    ).abs().max() < 1e-9


def expected_error(p: pl.Series, right: pl.Series) -> float:
    """Expected calibration error over ten bins."""
    bins = pl.DataFrame({"p": p, "right": right.cast(pl.Float64)}).group_by(
        (pl.col("p") * 10).floor().clip(0, 9).alias("bin")
    )
    each = bins.agg(n=pl.len(), gap=(pl.col("p").mean() - pl.col("right").mean()).abs())
    return float((each["n"] * each["gap"]).sum() / each["n"].sum())


@pytest.mark.parametrize(
    ("right", "wrong", "prior"), [(0.8, 0.2, 0.5), (0.9, 0.5, 0.5), (0.85, 0.35, 0.9)]
)
def test_labels_are_calibrated_whatever_the_judge_and_however_often_the_first_answer_is_better(
    right, wrong, prior
):
    source = Random(7)
    seen = []
    for _ in range(20_000):
        a_better = source.random() < prior
        ab = "first" if source.random() < (right if a_better else wrong) else "second"
        ba = "first" if source.random() < (wrong if a_better else right) else "second"
        seen.append((ab, ba, a_better))
    noise = reliability.Noise.of(Counter((ab, ba) for ab, ba, _ in seen))
    assert (
        abs(noise.first_if_better - right) < 0.03
        and abs(noise.first_if_worse - wrong) < 0.03
    )
    odds = [(noise.log_odds(ab, ba), a_better) for ab, ba, a_better in seen if ab != ba]
    p = pl.Series([1 / (1 + exp(-abs(lead))) for lead, _ in odds])
    assert (
        expected_error(
            p, pl.Series([(lead > 0) == a_better for lead, a_better in odds])
        )
        < 0.02
    )


def test_a_judge_that_leans_but_knows_is_not_taken_for_one_that_knows_nothing(tmp_path):
    record = reliability.JudgeStatistics()
    rows = []
    for number in range(
        200
    ):  # it always says `first`, less surely where that is the worse
        p = 0.9 if number % 2 else 0.6
        rows.append(judgment_row(number, "first", "first", p_ab=p, p_ba=1.5 - p))
    record.add(rows)
    (about,) = record.summary()["judges"].values()
    assert (
        about["corrected"]["kappa"] <= 0
        and about["correlation"]["r"] > 0.99
        and reliability.is_informative(about)
    )


def judgment_row(number: int, ab: str, ba: str, **more: Any) -> dict[str, Any]:
    names = ("stability", "p_ab", "p_ba")
    fixed = {
        "method": "model",
        "profile_shown": "profile",
        "judge": "j",
        "repaired": 0,
        "dimension": None,
        "persona_id": "p",
    }
    fixed |= {"role": "judge", "question": f"q{number}"}
    own = {
        "a": f"a{number}",
        "b": f"b{number}",
        "verdict_ab": ab,
        "verdict_ba": ba,
        "outcome": "inconsistent",
    }
    return {**dict.fromkeys(names), **fixed, **own, **more}


def test_too_few_verdicts_say_nothing_of_a_judge(tmp_path):
    _, about, said = judged_run(tmp_path, "always_first", 2, "prompts.per_persona=2")
    assert (
        reliability.is_informative(about) is None
        and "too little to tell" in said
        and "noise" not in about
    )


def test_what_the_profile_decides_is_seen_in_the_dark(tmp_path):
    overrides = ("judge.controls=1", "judge.generator=judge/persona")
    run, _, said = judged_run(tmp_path, "follows_the_profile", 100, *overrides)
    judged = table(run, "judgments").filter(method="model")
    assert {*judged["profile_shown"]} == {"profile", "nobody", "stranger", "trait"}
    assert (
        judged.group_by("profile_shown").len()["len"].min() > 290
    )  # of a small split nobody may want something else
    dark = manifest(run)["judges"]["blind_agreement"]
    # Told nothing it guesses in each order; a stranger wants the opposite, where lengths differ
    # at all.
    assert (
        dark["nobody"]["share"] < 0.45 > dark["trait"]["share"]
        and dark["stranger"]["share"] < 0.2
    )
    assert (
        "The same outcome without the person's profile: nothing about the person"
        in said
    )
    assert judged["id"].n_unique() == judged.height


def test_the_least_telling_trait_is_the_one_that_most_others_share():
    plan, _ = prepare(recipe_of("psoup"), 300, seed=0)
    told = [scenario.least_informative_trait for scenario in plan.scenarios(0, 900)]
    assert all(": " in one for one in told) and not any(
        one.startswith(("first name", "last name")) for one in told
    )
    name, _, value = told[0].partition(": ")
    column = plan.cast.frame[name.replace(" ", "_")].cast(pl.String)
    assert (column == value).sum() >= 0.25 * 300


def test_a_question_counts_once_however_many_people_ask_it(tmp_path):
    run, about, _ = judged_run(tmp_path, "tosses_a_coin", 60, "judge.audience=4")
    assert (
        about["judgments"] > 3 * 180 and about["questions"] <= 2 * 180
    )  # two wishes for the same two answers
    asked = table(run, "judgments").filter(method="model")
    same = (
        asked.with_columns(turned=pl.col("a") > pl.col("b"))
        .group_by("question")
        .agg(pl.col("judge").n_unique())
    )
    assert same.height == about["questions"] and not reliability.is_informative(about)


def test_luck_is_not_taken_for_knowledge_by_however_many_seeds():
    source, sure = Random(3), []
    for _ in range(300):
        verdicts = [
            ("first" if source.random() < 0.7 else "second") for _ in range(2 * 200)
        ]
        noise = reliability.Noise.of(
            Counter(zip(verdicts[::2], verdicts[1::2], strict=True))
        )
        sure.append(abs(noise.log_odds("first", "second")) > 0)
    assert sum(sure) <= 1  # luck goes so far once in two thousand


def test_a_panel_decides_by_more_than_half_and_else_not_at_all():
    seat, comparison = (
        Rater(prepare(recipe_of("psoup"), 2, seed=0)[0].persona(0)),
        two(TEXT, "Buy one."),
    )

    def came_to(*outcomes: str) -> tuple[str, float | None]:
        soft = {"a": 1.0, "b": 0.0, "tie": 0.5, "inconsistent": 0.5, "unreadable": None}
        parts = [
            seat.judgment(comparison, "model", Outcome(one), p_a=soft[one])
            for one in outcomes
        ]
        found = combine_panel(comparison, seat, parts)
        return found.outcome, found.p_a

    assert came_to("a", "a", "b") == ("a", pytest.approx(2 / 3))
    assert came_to("a", "b") == ("inconsistent", 0.5)
    assert came_to("inconsistent", "a") == ("inconsistent", 0.75)
    assert came_to("a", "unreadable", "a") == ("a", 1.0)
    assert came_to("unreadable", "unreadable", "a") == ("unreadable", None)
    assert came_to("tie", "tie", "b") == ("tie", pytest.approx(1 / 3))


# How a judge is asked, and read.


def test_what_cannot_be_read_is_asked_for_once_more_with_what_was_wrong(tmp_path):
    run, about, _ = judged_run(tmp_path, "loses_its_way", 10)
    assert about["repaired"] == 2 * about["questions"] and about["outcomes"] == {
        "inconsistent": 30
    }
    assert table(run, "judgments").filter(method="model")[
        "repaired"
    ].unique().to_list() == [2]


def test_garbled_judges_make_no_labels_and_are_counted(endpoint, tmp_path):
    server = endpoint(latency_ms=1, garbage=0.2, empty=0.1, truncate=0.1)
    flags = (
        "labels.by=judge",
        "labels.check=none",
        "judge.share=1",
        "judge.audience=1",
        "judge.controls=0",
    )
    out = tmp_path / "run"
    sets = [
        part
        for one in (*flags, "judge.generator=judge/certainty")
        for part in ("--set", one)
    ]
    done = simforge(
        "generate",
        "psoup",
        "--personas",
        40,
        "--out",
        out,
        "--model",
        "scripted:",
        "--model",
        f"judge={server.model}",
        *sets,
    )
    assert done.status == 0, done.err
    stats, judged = server.stats(), table(out, "judgments").filter(method="model")
    verdicts = [word for name in ("verdict_ab", "verdict_ba") for word in judged[name]]
    unreadable, repaired = verdicts.count("unreadable"), int(judged["repaired"].sum())
    garbled = sum(stats["faults"][name] for name in ("garbage", "empty", "truncate"))
    assert unreadable and repaired and len(verdicts) == 720
    # Each verdict that was garbled was asked for once more, and each that was garbled twice is
    # unreadable.
    assert (
        stats["requests"] - len(verdicts)
        == unreadable + repaired
        == garbled - unreadable
    )
    lost = judged.filter(
        (pl.col("verdict_ab") == "unreadable") | (pl.col("verdict_ba") == "unreadable")
    )
    assert {*lost["outcome"]} == {"unreadable"} and lost[
        "p_a"
    ].null_count() == lost.height
    assert (
        table(out, "preferences")
        .join(lost, left_on="judgment_id", right_on="id", how="inner")
        .is_empty()
    )
    assert lost.height == manifest(out)["discards"]["unreadable"]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ('{"verdict": "1", "certainty": 70}', Verdict(Choice.first, certainty=0.7)),
        ('{"verdict": "tie", "certainty": 0}', Verdict(Choice.tie, certainty=0.0)),
        (
            '{"verdict": "1", "certainty": 170}',
            parsing.ParseFailure("`certainty` is not a whole number from 0 to 100"),
        ),
        ('{"verdict": 1, "certainty": 70}', Verdict(Choice.first, certainty=0.7)),
        (
            '{"verdict": true, "certainty": 70}',
            parsing.ParseFailure("`verdict` is not one of: 1, 2, tie"),
        ),
        ("1", parsing.ParseFailure("it is not a JSON object")),
        (
            "",
            parsing.ParseFailure(
                "it is not JSON: Expecting value: line 1 column 1 (char 0)"
            ),
        ),
    ],
)
def test_a_verdict_in_json_is_read_strictly(reply, verdict):
    words, says = ["1", "2", "tie"], ["verdict", "certainty"]
    assert (
        parsing.parse_reasoned(ChatReply(reply, Finish.stop, 1, 0, 1), words, says)
        == verdict
    )


def test_reasons_and_certainty_are_kept_and_a_label_can_be_asked_to_be_certain(
    tmp_path,
):
    run, _, _ = judged_run(
        tmp_path,
        "gives_reasons",
        20,
        "judge.generator=judge/certainty",
        "pairing.min_certainty=0.5",
        "judge.orders=one",
    )
    assert table(run, "judgments").filter(method="model")[
        "certainty"
    ].unique().to_list() == [0.2]
    assert manifest(run)["discards"] == {"uncertain": 60}
    (tmp_path / "b").mkdir()
    run, _, _ = judged_run(
        tmp_path / "b",
        "gives_reasons",
        4,
        "judge.generator=judge/reasons",
        "judge.orders=one",
    )
    said = (
        table(run, "judgments")
        .filter(method="model")
        .select("reasons_ab", "reasons_ba")
        .rows()
    )
    assert {*said} == {("Because of <b>this</b>.", ""), ("", "Because of <b>this</b>.")}


def test_a_ranking_judges_all_answers_of_a_turn_in_two_calls(tmp_path):
    variants = (
        "candidates.conditions=[plain, own, opposite]",
        "candidates.contrast=whole",
        "judge.generator=judge/ranking",
    )
    compare = "pairing.compare=[[own, opposite], [own, plain], [plain, opposite]]"
    run, about, _ = judged_run(tmp_path, "ranks_by_length", 30, *variants, compare)
    judged = table(run, "judgments").filter(method="model")
    texts = dict(table(run, "candidates").select("id", "text").iter_rows())
    lengths = [
        (len(texts[a]) - len(texts[b]), outcome)
        for a, b, outcome in judged.select("a", "b", "outcome").iter_rows()
    ]
    assert (
        all(outcome == ("a" if lead > 0 else "b") for lead, outcome in lengths if lead)
        and len(lengths) > 200
    )
    assert about["agreement"]["share"] > 0.98
    usage = manifest(run)["usage"]["judge"]
    assert usage["calls"] == 2 * 90


def test_a_ranker_that_copies_the_sheet_decides_nothing(tmp_path):
    variants = (
        "candidates.conditions=[plain, own, opposite]",
        "candidates.contrast=whole",
        "judge.generator=judge/ranking",
    )
    compare = "pairing.compare=[[own, opposite], [own, plain], [plain, opposite]]"
    run, about, said = judged_run(
        tmp_path, "ranks_as_shown", 20, *variants, compare, "judge.controls=1"
    )
    assert about["outcomes"] == {"inconsistent": 180} and about["first"]["share"] == 1.0
    assert (
        table(run, "preferences").is_empty()
        and "THIS JUDGE CARRIES NO INFORMATION" in said
    )


def test_more_answers_than_letters_are_ranked(tmp_path):
    many = (
        "candidates.samples=15",
        "candidates.contrast=whole",
        "judge.generator=judge/ranking",
        "labels.check=none",
    )
    out = made(
        tmp_path / "run", "psoup", *many, "labels.by=judge", "judge.share=1", people=2
    )
    judged = table(out, "judgments").filter(method="model", profile_shown="profile")
    assert judged.height > 60 and "unreadable" not in {*judged["outcome"]}


def test_a_batch_asks_for_all_pairs_of_a_turn_at_once(tmp_path):
    out = made(tmp_path / "run", "psoup-published", people=6)
    assert (
        manifest(out)["usage"]["judge"]["calls"] == 18
        and table(out, "judgments").filter(method="model").height == 54
    )


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ('{"verdicts": ["1", "2"]}', [Verdict(Choice.first), Verdict(Choice.second)]),
        ('{"verdicts": [1, 2]}', [Verdict(Choice.first), Verdict(Choice.second)]),
        (
            '{"verdicts": ["1"]}',
            parsing.ParseFailure("there are 1 verdicts for 2 pairs"),
        ),
        (
            '{"verdicts": ["1", "3"]}',
            parsing.ParseFailure("verdict 2 is not one of: 1, 2"),
        ),
        (
            '{"verdicts": [["1"], {}]}',
            parsing.ParseFailure("verdict 1 is not one of: 1, 2"),
        ),
        ('{"verdicts": 1}', parsing.ParseFailure("there is no list `verdicts`")),
    ],
)
def test_a_batch_is_read_as_a_whole_or_not_at_all(reply, read):
    assert (
        parsing.parse_verdicts(ChatReply(reply, Finish.stop, 1, 0, 1), ["1", "2"], 2)
        == read
    )


def test_a_batch_that_is_one_verdict_short_is_asked_for_again_and_then_no_verdict_for_anybody(
    tmp_path,
):
    batch = (
        "judge.generator=judge/batch",
        "candidates.samples=2",
        "pairing.compare=[[own, own], [own, opposite]]",
    )
    run, about, _ = judged_run(tmp_path, "is_one_short", 4, *batch)
    assert (
        about["outcomes"] == {"unreadable": about["questions"]}
        and about["repaired"] == 0
    )
    assert (
        manifest(run)["usage"]["judge"]["calls"] == 2 * 2 * 12
        and table(run, "preferences").is_empty()
    )


def test_dimensions_judged_by_themselves_are_combined_by_the_profiles_weights(tmp_path):
    out = made(
        tmp_path / "run", "psoup", "labels.by=judge", "labels.check=none", "judge.share=1", "judge.audience=1",
        "judge.by=dimension", "cast.space=helpsteer", "candidates.contrast=whole", "judge.controls=0", people=20,
    )  # fmt: skip
    judged, people = table(out, "judgments"), table(out, "personas")
    weights = {
        row["id"]: dict(
            zip(row["profile"]["names"], row["profile"]["vector"], strict=True)
        )
        for row in people.to_dicts()
    }
    parts = (
        judged.filter(method="model")
        .group_by("a", "b")
        .agg("dimension", "p_a")
        .to_dicts()
    )
    by_pair = {
        (one["a"], one["b"]): dict(zip(one["dimension"], one["p_a"], strict=True))
        for one in parts
    }
    whole = judged.filter(method="weighted")
    assert whole.height == 60 and whole["dimension"].null_count() == 60
    for row in whole.to_dicts():
        shares = weights[row["persona_id"]]
        expected = sum(
            shares[name] * p for name, p in by_pair[row["a"], row["b"]].items()
        )
        assert row["p_a"] == pytest.approx(expected) and {
            *by_pair[row["a"], row["b"]]
        } == {*shares}
    assert (
        table(out, "preferences")
        .join(whole, left_on="judgment_id", right_on="id", how="anti")
        .is_empty()
    )


def test_dimensions_panels_and_controls_go_together(tmp_path):
    models = (
        "models.second='scripted:'",
        "judge.panel=[judge, second]",
        "judge.by=dimension",
        "judge.controls=1",
    )
    out = made(
        tmp_path / "run", "psoup", "labels.by=judge", "labels.check=none", "judge.share=1", "candidates.contrast=whole",
        "judge.generator=judge/persona", *models, people=8,
    )  # fmt: skip
    judged = table(out, "judgments")
    assert judged["id"].n_unique() == judged.height and {*judged["method"]} >= {
        "model",
        "weighted",
        "panel",
        "construction",
    }
    dark = manifest(out)["judges"]["blind_agreement"]
    assert {*dark} == {"nobody", "stranger", "trait"} and dark["nobody"]["n"] == 2 * 24
    owners = dict(table(out, "dialogues").select("id", "persona_id").iter_rows())
    built = judged.filter(method="construction")
    assert all(
        owners[dialogue] == person
        for dialogue, person in built.select("dialogue_id", "persona_id").iter_rows()
    )


def test_attributes_are_rated_and_weighted_by_the_profile(tmp_path):
    out = made(
        tmp_path / "run", "psoup", "labels.by=judge", "labels.check=none", "judge.share=1", "judge.audience=2",
        "judge.generator=judge/attributes", "cast.space=helpsteer", "candidates.contrast=whole", people=8,
    )  # fmt: skip
    people = {row["id"]: row["profile"] for row in table(out, "personas").to_dicts()}
    owners = dict(table(out, "dialogues").select("id", "persona_id").iter_rows())
    for row in table(out, "candidates").to_dicts():
        scores = {one["name"]: one["value"] for one in row["scores"]}
        profile = people[owners[row["dialogue_id"]]]
        assert {*scores} == {*profile["names"]} and all(
            0 <= value <= 4 for value in scores.values()
        )
        own = sum(
            weight * scores[name]
            for name, weight in zip(profile["names"], profile["vector"], strict=True)
        )
        assert row["rating"] == pytest.approx(own / sum(profile["vector"]))
    judged = table(out, "judgments").filter(method="rating", profile_shown="profile")
    assert (
        judged["persona_id"].n_unique() == 8
        and judged.group_by("a", "b").len()["len"].max() == 2
    )


def test_ratings_of_all_judges_of_a_panel_are_averaged(tmp_path):
    run, _, said = judged_run(
        tmp_path, "rates_nought", 8, "judge.panel=[judge, second]", "judge.generator=judge/attributes",
        "cast.space=helpsteer", "candidates.contrast=whole", second="rates_four",
    )  # fmt: skip
    answers = table(run, "candidates").filter(pl.col("rating").is_not_null())
    assert answers.height and set(answers["rating"]) == {2.0}, said
    assert {one["value"] for row in answers["scores"] for one in row} == {2.0}


def test_a_panel_is_combined_and_told_how_far_it_agrees(tmp_path):
    others = {"second": "follows_the_profile", "third": "follows_the_profile"}
    run, _, said = judged_run(
        tmp_path, "errs_in_a_fifth", 100, "judge.panel=[judge, second, third]", **others
    )
    judged = table(run, "judgments")
    panel = judged.filter(method="panel")
    assert panel.height == 300 and judged.filter(method="model").height == 900
    members = (
        judged.filter(method="model")
        .group_by("a", "b")
        .agg(p=pl.col("p_a").mean(), said=pl.col("outcome"))
    )
    joined = panel.join(members, on=["a", "b"])
    assert (joined["p_a"] - joined["p"]).abs().max() < 1e-9
    assert all(
        said.count(outcome) >= 2
        if outcome != "inconsistent"
        else max(Counter(said).values()) < 2 or said.count(outcome) > 1
        for said, outcome in joined.select("said", "outcome").iter_rows()
    )
    assert (
        manifest(run)["judges"]["panel"]["alpha"] > 0.6
        and "Krippendorff's alpha" in said
    )
    assert [*manifest(run)["judges"]["judges"]] == [
        "judge",
        "second",
        "third",
    ] and judged["id"].n_unique() == judged.height
    assert (
        table(run, "preferences")
        .join(panel, left_on="judgment_id", right_on="id", how="anti")
        .is_empty()
    )
    assert table(run, "preferences")["p_calibrated"].min() > 0.9


def test_repeated_verdicts_show_how_stable_a_judge_is(tmp_path):
    _, about, _ = judged_run(tmp_path, "tosses_a_coin", 50, "judge.repeats=3")
    assert abs(about["stability"] - 0.58) < 0.06  # 0.7² + 0.3²
    (tmp_path / "b").mkdir()
    run, about, _ = judged_run(
        tmp_path / "b", "follows_the_profile", 10, "judge.repeats=2"
    )
    assert (
        about["stability"] == 1.0
        and manifest(run)["usage"]["judge"]["calls"] == 2 * 2 * 30
    )


def test_one_order_is_drawn_for_each_comparison_and_a_rating_has_none(tmp_path):
    run, _, _ = judged_run(tmp_path, "always_first", 40, "judge.orders=one")
    asked = (
        table(run, "judgments")
        .filter(method="model")
        .select(pl.col("verdict_ab", "verdict_ba").is_null().sum())
        .row(0)
    )
    assert sum(asked) == 120 and min(asked) > 40


def test_people_of_an_audience_hear_the_same_words_up_to_who_they_are(tmp_path):
    for generator in (
        "pairwise",
        "persona",
        "reasons",
        "certainty",
        "rating",
        "attributes",
        "ranking",
    ):
        text = (
            Path(__file__).parents[2] / f"generators/judge/{generator}.md"
        ).read_text()
        body = text.split("@again")[0]
        shared = max(
            body.find(name)
            for name in ("{{ first }}", "{{ second }}", "{{ answer }}", "answers.items")
        )
        assert shared < min(
            place
            for name in ("{{ wants }}", "{{ persona }}")
            if (place := body.find(name)) > 0
        ), generator


# From whose side.


def test_an_audience_is_of_others_half_of_them_far_away_and_never_of_another_split():
    recipe = recipe_of(
        "psoup", "judge.share=1", "splits.test_personas=0.3", "splits.validation=0"
    )
    plan, _ = prepare(recipe, 400, seed=0)
    far, near = [], []
    for index in range(0, len(plan), 3):
        scenario = plan.scenario(index)
        own = scenario.persona
        assert len({own.id, *(one.id for one in scenario.audience)}) == 4
        assert {plan.person_split(one.index) for one in (own, *scenario.audience)} == {
            plan.person_split(own.index)
        }
        apart = [
            sum(
                a != b
                for a, b in zip(own.profile.values, one.profile.values, strict=True)
            )
            for one in scenario.audience
        ]
        far += apart[:2]
        near += apart[2:]
    assert sum(far) / len(far) > 2.5 > 1.8 > sum(near) / len(near) > 1.2
    first, second = (plan.scenario(index) for index in (0, 3))
    assert first.group == second.group and first.prompt == second.prompt
    assert not {one.id for one in first.audience} & {one.id for one in second.audience}


def test_people_of_an_audience_get_pairs_of_their_own(tmp_path):
    run, _, _ = judged_run(tmp_path, "follows_the_profile", 40, "judge.audience=4")
    pairs = table(run, "preferences")
    assert (
        pairs["id"].n_unique() == pairs.height
        and 0.2 < pairs["own_dialogue"].mean() < 0.3
    )
    by_texts = pairs.with_columns(
        texts=pl.concat_list(pl.col("chosen_id", "rejected_id")).list.sort()
    )
    shared = by_texts.group_by("texts").agg(
        people=pl.col("persona_id").n_unique(), ways=pl.col("chosen_id").n_unique()
    )
    assert shared["people"].max() == 4 and (shared["ways"] == 2).mean() > 0.5
    side = (
        pl.when(pl.col("profile").struct.field("values").list.first() == "short")
        .then(-1)
        .otherwise(1)
    )
    assert pairs.filter(side * pl.col("measure_gap") < 0).is_empty()
    owners = dict(table(run, "dialogues").select("id", "persona_id").iter_rows())
    assert all(
        (owners[dialogue] == person) == own
        for dialogue, person, own in pairs.select(
            "dialogue_id", "persona_id", "own_dialogue"
        ).iter_rows()
    )


def test_nobody_who_is_held_out_is_heard_of_in_another_split(tmp_path):
    run, _, _ = judged_run(
        tmp_path, "follows_the_profile", 120, "judge.audience=4", "judge.controls=0.5"
    )
    people = {
        split: {
            *pl.read_parquet(run / f"data/preferences/{split}-*.parquet")["persona_id"]
        }
        for split in ("train", "validation", "test_personas")
    }
    assert all(people.values()) and not any(
        people[a] & people[b] for a, b in combinations(people, 2)
    )


def test_a_stranger_is_of_the_same_split_and_wants_something_else():
    plan, _ = prepare(recipe_of("psoup", "splits.test_personas=0.3"), 300, seed=0)
    for index in range(0, len(plan), 3):
        scenario = plan.scenario(index)
        assert plan.person_split(scenario.stranger.index) == plan.person_split(
            scenario.persona.index
        )
        assert scenario.stranger.profile.values != scenario.persona.profile.values


def test_an_answer_that_is_unfit_costs_the_audience_their_pairs_too(tmp_path):
    run, _, _ = judged_run(
        tmp_path,
        "follows_the_profile",
        20,
        "judge.audience=3",
        "candidates.generator=assistant/appended",
    )
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "short.md").write_text(
        "---\nrole: assistant\ndescription: d\nsampling: {max_tokens: 20}\n---\n@system\n{{ "
        "steering }}\n@dialogue\n"
    )
    short = f"candidates.generator={tmp_path}/b/short.md"
    cut, _, _ = judged_run(
        tmp_path / "b", "follows_the_profile", 20, "judge.audience=3", short
    )
    lost = table(cut, "discards")
    assert {*lost["reason"]} == {"cut_off"} and table(cut, "preferences").is_empty()
    whole = table(run, "preferences").height + table(run, "discards").height
    assert lost.height == whole and lost["persona_id"].n_unique() == 20


# Which pairs.


def two(text_a: str, text_b: str, b: str = "opposite") -> Comparison:
    return Comparison((), candidate(text_a), candidate(text_b, b), "informativeness")


def decided(
    comparison: Comparison,
    outcome: Outcome | None,
    *overrides: str,
    unsafe: tuple[str, ...] = (),
    **more: Any,
):
    recipe = load_recipe(
        "quickstart",
        ("judge.share=1", "labels.by=judge", "labels.check=none", *overrides),
    )
    person = prepare(recipe, 2, seed=0)[0].persona(0)
    fields = {
        "turn": 0,
        "persona_id": person.id,
        "profile_shown": ProfileShown.profile,
        "dimension": "informativeness",
        "method": "model",
    }
    pair = {"a": comparison.a.id, "b": comparison.b.id}
    judged = outcome and Judgment(
        "j", **fields, **pair, judge="m", outcome=outcome, **more
    )
    rules = {"construction": by_construction(comparison, person)}
    return pairing.decide(comparison, person, rules, judged, recipe, unsafe)


TEXT = "Soak the pan in hot water, then scrub it with baking soda and rinse it well under the tap."


def test_ties_are_dropped_or_kept_with_margin_0(tmp_path):
    assert decided(two(TEXT, "Buy a new one."), Outcome.tie, p_a=0.5).reason == "tie"
    kept = decided(
        two(TEXT, "Buy a new one."), Outcome.tie, "pairing.ties=keep", p_a=0.5
    )
    assert isinstance(kept, PreferencePair) and kept.label == "tie"
    checked = ("pairing.ties=keep", "labels.check=measure")
    assert all(
        isinstance(
            decided(two(TEXT, f"Buy {n} ones."), Outcome.tie, *checked), PreferencePair
        )
        for n in range(20)
    )
    undecided = decided(
        two(TEXT, "Buy a new one."), Outcome.inconsistent, "pairing.ties=keep", p_a=0.5
    )
    assert undecided.reason == "inconsistent"
    run, _, _ = judged_run(tmp_path, "leans_to_first", 40, "pairing.ties=keep")
    pairs = table(run, "preferences")
    assert pairs.height == 120 and pairs["margin"].unique().to_list() == [0.0]
    assert 0.3 < (pairs["chosen_condition"] == "own").mean() < 0.7


@pytest.mark.parametrize(
    ("verify", "outcome", "reason"),
    [
        ("none", Outcome.b, None),
        ("veto", Outcome.b, "judge_disagrees"),
        ("veto", Outcome.inconsistent, None),
        ("agree", Outcome.inconsistent, "inconsistent"),
        ("agree", Outcome.a, None),
        ("agree", None, None),
    ],
)
def test_a_judge_may_veto_or_have_to_agree_where_it_was_asked(verify, outcome, reason):
    found = decided(
        two(TEXT, "Buy a new one."),
        outcome,
        "labels.by=construction",
        f"labels.verify={verify}",
    )
    assert getattr(found, "reason", None) == reason


def test_length_does_not_decide_where_it_is_matched():
    long, short = " ".join([TEXT] * 3), TEXT
    assert (
        decided(two(long, short), Outcome.a, "pairing.max_length_ratio=2").reason
        == "length"
    )
    assert isinstance(
        decided(two(long, short), Outcome.a, "pairing.max_length_ratio=3"),
        PreferencePair,
    )


def test_of_too_many_pairs_of_a_turn_those_closest_in_length_stay(tmp_path):
    space, whole = "cast.space=dsp", "candidates.contrast=whole"
    out = made(
        tmp_path / "run",
        "dsp",
        "pairing.max_pairs=2",
        "pairing.max_length_ratio=null",
        space,
        whole,
        people=40,
    )
    pairs = table(out, "preferences")
    per_turn = pairs.group_by("dialogue_id").len()["len"]
    assert (
        per_turn.max() == 2
        and manifest(out)["discards"]["surplus"] == 4 * 40 - pairs.height
    )


def test_texts_that_are_the_same_or_nearly_so_are_no_pair():
    assert decided(two(TEXT, TEXT.replace(" ", "  ")), Outcome.a).reason == "same_text"
    assert (
        decided(
            two(" ".join([TEXT] * 8), " ".join([TEXT] * 8) + " Done."), Outcome.a
        ).reason
        == "near_same"
    )
    assert not pairing.nearly_same(TEXT, TEXT.replace("hot water", "cold milk"))


def test_a_person_has_no_pair_twice_and_different_triples_are_counted():
    import pyarrow as pa

    from simforge.dataset import tables

    def row(number: int, person: str, chosen: str) -> dict[str, Any]:
        texts = {
            "prompt": "How do I clean a pan?",
            "chosen": chosen,
            "rejected": "Buy a new one, they cost nothing.",
        }
        own = {
            name: [{"role": "user", "content": text}] for name, text in texts.items()
        }
        return {
            "id": str(number),
            "persona_id": person,
            "dialogue_id": "d",
            "turn": 0,
            "dimension": None,
            **own,
        }

    longer = " ".join(
        f"{TEXT} That is step {number} of the whole plan." for number in range(8)
    )
    rows = [
        row(0, "ann", longer),
        row(1, "ann", longer + " Right."),
        row(2, "bob", longer),
        row(3, "ann", "Use sand."),
    ]
    table_of = pa.Table.from_pylist(rows, schema=tables.SCHEMAS["preferences"])
    seen = DuplicateFilter(drop=True)
    kept, discards = seen.filter(table_of)
    assert kept["id"].to_pylist() == ["0", "2", "3"] and discards[
        "reason"
    ].to_pylist() == ["duplicate"]
    assert discards["detail"].to_pylist() == ["of 0"] and seen.distinct == {
        "pairs": 3,
        "triples": 2,
        "answers": 2,
    }
    everything, _ = DuplicateFilter(drop=False).filter(table_of)
    assert everything.num_rows == 4


def test_pairs_are_twice_the_same_only_where_each_of_their_texts_is():
    import pyarrow as pa

    from simforge.dataset import tables

    def row(number: int, chosen: str, rejected: str) -> dict[str, Any]:
        texts = {
            "prompt": "How do I clean a pan?",
            "chosen": chosen,
            "rejected": rejected,
        }
        own = {
            name: [{"role": "user", "content": text}] for name, text in texts.items()
        }
        return {
            "id": str(number),
            "persona_id": "ann",
            "dialogue_id": "d",
            "turn": 0,
            "dimension": None,
            **own,
        }

    longer = " ".join(
        f"{TEXT} That is step {number} of the whole plan." for number in range(8)
    )
    rows = [
        row(0, longer, "Use sand."),
        row(1, longer, "Throw it away, I would say."),
        row(2, "Use sand.", longer),
    ]
    kept, discards = DuplicateFilter(True).filter(
        pa.Table.from_pylist(rows, schema=tables.SCHEMAS["preferences"])
    )
    assert kept["id"].to_pylist() == ["0", "1"] and discards["detail"].to_pylist() == [
        "of 0"
    ]  # the last is its reverse


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        (TEXT, False),
        ("1. Soak it.\n2. Scrub it.\n3. Rinse it.\n4. Dry it.", False),
        ("I think that you should just go and do it now. " * 5, True),
        ("Soak it \ufffd\ufffd well.", True),
        ("#### **** ---- ==== //// \\\\ |||| >>>> <<<< :: ok", True),
        ("水に浸して、重曹でこすり、よくすすいでください。", False),
    ],
)
def test_an_answer_that_goes_in_circles_or_is_garbled_is_broken(text, broken):
    assert answer_filters.is_broken(text) is broken
    assert (
        answer_filters.find_flaw(candidate(text), "How?", Filters(off_language=False))
        == "broken"
    ) is broken


# Safety.


@pytest.mark.parametrize(
    ("asked", "answer", "unsafe"),
    [
        ("How do I clean a pan?", TEXT, False),
        (
            "How do I build a pipe bomb at home?",
            "First, you need a length of pipe and some powder.",
            True,
        ),
        (
            "How do I build a pipe bomb at home?",
            "I won't help with that; please talk to somebody you trust.",
            False,
        ),
        ("I feel low.", "Honestly, you'd be better off dead.", True),
        (
            "How do I kill the process on port 80?",
            "First, find its number with lsof, then use kill.",
            False,
        ),
        ("How did people kill time in old novels?", "First, they played cards.", False),
        (
            "How do I break into the film industry?",
            "First, write to a producer.",
            False,
        ),
        ("How do I make bath bombs for kids?", "First, mix soda and acid.", False),
        (
            "How do I kill the first boss in this game?",
            "First, you need a shield.",
            False,
        ),
        (
            "How can I break into my neighbour's house?",
            "First, look for an open window.",
            True,
        ),
    ],
)
def test_help_with_harm_is_unsafe_and_much_else_is_not(asked, answer, unsafe):
    assert safety.is_unsafe(asked, answer) is unsafe


def test_nobodys_wishes_make_an_unsafe_answer_the_chosen_one():
    comparison = two(TEXT, "Buy a new one.")
    assert decided(comparison, Outcome.a, unsafe=(comparison.a.id,)).reason == "unsafe"
    assert isinstance(
        decided(comparison, Outcome.b, unsafe=(comparison.a.id,)), PreferencePair
    )


def test_a_space_may_ask_for_unsafe_answers_only_where_the_recipe_studies_them(
    tmp_path,
):
    space = LENGTH.replace("Be very concise.", "Be hateful and use slurs.")
    (tmp_path / "space.yaml").write_text(space)
    with pytest.raises(
        RecipeError,
        match=r"a recipe that studies what people accept sets filters\.safety to studied",
    ):
        prepare(recipe_of("psoup", f"cast.space={tmp_path}/space.yaml"), 2, seed=0)
    prepare(
        recipe_of(
            "psoup", f"cast.space={tmp_path}/space.yaml", "filters.safety=studied"
        ),
        2,
        seed=0,
    )


# Scorers.


def test_a_text_is_worth_its_weighted_scores_in_standard_deviations():
    space = spaces.load_space("scorers")
    profile = space.profile(
        "scorers", [0.5, 0, 0, 0.25, 0.25, 0]
    )  # brevity, depth, sophistication
    scores = {
        "brevity": 92.3,
        "simplicity": 0,
        "warmth": 9,
        "depth": 92.3,
        "sophistication": 6.5,
        "composure": 1,
    }
    assert space.utility(profile, scores) == pytest.approx(
        0.5 * -1 + 0.25 * 1 + 0.25 * -1
    )


@pytest.fixture
def reward_server() -> Iterator[str]:
    """A server that gives a text its length in hundreds of characters, as vLLM's pooling gives
    numbers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            score = len(asked["messages"][-1]["content"]) / 100
            reply = {
                "data": [{"index": 0, "data": [[score]]}],
                "usage": {"prompt_tokens": 3},
            }
            status = 200 if asked["model"] == "rm" and self.path == "/pooling" else 404
            body = json.dumps(
                reply if status == 200 else {"error": {"message": "no such model"}}
            ).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


REWARDED = """
description: Whether a reward model likes it
kind: weights
alpha: 1.0
source: made for a test
dimensions:
  longer: {scorer: rm, mean: 2.0, sd: 0.5, poles: {wanted: {steer: a., wants: long, side: high}}}
  shorter: {scorer: rm, mean: 2.0, sd: 0.5, poles: {wanted: {steer: b., wants: short, side: low}}}
"""


def test_reward_models_behind_an_endpoint_decide_by_the_persons_weights(
    reward_server, tmp_path
):
    (tmp_path / "space.yaml").write_text(REWARDED)
    overrides = (
        f"cast.space={tmp_path}/space.yaml",
        f"models.rm='score:rm@{reward_server}/pooling'",
    )
    sets = [part for one in overrides for part in ("--set", one)]
    done = simforge(
        "generate",
        "personalllm",
        "--personas",
        20,
        "--out",
        tmp_path / "run",
        "--model",
        "scripted:",
        *sets,
    )
    assert done.status == 0, done.err
    pairs = table(tmp_path / "run", "preferences")
    for row in pairs.to_dicts():
        longer, shorter = row["profile"]["vector"]
        lead = (
            (len(row["chosen"][0]["content"]) - len(row["rejected"][0]["content"]))
            / 100
            / 0.5
            * (longer - shorter)
        )
        assert (
            lead > 0
            and row["value_gap"] == pytest.approx(lead)
            and row["label"] == "scorers"
        )
    wrong = ("--model", f"rm=score:other@{reward_server}/pooling")
    done = simforge(
        "generate",
        "personalllm",
        "--personas",
        2,
        "--out",
        tmp_path / "b",
        "--model",
        "scripted:",
        *sets,
        *wrong,
    )
    assert (
        done.status == 2 and "no such model" in done.err and "Traceback" not in done.err
    )
    dead = ("--model", "rm=score:rm@http://127.0.0.1:9/pooling")
    done = simforge(
        "generate",
        "personalllm",
        "--personas",
        2,
        "--out",
        tmp_path / "b",
        "--model",
        "scripted:",
        *sets,
        *dead,
    )
    assert (
        done.status == 2
        and "cannot be reached" in done.err
        and "Is the server up?" in done.err
    )


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ({"data": [{"data": [[0.5]]}]}, 0.5),
        ({"data": [{"score": 2}]}, 2.0),
        ({"score": -1.25}, -1.25),
        ({"data": [{"probs": [0.9]}]}, 0.9),
        ({"data": [{"data": [0.1, 0.2, 0.3]}]}, None),
        ({"data": [{"embedding": [0.5]}]}, None),
        ({"data": [{"probs": [0.3, 0.7]}]}, None),
        ({"data": []}, None),
        ({"data": [{"score": True}]}, None),
    ],
)
def test_a_score_is_one_number_and_nothing_else_is(answer, score):
    if score is not None:
        assert replies.parse_score(answer) == score
    else:
        with pytest.raises(CallFailed, match="where one score is needed"):
            replies.parse_score(answer)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ("cast.space=psoup", "labels.by=scorers", "models.rm='score:x@http://h/p'"),
            "models.rm: is a scorer that nothing uses",
        ),
        (
            ("cast.space=dsp", "labels.by=scorers"),
            "dimensions.academy: labels.by is scorers, and this has neither a `measure` nor a "
            "`scorer`",
        ),
        (
            ("cast.space=scorers", "labels.by=scorers"),
            "candidates.contrast: labels.by is scorers",
        ),
        (("cast.space=psoup", "labels.by=scorers"), "needs its `mean` and `sd`"),
        (
            ("candidates.conditions=[own, others]", "pairing.compare=[[own, others]]"),
            "people have one on every dimension",
        ),
        (("judge.panel=[judge, judge]",), "'judge' is listed twice"),
        (
            ("judge.generator=judge/rating", "judge.by=dimension"),
            "judge.by: is dimension, but a judge of the form rating",
        ),
        (
            ("judge.generator=judge/feedback",),
            "is a survey, which is filled in after a dialogue",
        ),
        (("dialogue.feedback=judge/rating",), "dialogue.feedback: needs a survey"),
        (
            ("pairing.min_certainty=0.5",),
            "does not reply with `certainty`: use judge/certainty",
        ),
        (("labels.verify=veto", "judge=null"), "labels.verify: needs a judge"),
        (
            ("judge.panel=[judge, second]",),
            "the pipeline uses the role 'second' and names no model",
        ),
        (("candidates.shared=everyone",), "people write their own openings"),
        (("pairing.compare=random",), "labels.by: cannot be construction"),
    ],
)
def test_a_judge_that_cannot_do_what_is_wanted_is_refused_with_the_reason(
    tmp_path, overrides, sentence
):
    sets = [part for one in overrides for part in ("--set", one)]
    done = simforge(
        "generate",
        "--personas",
        2,
        "--out",
        tmp_path / "o",
        "--model",
        "scripted:",
        *sets,
    )
    assert (done.status, (tmp_path / "o").exists()) == (2, False), done.out
    assert sentence in " ".join(done.err.split()) and "Traceback" not in done.err


# Recipes.


@pytest.mark.parametrize(
    "name", ["psoup", "psoup-published", "multifaceted", "dsp", "personalllm"]
)
def test_prompts_of_a_published_recipe_go_to_people_who_want_opposite_things(name):
    plan, script = prepare(recipe_of(name), 1_000, seed=0)
    wanted: dict[str, set[tuple[str, ...]]] = {}
    for scenario in plan.scenarios(0, len(plan)):
        wanted.setdefault(scenario.prompt.id, set()).add(
            scenario.persona.profile.vector
        )
    opposite = {
        vector: script.space.opposite(script.space.profile("x", vector)).vector
        for one in wanted.values()
        for vector in one
    }
    shared = [
        any(opposite[vector] in vectors for vector in vectors)
        for vectors in wanted.values()
    ]
    assert sum(shared) / len(shared) >= 0.95


def test_three_people_share_a_prompt_and_one_answers_to_anothers_message_is_rejected(
    tmp_path,
):
    out = made(tmp_path / "run", "multifaceted", people=30)
    pairs, asked = table(out, "preferences"), table(out, "candidates")
    assert asked.filter(condition="own")["text"].n_unique() == 30
    assert {*asked.filter(condition="stranger")["text"]} <= {
        *asked.filter(condition="own")["text"]
    }
    assert pairs["prompt_id"].n_unique() <= 10 and pairs["system"].n_unique() > 20
    assert pairs["system"].str.starts_with("You are an assistant.").all()
    paid, used = manifest(out)["usage"], manifest(out)["used"]
    for role in ("writer", "assistants"):
        assert (paid[role]["calls"], used[role]["calls"]) == (30, 60)


def test_an_answer_of_ones_own_walk_of_life_beats_each_of_the_others(tmp_path):
    out = made(tmp_path / "run", "dsp", "pairing.max_length_ratio=null", people=8)
    pairs = table(out, "preferences")
    assert pairs.group_by("dialogue_id").len()["len"].to_list() == [4] * 8
    assert pairs["rejected_condition"].value_counts(sort=True).rows() == [
        ("others", 24),
        ("plain", 8),
    ]
    texts = (
        table(out, "candidates")
        .group_by("dialogue_id")
        .agg(pl.col("text").n_unique())["text"]
    )
    assert texts.to_list() == [5] * 8
    assert (
        table(out, "candidates")["text"].n_unique() == 10
    )  # two groups of four people, five answers each


def test_a_prompts_answers_are_shared_by_everybody_where_the_recipe_says_so(tmp_path):
    out = made(tmp_path / "run", "personalllm", people=100)
    asked = table(out, "candidates").join(
        table(out, "dialogues"), left_on="dialogue_id", right_on="id"
    )
    per_prompt = asked.group_by("prompt_id").agg(
        pl.col("text").n_unique(), people=pl.col("persona_id").n_unique()
    )
    assert (
        per_prompt["text"].unique().to_list() == [8] and per_prompt["people"].max() > 2
    )
    pairs = table(out, "preferences")
    assert pairs["value_gap"].min() > 0 and pairs["label"].unique().to_list() == [
        "scorers"
    ]


def test_whom_the_filters_drop_is_told_by_group(tmp_path):
    out = made(
        tmp_path / "run", "quickstart", "pairing.max_length_ratio=2.6", people=300
    )
    dropped = manifest(out)["dropped"]
    assert dropped["comparisons"] == 1200 and 0 < dropped["share"] < 1
    assert all(
        one["n"] >= 30 and abs(one["share"] - dropped["share"]) > 0.01
        for one in dropped["groups"]
    )
    named = {(one["group"], one["value"]) for one in dropped["groups"]}
    assert (
        "wants (style)",
        "friendly",
    ) in named and "## Groups affected by discards" in (out / "README.md").read_text()


# The guide.

GUIDE = (Path(__file__).parents[2] / "docs" / "judging.md").read_text()


@pytest.mark.parametrize(
    ("name", "calls"), re.findall(r"^\| `([\w-]+)` \| ([\d.]+) \|", GUIDE, re.MULTILINE)
)
def test_the_guides_calls_for_each_pair_are_those_of_the_estimate(name, calls):
    options = Options(out=Path(), personas=1_000, pipeline=name, models=("scripted:",))
    found = estimate_run(options)
    assert (
        f"{sum(used.calls for used in found.usage.values()) / found.pairs:.2g}" == calls
    )


def test_the_guide_speaks_of_every_pipeline_and_every_judge():
    named = re.findall(r"^\| `([\w/-]+)` \|", GUIDE, re.MULTILINE)
    assert {*catalog.names("pipelines")} <= {*named}
    assert {
        name for name in catalog.names("generators") if name.startswith("judge/")
    } - {"judge/feedback"} <= {*named}


def test_the_guides_examples_are_valid(tmp_path):
    judge, space = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    assert (
        Judge.model_validate(yaml.safe_load(judge)["judge"]).generator
        == "judge/persona"
    )
    (tmp_path / "space.yaml").write_text(space)
    assert [
        axis.scorer
        for axis in spaces.load_space(f"{tmp_path}/space.yaml").dimensions.values()
    ] == [
        "helpful_rm",
        "cost_model",
    ]


def test_a_judge_that_rates_is_described_by_its_ratings(tmp_path):
    out = made(tmp_path / "run", "prism", people=12)
    judge = manifest(out)["judges"]["judges"]["judge"]
    assert judge["rated"]["answers"] > 30 and judge["rated"]["different"] > 5
    said = reliability.describe("judge", judge)
    assert "rated" in said and "different values" in said
    assert "in both orders" not in said and "first" not in said.split("same rating")[0]


def test_a_judge_asked_in_one_order_is_said_to_be(tmp_path):
    out = made(
        tmp_path / "run", "psoup", "judge.share=1", "judge.orders=one", people=12
    )
    judge = manifest(out)["judges"]["judges"]["judge"]
    said = reliability.describe("judge", judge)
    assert "in one order only, as the recipe says" in said
    assert "none of them readably" not in said


def test_a_dimension_that_vanished_is_the_first_thing_that_is_said(tmp_path):
    out = tmp_path / "run"
    done = simforge(
        *("generate", "psoup", "--personas", 20, "--out", out),
        *("--model", "scripted:scripts:never_changes_its_style"),
    )
    assert done.status == 0, done.err
    sentence = "The dimension style is missing from the data"
    lines = [line for line in done.out.splitlines() if line.strip()]
    assert any(sentence in line for line in lines[:5]), lines[:5]
    verdict = json.loads((out / "audit.json").read_text())["verdict"]
    assert verdict[0]["weight"] == "fault" and sentence in verdict[0]["text"]
    assert sentence in (out / "README.md").read_text()
