"""What a run costs: estimates, budgets, the ledger's account, and playing lost dialogues again."""

from __future__ import annotations

import json
import re

import polars as pl
import pytest
from conftest import simforge

from simforge.errors import RecipeError, UsageError
from simforge.models.budget import load_prices, price_of
from simforge.types import Usage

PRICES = (
    '"scripted:*": {prompt: 10, completion: 40}\n"scripted:scripts:*": {prompt: 20, cached: '
    "2, completion: 40}\n"
)


@pytest.fixture
def prices(tmp_path):
    (tmp_path / "prices.yaml").write_text(PRICES)
    return tmp_path / "prices.yaml"


def test_the_longest_pattern_prices_a_model_and_cached_tokens_may_be_cheaper(prices):
    known = load_prices(prices)
    assert price_of("scripted:", known).cost_of(Usage(1, 1_000_000, 500_000, 0)) == 10
    assert (
        price_of("scripted:scripts:x", known).cost_of(
            Usage(1, 1_000_000, 500_000, 100_000)
        )
        == 15
    )
    assert price_of("openai:x@y", known) is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: {prompt: 1}", "a.completion: is missing|completion: is missing"),
        ("a: {prompt: -1, completion: 2}", "greater than or equal to 0"),
        ("a: 3", "must be a mapping of prices"),
        ("a: {prompt: 1, completion: 2, output: 3}", "unknown key 'output'"),
    ],
)
def test_wrong_prices_are_refused(tmp_path, text, sentence):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(RecipeError, match=sentence):
        load_prices(tmp_path / "p.yaml")
    with pytest.raises(UsageError, match="cannot be read"):
        load_prices(tmp_path / "none.yaml")


def test_an_estimate_has_the_calls_of_the_run_and_its_money(tmp_path, prices):
    what = ["psoup", "--personas", 30, "--model", "scripted:", "--set", "judge=null"]
    said = simforge("estimate", *what, "--prices", prices)
    assert said.status == 0, said.err
    calls = int(re.search(r"assistants +([\d,]+) calls", said.out)[1].replace(",", ""))
    assert simforge("generate", *what, "--out", tmp_path / "r").status == 0
    asked = int(
        simforge("ledger", tmp_path / "r").out.split()[0]
    )  # what twins share is asked once
    assert asked * 0.98 <= calls <= asked * 1.02
    assert re.search(r"together [\d.]+\n", said.out)
    assert "plus the models without a price" not in said.out
    assert "together" not in simforge("estimate", *what).out


def test_a_budget_stops_before_a_new_call_and_the_same_command_goes_on(
    tmp_path, prices
):
    command = [
        "generate",
        "--personas",
        20,
        "--model",
        "scripted:",
        "--prices",
        prices,
        "--out",
        tmp_path / "r",
    ]
    stopped = simforge(*command, "--budget", "0.2")
    assert (stopped.status, "the budget of 0.2 is reached" in stopped.err) == (
        4,
        True,
    ), stopped.err
    told = simforge("ledger", tmp_path / "r", "--prices", prices)
    spent = float(told.out.splitlines()[1].split()[-1])
    assert 0.15 <= spent <= 0.2 and not (tmp_path / "r/manifest.json").exists()
    again = simforge(*command, "--budget", "0.2")
    assert (
        again.status == 4
        and simforge("ledger", tmp_path / "r", "--prices", prices).out == told.out
    )
    assert simforge(*command, "--budget", "20").status == 0
    assert (
        simforge(
            "generate",
            "--personas",
            20,
            "--model",
            "scripted:",
            "--out",
            tmp_path / "whole",
        ).status
        == 0
    )
    tables = [
        pl.read_parquet(tmp_path / run / "data/preferences/*.parquet")
        for run in ("r", "whole")
    ]
    assert tables[0].equals(tables[1])


def test_a_budget_over_models_without_a_price_is_refused(tmp_path, prices):
    done = simforge(
        "generate",
        "--personas",
        2,
        "--model",
        "scripted:",
        "--budget",
        1,
        "--out",
        tmp_path / "r",
    )
    assert (done.status, "--budget needs the price of scripted:" in done.err) == (
        2,
        True,
    )
    assert not (tmp_path / "r").exists()


def test_lost_dialogues_are_played_again_with_the_runs_own_options(tmp_path):
    env = {"BROKEN": str(tmp_path / "broken")}
    (tmp_path / "broken").touch()
    run = tmp_path / "r"
    first = simforge(
        *(
            "generate",
            "--personas",
            30,
            "--model",
            "scripted:scripts:fails_for_some",
            "--max-failures",
            1,
        ),
        *("--set", "dialogue.turns=1", "--out", run),
        env=env,
    )
    assert first.status == 0, first.err
    lost = json.loads((run / "manifest.json").read_text())["dialogues"]["failed"]
    (tmp_path / "broken").unlink()
    foreign = simforge("retry", run, env={**env, "XDG_STATE_HOME": str(tmp_path / "x")})
    assert foreign.status == 2 and "was not written here by you" in foreign.err
    assert lost > 0 and simforge("retry", run, env=env).status == 0
    assert json.loads((run / "manifest.json").read_text())["dialogues"]["failed"] == 0
    nothing = simforge("retry", run, env=env)
    assert (nothing.status, "has no failed dialogues" in nothing.out) == (0, True)
    assert "is not a run of this version" in simforge("retry", tmp_path).err


def test_a_cluster_that_is_not_there_is_told_before_a_folder_is_made(tmp_path):
    done = simforge(
        *("generate", "--personas", 2, "--model", "scripted:", "--executor", "ray"),
        *("--ray-address", "127.0.0.1:9", "--out", tmp_path / "r"),
    )
    assert (done.status, "there is no Ray cluster at 127.0.0.1:9" in done.err) == (
        2,
        True,
    ), done.err
    assert not (tmp_path / "r").exists()


def test_prices_that_cannot_be_read_are_told_without_a_budget(tmp_path):
    done = simforge(
        *("generate", "psoup", "--personas", 2, "--model", "scripted:"),
        *("--prices", tmp_path / "none.yaml", "--out", tmp_path / "r"),
    )
    assert done.status == 2 and "--prices cannot be read" in done.err, done.err
    assert not (tmp_path / "r").exists()
