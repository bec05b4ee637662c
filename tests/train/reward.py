"""Train a reward model on the pairs of a run with TRL's RewardTrainer and their margins, on a CPU.

    uv run --isolated --extra train python tests/train/reward.py RUN MODEL [STEPS]

SmolLM2-135M with a new head. Prints the loss of each step, and what the margins do to it: a
pair of which the judge is sure has to be told apart by more.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from smollm import settings, smollm
from transformers import AutoModelForSequenceClassification
from trl import RewardConfig, RewardTrainer

import simforge


def main(run: str, folder: str, steps: int = 6) -> tuple[list[float], Any]:
    base = Path(folder) / "base"
    _, tokenizer = smollm(base)
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, dtype=torch.float32
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    data = simforge.load(run, view="trl_reward")
    trainer = RewardTrainer(
        model,
        args=settings(RewardConfig, folder, steps),
        train_dataset=data,
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.train()
    losses = [one["loss"] for one in trainer.state.log_history if "loss" in one]
    print(
        f"{data.num_rows} pairs, margins {min(data['margin']):.2f} to {max(data['margin']):.2f}"
    )
    print("loss of each step:", *(f"{loss:.4f}" for loss in losses))
    trainer.save_model(folder)
    tokenizer.save_pretrained(folder)
    return losses, batch


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
