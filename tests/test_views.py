"""Views: what each consumer reads, held against the tables that it was made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from conftest import simforge

import simforge as package
from simforge import views
from simforge.errors import NotFound, UsageError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two-turn dialogues of 16 people, all of them judged."""
    out = tmp_path_factory.mktemp("views") / "run"
    done = simforge("generate", "--personas", 16, "--out", out, "--model", "scripted:", "--set", "judge.share=1")
    assert done.status == 0, done.err
    return out


def pairs_of(run: Path) -> list[dict[str, Any]]:
    return pl.read_parquet(run / "data/preferences/train-*.parquet").to_dicts()


def seen(run: Path, name: str, tmp_path: Path, *flags: str, suffix: str = ".jsonl") -> list[dict[str, Any]]:
    """A view as its file has it."""
    to = tmp_path / f"view{suffix}"
    done = simforge("export", run, "--view", name, "--to", to, *flags)
    assert done.status == 0, done.err
    if suffix == ".parquet":
        return pl.read_parquet(to).to_dicts()
    text = to.read_text()
    return [json.loads(line) for line in text.splitlines()] if suffix == ".jsonl" else json.loads(text)


def test_trls_preferences_are_the_tables_own(run, tmp_path):
    whole = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in pairs_of(run)]
    assert seen(run, "trl_preference", tmp_path) == whole == seen(run, "openrlhf", tmp_path, suffix=".parquet")


def test_a_wish_stands_before_the_prompt_where_it_is_asked_for(run, tmp_path):
    wished = seen(run, "trl_preference", tmp_path, "--system")
    for row, pair in zip(wished, pairs_of(run), strict=True):
        assert row["prompt"] == [{"role": "system", "content": pair["system"]}, *pair["prompt"]]


def test_an_answer_that_is_chosen_and_rejected_by_one_person_is_in_no_unpaired_row(run, tmp_path):
    rows = seen(run, "trl_unpaired", tmp_path)
    both: dict[tuple[str, str, str], set[bool]] = {}
    for pair in pairs_of(run):
        for side in ("chosen", "rejected"):
            key = (pair["persona_id"], json.dumps(pair["prompt"]), json.dumps(pair[side]))
            both.setdefault(key, set()).add(side == "chosen")
    clear = [(prompt, said, *label) for (_, prompt, said), label in both.items() if len(label) == 1]
    found = [(json.dumps(row["prompt"]), json.dumps(row["completion"]), row["label"]) for row in rows]
    assert sorted(found) == sorted(clear)


def test_reward_rows_have_margins_that_do_not_speak_against_them(run, tmp_path):
    rows = seen(run, "trl_reward", tmp_path)
    margins = [row["margin"] for row in pairs_of(run)]
    assert [row["margin"] for row in rows] == [one for one in margins if one is not None and one >= 0]
    assert any(one is not None and one < 0 for one in margins)


def test_sft_ends_with_the_chosen_answer_and_has_nothing_twice(run, tmp_path):
    rows = [json.dumps(row["messages"]) for row in seen(run, "trl_sft", tmp_path)]
    assert {*rows} == {json.dumps(pair["prompt"] + pair["chosen"]) for pair in pairs_of(run)}
    assert len({*rows}) == len(rows) < len(pairs_of(run))


def test_prompts_carry_who_asks_and_what_they_want(run, tmp_path):
    rows = seen(run, "trl_prompts", tmp_path)
    asked = {(json.dumps(pair["prompt"]), pair["persona_id"], pair["system"]) for pair in pairs_of(run)}
    assert {(json.dumps(row["prompt"]), row["persona_id"], row["wish"]) for row in rows} == asked
    assert len(rows) == len(asked)
    for row, prompt in zip(seen(run, "verl", tmp_path, suffix=".parquet"), rows, strict=True):
        assert row["prompt"] == prompt["prompt"] and row["reward_model"]["ground_truth"] == prompt["wish"]
        assert (row["data_source"], row["extra_info"]["persona_id"]) == ("simforge", prompt["persona_id"])


def test_transcripts_are_hh_rlhfs(run, tmp_path):
    for row, pair in zip(seen(run, "hh", tmp_path), pairs_of(run), strict=True):
        for side in ("chosen", "rejected"):
            names = {"user": "Human", "assistant": "Assistant"}
            said = [f"\n\n{names[one['role']]}: {one['content']}" for one in pair["prompt"] + pair[side]]
            assert row[side] == "".join(said)


def test_llamafactory_reads_sharegpt(run, tmp_path):
    names = {"user": "human", "assistant": "gpt"}
    rows = seen(run, "llamafactory", tmp_path, "--system", suffix=".json")
    for row, pair in zip(rows, pairs_of(run), strict=True):
        said = [{"from": names[one["role"]], "value": one["content"]} for one in pair["prompt"]]
        assert row["conversations"] == said and row["system"] == pair["system"]
        assert len(said) % 2 == 1 and said[-1]["from"] == "human"  # its reader drops others
        assert row["chosen"] == {"from": "gpt", "value": pair["chosen"][0]["content"]}
    assert {row["system"] for row in seen(run, "llamafactory", tmp_path)} == {""}


def test_axolotl_reads_one_message_of_each_side(run, tmp_path):
    for row, pair in zip(seen(run, "axolotl", tmp_path), pairs_of(run), strict=True):
        assert (row["messages"], row["chosen"], row["rejected"]) == (
            pair["prompt"],
            pair["chosen"][0],
            pair["rejected"][0],
        )


@pytest.mark.parametrize("name", sorted({*views.names()} - {"dsp", "personalllm"}))
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_datasets_reads_every_views_file(run, tmp_path, name, suffix):
    import datasets

    to = tmp_path / f"view{suffix}"
    count = views.export(run, name, to)
    kind = "json" if suffix == ".jsonl" else "parquet"
    read = datasets.load_dataset(kind, data_files=str(to), split="train", cache_dir=str(tmp_path / "cache"))
    loaded = package.load(run, view=name)
    assert read.num_rows == loaded.num_rows == count > 0 and {*read.column_names} == {*loaded.column_names}
    assert read[0] == loaded[0]


def test_show_lists_the_views_with_what_they_are_for():
    lines = simforge("show", "views").out.splitlines()
    assert [line.split()[0] for line in lines] == views.names() and all(len(line.split()) >= 4 for line in lines)


def test_the_guide_speaks_of_every_view():
    guide = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text()
    assert all(f"| `{name}` |" in guide for name in views.names())


def test_what_cannot_be_exported_is_a_sentence(run, tmp_path):
    with pytest.raises(NotFound, match="did you mean 'trl_sft'"):
        views.export(run, "trl_stf", tmp_path / "x.jsonl")
    with pytest.raises(UsageError, match=r"a view is written as \.parquet, \.jsonl, \.json"):
        views.export(run, "trl_sft", tmp_path / "x.csv")
    manifest = {**json.loads((run / "manifest.json").read_text())}
    manifest["recipe"]["judge"] = None
    assert "the recipe has none" in views.view("trl_reward").refuses(manifest)
    done = simforge("export", tmp_path, "--view", "hh", "--to", tmp_path / "x.jsonl")
    assert done.status == 2 and "is no dataset: there is no manifest.json in it" in done.err


def test_dsps_answers_stand_under_their_walk_of_life(tmp_path):
    out = tmp_path / "run"
    done = simforge("generate", "dsp", "--personas", 8, "--out", out, "--model", "scripted:")
    assert done.status == 0, done.err
    answers = pl.read_parquet(out / "data/candidates/*.parquet")
    dialogues = pl.read_parquet(out / "data/dialogues/*.parquet").select("id", "persona_id")
    people = {row["id"]: row["profile"] for row in pl.read_parquet(out / "data/personas/*.parquet").to_dicts()}
    owner = dict(dialogues.iter_rows())
    own = {}
    for row in answers.filter(condition="own").to_dicts():
        profile = people[owner[row["dialogue_id"]]]
        domain = next(name for name, value in zip(profile["names"], profile["values"], strict=True) if value)
        own[row["prefix"][-1]["content"], domain] = row["text"]
    plain = {row["prefix"][-1]["content"]: row["text"] for row in answers.filter(condition="plain").to_dicts()}
    rows = views.rows(out, "dsp", split=None).collect().to_dicts()
    assert len(rows) == 2  # two groups of four people
    for row in rows:
        assert {*row["responses"]} == {"academy", "business", "entertainment", "literature", "normal"}
        assert row["responses"]["normal"] == plain[row["query"]]
    assert all(
        next(r for r in rows if r["query"] == query)["responses"][domain] == text
        for (query, domain), text in own.items()
    )


def test_personalllms_answers_stand_once_with_their_scores(tmp_path):
    out = tmp_path / "run"
    done = simforge("generate", "personalllm", "--personas", 10, "--out", out, "--model", "scripted:")
    assert done.status == 0, done.err
    rows = views.rows(out, "personalllm", split=None).collect().to_dicts()
    answers = pl.read_parquet(out / "data/candidates/*.parquet")
    assert len(rows) == answers.select(pl.col("prefix").list.last().struct.field("content")).n_unique()
    scores = {row["text"]: {one["name"]: one["value"] for one in row["scores"]} for row in answers.to_dicts()}
    for row in rows:
        for number in range(1, 9):
            own = scores[row[f"response_{number}"]]
            assert own == {name: row[f"response_{number}_{name}"] for name in own} and len(own) == 6


@pytest.mark.parametrize("name", ["dsp", "personalllm"])
def test_a_published_form_refuses_a_dataset_of_another_kind(run, name):
    with pytest.raises(UsageError, match=f"cannot be seen as {name}: it"):
        views.rows(run, name)
