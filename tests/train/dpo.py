"""Fine-tune SmolLM2-135M on the pairs of a run with TRL's DPOTrainer, on a CPU.

    uv run --isolated --extra train python tests/train/dpo.py RUN MODEL [STEPS]

With the wish before each prompt, since opposite people are in the data. Prints the loss of each step and the share of
pairs of held-out people that the model ranks right, before and after, and saves the model into the folder MODEL.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from smollm import smollm
from trl import DPOConfig, DPOTrainer

from simforge import views


def main(run: str, folder: str, steps: int = 6) -> list[float]:
    model, tokenizer = smollm(Path(folder) / "base")
    train, test = _pairs(run, "train"), _pairs(run, "test_personas").take(24)
    settings = DPOConfig(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=4,
        learning_rate=1e-5,
        beta=0.1,
        max_length=None,  # else what is longer than 1,024 tokens is dropped
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        disable_tqdm=True,
        seed=0,
    )
    trainer = DPOTrainer(model, args=settings, train_dataset=train, eval_dataset=test, processing_class=tokenizer)
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


def _pairs(run: str, split: str) -> Any:
    """Pairs with the wish as a system message."""
    import datasets

    rows = views.rows(run, "trl_preference", split, system=True).collect()
    return datasets.Dataset.from_list(rows.to_dicts())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
