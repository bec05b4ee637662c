"""TRL's trainers on a run's own output, on a CPU.

Outside the default tests, since they need the extra `train`:

    uv run --isolated --extra train pytest tests/train
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")
sys.path.insert(0, str(Path(__file__).parent))
pytestmark = pytest.mark.filterwarnings("default")  # other people's warnings

from simforge import views  # noqa: E402
from simforge.run.options import Options  # noqa: E402
from simforge.run.pipeline import generate  # noqa: E402
from simforge.run.progress import Display  # noqa: E402


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripted actor's answers differ as the recipe asks for, so there is something to
    learn in a few steps; all pairs are judged, so that they have margins."""
    out = tmp_path_factory.mktemp("train") / "run"
    overrides = ("judge.share=1", "splits={test_personas: 0.2}", "labels.check='none'")
    return generate(
        Options(out, 40, "psoup", models=("scripted:",), overrides=overrides), Display()
    ).path


def test_dpo_fine_tunes_smollm_on_a_runs_pairs(run, tmp_path, capsys):
    import dpo

    losses = dpo.main(str(run), str(tmp_path / "model"), steps=8)
    said = capsys.readouterr().out
    assert (
        len(losses) == 8
        and all(map(math.isfinite, losses))
        and "loss of each step:" in said
    )
    assert losses[0] == pytest.approx(
        math.log(2), abs=0.05
    )  # where model and reference are the same
    assert sum(losses[-3:]) < sum(losses[:3])
    assert (tmp_path / "model" / "model.safetensors").is_file() and (
        tmp_path / "model" / "config.json"
    ).is_file()


def test_a_reward_model_learns_with_the_runs_margins(run, tmp_path, capsys):
    import reward

    margins = [
        row["margin"] for row in views.rows(run, "trl_reward").collect().to_dicts()
    ]
    losses, batch = reward.main(str(run), str(tmp_path / "model"), steps=4)
    assert len(losses) == 4 and all(map(math.isfinite, losses))
    assert batch["margin"].dtype == torch.float32 and {
        round(float(one), 4) for one in batch["margin"]
    } <= {round(one, 4) for one in margins}
    assert (tmp_path / "model" / "model.safetensors").is_file()


def _settings(kind: Any, folder: Path, **more: Any) -> Any:
    return kind(
        output_dir=str(folder), max_steps=1, per_device_train_batch_size=4, report_to="none", use_cpu=True, bf16=False,
        save_strategy="no", disable_tqdm=True, gradient_checkpointing=False, **more,
    )  # fmt: skip


def test_kto_sft_and_grpo_read_their_views(run, tmp_path):
    from smollm import smollm
    from trl import (
        GRPOConfig,
        GRPOTrainer,
        KTOConfig,
        KTOTrainer,
        SFTConfig,
        SFTTrainer,
    )

    import simforge

    model, tokenizer = smollm(tmp_path / "base")
    few = simforge.load(run, view="trl_unpaired").select(range(8))
    settings = _settings(KTOConfig, tmp_path, max_length=None)
    trainer = KTOTrainer(
        model, args=settings, train_dataset=few, processing_class=tokenizer
    )
    assert [bool(one) for one in trainer.train_dataset["label"]] == few["label"]
    assert math.isfinite(trainer.train().training_loss)

    few = simforge.load(run, view="trl_sft").select(range(4))
    settings = _settings(SFTConfig, tmp_path, max_length=None)
    trainer = SFTTrainer(
        model, args=settings, train_dataset=few, processing_class=tokenizer
    )
    batch = next(iter(trainer.get_train_dataloader()))
    learnt = {
        tokenizer.decode(row[row != -100], skip_special_tokens=True).strip()
        for row in batch["labels"]
    }
    assert learnt == {
        row["completion"][0]["content"].strip() for row in few
    }  # and nothing of the prompts
    assert math.isfinite(trainer.train().training_loss)

    handed: list[str] = []

    def score(
        prompts: list[Any],
        completions: list[Any],
        wish: list[str],
        persona_id: list[str],
        **_: Any,
    ) -> list[float]:
        assert len(wish) == len(persona_id) == len(prompts)
        handed.extend(wish)
        return [float(len(one[0]["content"])) for one in completions]

    few = simforge.load(run, view="trl_prompts").select(range(4))
    settings = _settings(
        GRPOConfig, tmp_path, num_generations=4, max_completion_length=8
    )
    trainer = GRPOTrainer(
        model,
        reward_funcs=score,
        args=settings,
        train_dataset=few,
        processing_class=tokenizer,
    )
    trainer.train()
    assert handed and {*handed} <= {*few["wish"]}
