"""OpenRLHF's RewardDataset, for reward models and for DPO, reads the views `openrlhf` and
`trl_reward`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from openrlhf.datasets import RewardDataset
from openrlhf.datasets.utils import blending_datasets
from tiny import END, START, tiny

folder = Path(sys.argv[1])
tokenizer = tiny(folder / "tiny")


def read(view: str, dpo: bool) -> None:
    keys = {
        "prompt_key": "prompt",
        "chosen_key": "chosen",
        "rejected_key": "rejected",
        "apply_chat_template": True,
    }
    args = SimpleNamespace(data=SimpleNamespace(**keys), use_ms=False)
    strategy: Any = SimpleNamespace(
        args=args, print=lambda *_: None, is_rank_0=lambda: True
    )
    path = folder / f"{view}.jsonl"
    rows = [json.loads(line) for line in path.open()]
    made = RewardDataset(
        blending_datasets(str(path), None, strategy, 42),
        tokenizer,
        16_384,
        strategy,
        is_dpo=dpo,
        num_processors=1,
    )
    assert len(made) == len(rows) > 0
    for row, (good, _, bad, _, extra) in zip(rows, made, strict=True):
        texts = {
            "chosen": tokenizer.decode(good[0]),
            "rejected": tokenizer.decode(bad[0]),
        }
        for side, text in texts.items():
            assert text.endswith(f"{START}assistant\n{row[side][0]['content']}{END}"), (
                text
            )
            assert (
                text.count(START) == len(row["prompt"]) + 1
                and text.count(row["prompt"][-1]["content"]) == 1
            )
        assert texts["chosen"] != texts["rejected"]
        assert dpo or extra == row.get("margin", 0)
    made.collate_fn([made[0], made[1]])
    print(
        f"openrlhf read {len(made)} rows of {view} for {'DPO' if dpo else 'a reward model'}"
    )


for view, dpo in (("openrlhf", True), ("openrlhf", False), ("trl_reward", False)):
    read(view, dpo)
