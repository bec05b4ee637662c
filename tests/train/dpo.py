"""Fine-tune SmolLM2-135M on the pairs of a run with TRL's DPOTrainer, on a CPU.

    uv run --isolated --extra train python tests/train/dpo.py RUN MODEL [STEPS]

With the wish before each prompt, since opposite people are in the data. Prints the loss of each
step and the share of pairs of held-out people that the model ranks right, before and after, and
saves the model into the folder MODEL.
"""

from __future__ import annotations

import sys
from pathlib import Path

from smollm import settings, smollm
from trl import DPOConfig, DPOTrainer

import simforge


def main(run: str, folder: str, steps: int = 6) -> list[float]:
    model, tokenizer = smollm(Path(folder) / "base")
    train, test = (
        simforge.load(run, view="trl_preference", split=split, system=True)
        for split in ("train", "test_personas")
    )
    test = test.take(24)
    trainer = DPOTrainer(
        model,
        args=settings(DPOConfig, folder, steps, beta=0.1),
        train_dataset=train,
        eval_dataset=test,
        processing_class=tokenizer,
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    losses = [one["loss"] for one in trainer.state.log_history if "loss" in one]
    print("loss of each step:", *(f"{loss:.4f}" for loss in losses))
    for name, found in (("before", before), ("after", after)):
        loss, right = found["eval_loss"], found["eval_rewards/accuracies"]
        print(f"held-out people, {name}: loss {loss:.4f}, ranked right {right:.2f}")
    trainer.save_model(folder)
    tokenizer.save_pretrained(folder)
    return losses


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
