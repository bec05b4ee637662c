"""verl's RLHFDataset reads the view `verl`."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas
from omegaconf import OmegaConf
from tiny import tiny
from torch.utils.data import DataLoader
from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

folder = Path(sys.argv[1])
settings = OmegaConf.create(
    {
        "cache_dir": str(folder / "verl-cache"), "prompt_key": "prompt", "max_prompt_length": 16_384,
        "filter_overlong_prompts": True, "filter_overlong_prompts_workers": 1, "truncation": "error",
        "return_raw_chat": True,
    }
)  # fmt: skip
rows = pandas.read_parquet(folder / "verl.parquet")
made = RLHFDataset(str(folder / "verl.parquet"), tiny(folder / "tiny"), settings)
assert len(made) == len(rows) > 0
for number, (_, row) in enumerate(rows.iterrows()):
    one = made[number]
    said = [
        [(message["role"], message["content"]) for message in two]
        for two in (one["raw_prompt"], row["prompt"])
    ]
    assert said[0] == said[1] and said[0][-1][0] == "user" and said[0][0][0] == "system"
    assert (
        one["reward_model"]["ground_truth"]
        == row["reward_model"]["ground_truth"]
        == said[0][0][1]
    )
    assert (
        one["index"] == number
        and one["extra_info"]["persona_id"]
        and one["data_source"] == "simforge"
    )
batch = next(iter(DataLoader(made, batch_size=4, collate_fn=collate_fn)))
assert len(batch["raw_prompt"]) == 4
print(f"verl read {len(made)} rows")
