"""Axolotl's loader of preference data reads the view `axolotl` as the type `chat_template.default`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    from axolotl.utils.data.rl import prepare_preference_datasets
from axolotl.utils.dict import DictDefault


def main(folder: Path) -> None:
    from tiny import END, START, tiny

    path, model = folder / "axolotl.jsonl", str(folder / "tiny")
    tokenizer = tiny(folder / "tiny")
    rows = [json.loads(line) for line in path.open()]
    settings = DictDefault(
        {
            "chat_template": "tokenizer_default", "rl": "dpo", "sequence_len": 16_384, "seed": 0,
            "dataset_num_proc": 1, "base_model": model, "base_model_config": model, "tokenizer_config": model,
            "dataset_prepared_path": str(folder / "prepared"), "val_set_size": 0, "excess_length_strategy": "drop",
            "is_preprocess": True, "shuffle_merged_datasets": False,
            "datasets": [
                {"path": str(path), "ds_type": "json", "split": "train", "type": "chat_template.default"}
            ],
        }
    )  # fmt: skip
    made, _ = prepare_preference_datasets(settings, tokenizer)
    assert len(made) == len(rows) > 0
    for row, one in zip(rows, made, strict=True):
        assert (
            one["prompt"].endswith(f"{START}assistant\n")
            and one["prompt"].count(START) == len(row["messages"]) + 1
        )
        assert (one["prompt"] + one["chosen"]).count(
            row["messages"][-1]["content"]
        ) == 1
        assert (
            one["chosen"]
            == row["chosen"]["content"] + END
            != one["rejected"]
            == row["rejected"]["content"] + END
        )
    print(f"axolotl read {len(made)} rows")


if __name__ == "__main__":  # the loader starts processes
    main(Path(sys.argv[1]))
