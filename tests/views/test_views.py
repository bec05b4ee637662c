"""Views: what each consumer reads, held against the tables that it was made from."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import simforge

import simforge as package
from simforge import views
from simforge.errors import NotFound, UsageError
from simforge.views import prism_utterances


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two-turn dialogues of 16 people, all of them judged."""
    out = tmp_path_factory.mktemp("views") / "run"
    done = simforge(
        "generate",
        "--personas",
        16,
        "--out",
        out,
        "--model",
        "scripted:",
        "--set",
        "judge.share=1",
    )
    assert done.status == 0, done.err
    return out


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs of the recipes of published systems, each made once."""
    root = tmp_path_factory.mktemp("published")

    def made(recipe: str) -> Path:
        out = root / recipe
        if not out.exists():
            done = simforge(
                "generate",
                recipe,
                "--personas",
                12,
                "--out",
                out,
                "--model",
                "scripted:",
            )
            assert done.status == 0, done.err
        return out

    return made


def pairs_of(run: Path) -> list[dict[str, Any]]:
    return pl.read_parquet(run / "data/preferences/train-*.parquet").to_dicts()


def seen(
    run: Path, name: str, tmp_path: Path, *flags: str, suffix: str = ".jsonl"
) -> list[dict[str, Any]]:
    """A view as its file has it."""
    to = tmp_path / f"view{suffix}"
    done = simforge("export", run, "--view", name, "--to", to, *flags)
    assert done.status == 0, done.err
    if suffix == ".parquet":
        return pl.read_parquet(to).to_dicts()
    text = to.read_text()
    return (
        [json.loads(line) for line in text.splitlines()]
        if suffix == ".jsonl"
        else json.loads(text)
    )


def test_trls_preferences_are_the_tables_own(run, tmp_path):
    whole = [
        {name: row[name] for name in ("prompt", "chosen", "rejected")}
        for row in pairs_of(run)
    ]
    assert (
        seen(run, "trl_preference", tmp_path)
        == whole
        == seen(run, "openrlhf", tmp_path, suffix=".parquet")
    )


def test_a_wish_stands_before_the_prompt_where_it_is_asked_for(run, tmp_path):
    wished = seen(run, "trl_preference", tmp_path, "--system")
    for row, pair in zip(wished, pairs_of(run), strict=True):
        assert row["prompt"] == [
            {"role": "system", "content": pair["system"]},
            *pair["prompt"],
        ]


def test_an_answer_that_is_chosen_and_rejected_by_one_person_is_in_no_unpaired_row(
    run, tmp_path
):
    rows = seen(run, "trl_unpaired", tmp_path)
    both: dict[tuple[str, str, str], set[bool]] = {}
    for pair in pairs_of(run):
        for side in ("chosen", "rejected"):
            key = (
                pair["persona_id"],
                json.dumps(pair["prompt"]),
                json.dumps(pair[side]),
            )
            both.setdefault(key, set()).add(side == "chosen")
    clear = [
        (prompt, said, *label)
        for (_, prompt, said), label in both.items()
        if len(label) == 1
    ]
    found = [
        (json.dumps(row["prompt"]), json.dumps(row["completion"]), row["label"])
        for row in rows
    ]
    assert sorted(found) == sorted(clear)


def test_reward_rows_have_margins_that_do_not_speak_against_them(tmp_path):
    """A judge that follows the profile, by length alone, and errs in a fifth of its calls: of
    some labels by construction it says the opposite."""
    command = (
        "generate",
        "psoup",
        "--personas",
        200,
        "--out",
        tmp_path / "run",
        "--set",
        "judge.share=1",
    )
    model = ("--model", "scripted:", "--model", "judge=scripted:judges:errs_in_a_fifth")
    done = simforge(
        *command,
        *model,
        "--set",
        "labels.check=none",
        "--set",
        "candidates.contrast=rotate",
    )
    assert done.status == 0, done.err
    rows = seen(tmp_path / "run", "trl_reward", tmp_path)
    margins = [row["margin"] for row in pairs_of(tmp_path / "run")]
    assert [row["margin"] for row in rows] == [
        one for one in margins if one is not None and one >= 0
    ]
    assert (
        any(one is not None and one < 0 for one in margins)
        and max(row["margin"] for row in rows) > 1
    )


@pytest.mark.parametrize(
    ("recipe", "most"), [("prism", 1.0), ("personalllm", 10.0)], ids=["rated", "scored"]
)
def test_reward_margins_come_from_ratings_and_scores_too_and_ties_have_none(
    recipe, most, tmp_path
):
    out = tmp_path / "run"
    made = ("generate", recipe, "--personas", 8, "--out", out, "--model", "scripted:")
    done = simforge(*made, "--set", "pairing.ties=keep")
    assert done.status == 0, done.err
    rows = seen(out, "trl_reward", tmp_path)
    pairs = [row for row in pairs_of(out) if row["label"] != "tie" and row["value_gap"]]
    assert 0 < len(rows) == len(pairs)
    gaps = [row["value_gap"] for row in pairs]
    scale = rows[0]["margin"] / gaps[0]
    for row, gap in zip(rows, gaps, strict=True):
        assert 0 < row["margin"] <= most and row["margin"] == pytest.approx(gap * scale)


def test_an_export_says_what_it_leaves_out(run, tmp_path):
    to = tmp_path / "x.jsonl"
    few = tmp_path / "few"
    made = ("generate", "--personas", 4, "--model", "scripted:", "--out", few)
    reasons = ("--set", "judge.share=1", "--set", "judge.generator=judge/reasons")
    assert simforge(*made, *reasons).status == 0
    done = simforge("export", few, "--view", "trl_reward", "--to", to)
    assert done.status == 2, done.out
    assert "pairs have no margin: the reliability of the judge's verdicts" in done.err
    where = ("--where", "label = 'nobody'")
    done = simforge("export", run, "--view", "trl_sft", "--to", to, *where)
    assert "no pair in the split train satisfies --where" in done.err


def test_probabilities_of_a_judge_without_information_give_no_margin(run):
    about = json.loads((run / "manifest.json").read_text())["judges"]["judges"]["judge"]
    assert (
        not about["corrected"]["significant"]
        and not about["correlation"]["significant"]
    )
    judged = [row for row in pairs_of(run) if row["p_chosen"] is not None]
    assert judged and {row["margin"] for row in judged} == {0.0}


def test_sft_learns_the_chosen_answer_and_has_nothing_twice(run, tmp_path):
    rows = seen(run, "trl_sft", tmp_path)
    said = [json.dumps(row) for row in rows]
    assert len(said) == len({*said}) and all(
        [*row] == ["prompt", "completion"] for row in rows
    )
    assert {*said} == {
        json.dumps({"prompt": pair["prompt"], "completion": pair["chosen"]})
        for pair in pairs_of(run)
    }


def test_prompts_carry_who_asks_and_what_they_want(run, tmp_path):
    rows = seen(run, "trl_prompts", tmp_path)
    asked = {
        (json.dumps(pair["prompt"]), pair["persona_id"], pair["system"])
        for pair in pairs_of(run)
    }
    assert {
        (json.dumps(row["prompt"]), row["persona_id"], row["wish"]) for row in rows
    } == asked
    assert len(rows) == len(asked)
    for row, prompt in zip(
        seen(run, "verl", tmp_path, suffix=".parquet"), rows, strict=True
    ):
        assert (
            row["prompt"] == prompt["prompt"]
            and row["reward_model"]["ground_truth"] == prompt["wish"]
        )
        assert (row["data_source"], row["extra_info"]["persona_id"]) == (
            "simforge",
            prompt["persona_id"],
        )


def test_transcripts_are_hh_rlhfs(run, tmp_path):
    for row, pair in zip(seen(run, "hh", tmp_path), pairs_of(run), strict=True):
        for side in ("chosen", "rejected"):
            names = {"user": "Human", "assistant": "Assistant"}
            said = [
                f"\n\n{names[one['role']]}: {one['content']}"
                for one in pair["prompt"] + pair[side]
            ]
            assert row[side] == "".join(said)


def test_llamafactory_reads_sharegpt(run, tmp_path):
    names = {"user": "human", "assistant": "gpt"}
    rows = seen(run, "llamafactory", tmp_path, "--system", suffix=".json")
    for row, pair in zip(rows, pairs_of(run), strict=True):
        said = [
            {"from": names[one["role"]], "value": one["content"]}
            for one in pair["prompt"]
        ]
        assert row["conversations"] == said and row["system"] == pair["system"]
        assert (
            len(said) % 2 == 1 and said[-1]["from"] == "human"
        )  # its reader drops others
        assert row["chosen"] == {"from": "gpt", "value": pair["chosen"][0]["content"]}
    assert {row["system"] for row in seen(run, "llamafactory", tmp_path)} == {""}


def test_axolotl_reads_one_message_of_each_side(run, tmp_path):
    for row, pair in zip(seen(run, "axolotl", tmp_path), pairs_of(run), strict=True):
        assert (row["messages"], row["chosen"], row["rejected"]) == (
            pair["prompt"],
            pair["chosen"][0],
            pair["rejected"][0],
        )


RECIPES = {
    **{name: name for name in ("aloe", "dsp", "personalllm", "psoup")},
    **{f"multifaceted_{name}": "multifaceted" for name in ("sft", "dpo")},
    **{f"prism_{name}": "prism" for name in ("survey", "conversations", "utterances")},
}
"What makes the data that a published form takes."


@pytest.mark.parametrize("name", views.names())
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_datasets_reads_every_views_file(run, published, tmp_path, name, suffix):
    import datasets

    run = published(RECIPES[name]) if name in RECIPES else run
    to = tmp_path / f"view{suffix}"
    count = views.export(run, name, to).rows
    kind = "json" if suffix == ".jsonl" else "parquet"
    read = datasets.load_dataset(
        kind, data_files=str(to), split="train", cache_dir=str(tmp_path / "cache")
    )
    loaded = package.load(run, view=name)
    assert read.num_rows == loaded.num_rows == count > 0 and {*read.column_names} == {
        *loaded.column_names
    }
    assert read[0] == loaded[0]


def test_show_lists_the_views_with_what_they_are_for():
    lines = simforge("show", "views").out.splitlines()
    assert [line.split()[0] for line in lines] == views.names() and all(
        len(line.split()) >= 3 for line in lines
    )


def test_the_guide_speaks_of_every_view():
    guide = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    assert all(f"| `{name}` |" in guide for name in views.names())


def test_what_cannot_be_exported_is_a_sentence(run, tmp_path):
    with pytest.raises(NotFound, match=r"there is no view named 'trl_stf'"):
        views.export(run, "trl_stf", tmp_path / "x.jsonl")
    with pytest.raises(
        UsageError, match=r"a view is written as \.parquet, \.jsonl, \.json"
    ):
        views.export(run, "trl_sft", tmp_path / "x.csv")
    manifest = {**json.loads((run / "manifest.json").read_text())}
    manifest["recipe"]["judge"] = None
    assert "the recipe has none" in views.view("trl_reward").refuses(manifest)
    done = simforge("export", tmp_path, "--view", "hh", "--to", tmp_path / "x.jsonl")
    assert (
        done.status == 2
        and "is not a dataset: there is no manifest.json in it" in done.err
    )


def test_dsps_answers_stand_under_their_walk_of_life(published):
    out = published("dsp")
    answers = pl.read_parquet(out / "data/candidates/*.parquet")
    dialogues = pl.read_parquet(out / "data/dialogues/*.parquet").select(
        "id", "persona_id"
    )
    people = {
        row["id"]: row["profile"]
        for row in pl.read_parquet(out / "data/personas/*.parquet").to_dicts()
    }
    owner = dict(dialogues.iter_rows())
    own = {}
    for row in answers.filter(condition="own").to_dicts():
        profile = people[owner[row["dialogue_id"]]]
        domain = next(
            name
            for name, value in zip(profile["names"], profile["values"], strict=True)
            if value
        )
        own[row["prefix"][-1]["content"], domain] = row["text"]
    plain = {
        row["prefix"][-1]["content"]: row["text"]
        for row in answers.filter(condition="plain").to_dicts()
    }
    rows = views.rows(out, "dsp", split=None).collect().to_dicts()
    assert len(rows) == 3  # groups of four people
    for row in rows:
        assert {*row["responses"]} == {
            "academy",
            "business",
            "entertainment",
            "literature",
            "normal",
        }
        assert row["responses"]["normal"] == plain[row["query"]]
    assert all(
        next(r for r in rows if r["query"] == query)["responses"][domain] == text
        for (query, domain), text in own.items()
    )


def test_personalllms_answers_stand_once_with_their_scores(published):
    out = published("personalllm")
    rows = views.rows(out, "personalllm", split=None).collect().to_dicts()
    answers = pl.read_parquet(out / "data/candidates/*.parquet")
    assert (
        len(rows)
        == answers.select(
            pl.col("prefix").list.last().struct.field("content")
        ).n_unique()
    )
    scores = {
        row["text"]: {one["name"]: one["value"] for one in row["scores"]}
        for row in answers.to_dicts()
    }
    for row in rows:
        for number in range(1, 9):
            own = scores[row[f"response_{number}"]]
            assert (
                own == {name: row[f"response_{number}_{name}"] for name in own}
                and len(own) == 6
            )


def table(run: Path, name: str) -> list[dict[str, Any]]:
    return pl.read_parquet(run / "data" / name / "*.parquet").to_dicts()


def test_psoups_rollouts_say_which_of_two_answers_is_better_and_first_is_not_always_it(
    published,
):
    run = published("psoup")
    rows = views.rows(run, "psoup", split=None).collect().to_dicts()
    pairs = table(run, "preferences")
    assert {row["preference"] for row in rows} == {1, 2} and [
        row["id"] for row in rows
    ] == [*range(len(pairs))]
    won = [
        (row[f"output_{row['preference']}"], row[f"output_{3 - row['preference']}"])
        for row in rows
    ]
    assert won == [
        (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in pairs
    ]
    assert [row["preference_prompt"] for row in rows] == [
        pair["system"] for pair in pairs
    ]


def test_multifaceteds_answers_stand_under_what_was_asked_for(published):
    run = published("multifaceted")
    people = {row["id"]: row["profile"]["values"] for row in table(run, "personas")}
    owners = {row["id"]: row["persona_id"] for row in table(run, "dialogues")}
    answers = table(run, "candidates")
    own = [
        row for row in answers if row["condition"] == "own"
    ]  # a stranger's is somebody's own too
    told = {
        row["text"]: (row["steering"], people[owners[row["dialogue_id"]]])
        for row in own
    }
    taught = views.rows(run, "multifaceted_sft", split=None).collect().to_dicts()
    assert len(taught) == 12
    for row in taught:
        system, values = told[row["output"]]
        assert row["system"] == system and all(
            one["description"] in system for one in row["preference_set"]
        )
        assert [
            f"{one['subdimension']}/{one['preference']}"
            for one in row["preference_set"]
        ] == values
        assert [one["dimension"] for one in row["preference_set"]] == [
            *("style", "background_knowledge", "informativeness", "harmlessness")
        ]
    for row in views.rows(run, "multifaceted_dpo", split=None).collect().to_dicts():
        assert (
            [one["role"] for one in row["chosen"]]
            == ["user", "assistant"]
            == [one["role"] for one in row["rejected"]]
        )
        assert (
            row["chosen"][0]["content"]
            == row["prompt"]
            == row["rejected"][0]["content"]
        )
        assert told[row["chosen"][1]["content"]][0] == row["system"]
        worse = row["rejected"][1]["content"]
        assert all(
            one["steering"] != row["system"] for one in answers if one["text"] == worse
        )


def aloe_dpo_pairs(row: dict[str, Any]) -> list[tuple[list[str], str, list[str]]]:
    """The training pairs that ALOE's DPO script makes of a dialogue, in our own words: history,
    chosen answer, and the rejected ones of which it draws one."""
    history: list[str] = []
    pairs = []
    for turn in row["conversations"]:
        history.append(turn["user"])
        answers = turn["assistant"]
        pairs.append((list(history), answers["preferred"], answers["rejected"]))
        history.append(answers[turn["chosen"]])
    return pairs


def test_aloes_dialogues_have_what_a_reader_of_its_file_follows(published):
    run = published("aloe")
    said = [
        [one["content"] for one in row["messages"]] for row in table(run, "dialogues")
    ]
    rows = views.rows(run, "aloe", split=None).collect().to_dicts()
    assert rows and {*rows[0]} == {"profile", "personality", "conversations"}
    known = {row["text"]: row for row in table(run, "personas")}
    for row in rows:
        assert row["profile"] in known and row["personality"].count(";") == 2
        for history, preferred, rejected in aloe_dpo_pairs(row):
            assert isinstance(rejected, list) and rejected and preferred not in rejected
            assert [whole[: len(history)] for whole in said].count(history) == 1
        assert all(turn["inferred_profile"] for turn in row["conversations"])
    assert {turn["chosen"] for row in rows for turn in row["conversations"]} == {
        "preferred",
        "continued",
    }


def test_aloes_view_says_what_comes_after_an_undecided_turn(published, tmp_path):
    done = simforge(
        *("export", published("aloe"), "--view", "aloe", "--to", tmp_path / "x.jsonl")
    )
    assert done.status == 0, done.err
    rows = [
        json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()
    ]
    kept = sum(len(row["conversations"]) for row in rows)
    decided = len(
        {
            (row["dialogue_id"], row["turn"])
            for row in pairs_of(published("aloe"))
            if row["own_dialogue"] and row["dimension"] is None
        }
    )
    lost = f"{decided - kept:,} turns of"
    assert decided == kept or lost in done.out, done.out
    short = sum(len(row["conversations"]) < 10 for row in rows)
    assert f"{short} of {len(rows)} dialogues have fewer than 10 turns" in done.out


def prism_battles(rows: list[dict[str, Any]], tie: int = 5) -> list[tuple[str, str]]:
    """The contests between models that PRISM's analysis extracts from opening turns, in our own
    words: it keys the scores of a turn by the name of the model."""
    turns: dict[str, dict[str, int]] = {}
    for row in rows:
        if row["turn"] == 0:
            turns.setdefault(row["interaction_id"], {})[row["model_name"]] = row[
                "score"
            ]
    return [
        (first, second)
        for scores in turns.values()
        for first, second in itertools.combinations(sorted(scores), 2)
        if scores[first] is not None and abs(scores[first] - scores[second]) >= -tie
    ]


def test_prisms_models_are_told_apart_by_their_whole_names(published):
    answers = views.rows(published("prism"), "prism_utterances", split=None).collect()
    frame = pl.DataFrame(
        {
            "model": [
                "openai:qwen3:8b@http://localhost:8000/v1",
                "openai:qwen3:8b@http://localhost:8001/v1",
                "scripted:judges:always_first",
                "scripted:",
            ]
        }
    )
    assert answers["model_name"].null_count() == 0 and "" not in answers["model_name"]
    names = frame.select(**prism_utterances.model_columns())
    assert names["model_name"].to_list() == [
        "qwen3:8b@http://localhost:8000/v1",
        "qwen3:8b@http://localhost:8001/v1",
        "judges:always_first",
        "scripted",
    ]
    assert names["model_provider"].to_list() == [
        "openai",
        "openai",
        "scripted",
        "scripted",
    ]
    four = answers.filter(turn=0).with_columns(
        model_name=pl.col("model_name") + pl.col("within_turn_id").cast(pl.String)
    )
    openings = four["interaction_id"].n_unique()
    assert len(prism_battles(four.to_dicts())) == 6 * openings
    survey = views.rows(published("prism"), "prism_survey", split=None).collect()
    location = survey["location"].struct.unnest()
    regions = {row["region"] for row in table(published("prism"), "personas")}
    assert {*location["special_region"]} == regions and location.width == 10


def test_prisms_three_tables_fit_each_other(published):
    run = published("prism")
    survey, talks, answers = (
        views.rows(run, f"prism_{name}", split=None).collect().to_dicts()
        for name in ("survey", "conversations", "utterances")
    )
    assert len(survey) == 12 and {*survey[0]["stated_prefs"]} >= {
        "values",
        "helpfulness",
        "personalisation",
    }
    users = {row["user_id"] for row in survey}
    by_talk = {row["conversation_id"]: row for row in talks}
    assert {row["user_id"] for row in answers} <= users and {
        row["conversation_id"] for row in answers
    } == {*by_talk}
    assert {row["conversation_type"] for row in talks} == {
        "unguided",
        "values guided",
        "controversy guided",
    }
    turns: dict[str, list[dict[str, Any]]] = {}
    for row in answers:
        turns.setdefault(row["interaction_id"], []).append(row)
    for own in turns.values():
        assert len(own) == (4 if own[0]["turn"] == 0 else 2) and [
            row["within_turn_id"] for row in own
        ] == [*range(len(own))]
        (chosen,) = [row for row in own if row["if_chosen"]]
        assert (
            chosen["score"] == max(row["score"] for row in own)
            and 1 <= chosen["score"] <= 100
        )
    for talk in talks:
        history = talk["conversation_history"]
        assert (
            history[0]["content"] == talk["opening_prompt"]
            and talk["conversation_turns"] == 4
        )
        replies = [one for one in history if one["role"] == "model"]
        own = [
            row for row in answers if row["conversation_id"] == talk["conversation_id"]
        ]
        assert [one["content"] for one in replies] == [
            row["model_response"] for row in own
        ]
        assert [one["turn"] for one in history] == sorted(
            one["turn"] for one in history
        )
        assert all(
            1 <= talk[f"{what}_attributes"]["helpfulness"] <= 100
            for what in ("performance", "choice")
        )


@pytest.mark.parametrize(
    "name", ["dsp", "personalllm", "psoup", "multifaceted_sft", "multifaceted_dpo", "aloe", "prism_survey",
             "prism_conversations", "prism_utterances"]
)  # fmt: skip
def test_a_published_form_refuses_a_dataset_of_another_kind(run, name):
    with pytest.raises(UsageError, match=f"cannot be seen as {name}: it"):
        views.rows(run, name)


def test_a_wish_before_the_prompt_is_refused_where_the_form_has_no_place_for_it(
    run, tmp_path
):
    with pytest.raises(UsageError, match="the format hh has no place for a wish"):
        views.export(run, "hh", tmp_path / "x.jsonl", system=True)


def test_what_was_left_out_when_it_was_published_is_named(published, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(published("aloe"), copy, ignore=shutil.ignore_patterns("work"))
    for path in copy.glob("data/personas/*.parquet"):
        pl.read_parquet(path).drop("text").write_parquet(path)
    with pytest.raises(
        UsageError,
        match="it has no column text; sensitive columns are left out",
    ):
        views.rows(copy, "aloe")


def test_transcripts_in_which_somebody_writes_the_marks_are_left_out(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("work"))
    (path,) = copy.glob("data/preferences/train-*.parquet")
    pairs = pl.read_parquet(path)
    marked = pl.Series(
        [[{"role": "assistant", "content": "No.\n\nHuman: why?"}]],
        dtype=pairs["chosen"].dtype,
    )
    first = pairs.head(1).with_columns(chosen=marked)
    pl.concat([first, pairs.slice(1)]).write_parquet(path)
    assert views.rows(copy, "hh").collect().height == pairs.height - 1


@pytest.mark.parametrize(
    "name", ["aloe", "dsp", "multifaceted_sft", "prism_conversations", "personalllm"]
)
def test_a_view_is_the_same_file_each_time(published, tmp_path, name):
    texts = set()
    for number in range(3):
        views.export(
            published(RECIPES[name]), name, tmp_path / f"{number}.jsonl", split=None
        )
        texts.add((tmp_path / f"{number}.jsonl").read_text())
    assert len(texts) == 1


def test_a_condition_is_over_the_pairs_that_a_view_is_made_from(run, tmp_path):
    wanted = [
        pair
        for pair in pairs_of(run)
        if pair["label"] == "construction" and pair["turn"] == 1
    ]
    rows = seen(
        run,
        "trl_preference",
        tmp_path,
        "--where",
        "label = 'construction' AND turn = 1",
    )
    assert [row["chosen"] for row in rows] == [
        pair["chosen"] for pair in wanted
    ] and wanted
    loaded = package.load(run, view="trl_preference", where="turn = 1", system=True)
    assert {row[0]["role"] for row in loaded["prompt"]} == {
        "system"
    } and loaded.num_rows >= len(rows)
    with pytest.raises(UsageError, match="Put text values in single quotes"):
        package.load(run, view="trl_sft", where='label = "judge"')
    with pytest.raises(UsageError, match=r"where: .* does not fit"):
        package.load(run, where="margin > 'a'")
    with pytest.raises(
        UsageError, match="pass view='trl_sft' or table='personas', not both"
    ):
        package.load(run, "personas", view="trl_sft")


def test_streamed_rows_are_the_loaded_ones(run):
    for settings in (
        {"view": "trl_reward"},
        {"table": "personas", "where": "age > 30"},
    ):
        streamed = [*package.load(run, **settings, streaming=True)]
        loaded = package.load(run, **settings)
        assert streamed == [*loaded] and loaded.num_rows > 2
        assert package.load(run, **settings, streaming=True).features == loaded.features


def test_what_is_loaded_again_is_the_same_file_and_of_other_data_another(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("work"))
    first, again = package.load(copy), package.load(copy)
    assert first.cache_files == again.cache_files
    (path,) = copy.glob("data/preferences/train-*.parquet")
    pl.read_parquet(path).head(3).write_parquet(path)
    assert package.load(copy).num_rows == 3 and first.num_rows > 3
