"""Reward models of the transformers library in this process: a tiny one of random weights, made
here.

Outside the default tests, since it needs the extra `train`:

    uv run --isolated --extra train pytest tests/train
"""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from simforge.errors import ModelError  # noqa: E402
from simforge.run.options import Options  # noqa: E402
from simforge.run.pipeline import generate  # noqa: E402
from simforge.run.progress import Display  # noqa: E402

SPACE = """
description: What a reward model makes of an answer
kind: weights
alpha: 1.0
source: made for a test
dimensions:
  good: {scorer: rm, mean: 0, sd: 0.5, poles: {wanted: {steer: a., wants: good, side: high}}}
  bad: {scorer: rm, mean: 0, sd: 0.5, poles: {wanted: {steer: b., wants: bad, side: low}}}
"""


def made(folder: Path, outputs: int) -> Path:
    """A classifier over characters, of random weights."""
    letters = {chr(code): number for number, code in enumerate(range(32, 127))}
    vocabulary = {"<unk>": len(letters), "<pad>": len(letters) + 1, **letters}
    folder.mkdir()
    words = {
        "version": "1.0",
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
    words["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": "."},
        "behavior": "Isolated",
        "invert": False,
    }
    (folder / "tokenizer.json").write_text(json.dumps(words))
    transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        unk_token="<unk>",
        pad_token="<pad>",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(vocabulary), n_embd=32, n_layer=1, n_head=2, n_positions=4096, num_labels=outputs,
        pad_token_id=vocabulary["<pad>"],
    )  # fmt: skip
    transformers.GPT2ForSequenceClassification(config).save_pretrained(folder)
    return folder


def options(tmp_path: Path, model: Path) -> Options:
    (tmp_path / "space.yaml").write_text(SPACE)
    overrides = (f"cast.space={tmp_path}/space.yaml", f"models.rm='reward:{model}'")
    return Options(
        tmp_path / "run", 6, "personalllm", models=("scripted:",), overrides=overrides
    )


def test_a_reward_model_scores_in_this_process_and_decides_by_the_persons_weights(
    tmp_path,
):
    run = generate(options(tmp_path, made(tmp_path / "rm", 1)), Display())
    answers = pl.read_parquet(run.path / "data/candidates/*.parquet")
    scores = answers.explode("scores").unnest("scores")
    assert (
        scores.filter(name="good")["value"].n_unique() > 8
        and scores["value"].is_finite().all()
    )
    same = scores.group_by("text", "prefix").agg(pl.col("value").n_unique())
    assert same["value"].max() == 1
    value = dict(scores.filter(name="good").select("id", "value").iter_rows())
    for row in pl.read_parquet(run.path / "data/preferences/*.parquet").to_dicts():
        good, bad = row["profile"]["vector"]
        lead = (
            (good - bad) * (value[row["chosen_id"]] - value[row["rejected_id"]]) / 0.5
        )
        assert row["value_gap"] == pytest.approx(lead) and lead > 0


def test_a_classifier_of_several_outputs_is_no_reward_model(tmp_path):
    with pytest.raises(
        ModelError, match="gives 3 numbers, and a reward model gives one"
    ):
        generate(options(tmp_path, made(tmp_path / "rm", 3)), Display())
