"""LLaMA-Factory's get_dataset reads the view `llamafactory`, by the `dataset_info.json` of the
view's docstring."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer
from tiny import START, tiny

folder = Path(sys.argv[1])
tiny(folder / "tiny")
source = Path(__file__).parents[2] / "simforge" / "views" / "llamafactory.py"
about = re.search(
    r"\{.*\}\}", ast.get_docstring(ast.parse(source.read_text())) or "", re.DOTALL
)
assert about is not None
info = json.loads(about.group(0))
info["soup"]["file_name"] = "llamafactory.json"
(folder / "dataset_info.json").write_text(json.dumps(info))
rows = json.loads((folder / "llamafactory.json").read_text())
settings = {
    "stage": "dpo", "do_train": True, "model_name_or_path": str(folder / "tiny"), "dataset": "soup",
    "dataset_dir": str(folder), "template": "qwen", "cutoff_len": 16_384, "output_dir": str(folder / "out"),
    "finetuning_type": "full", "report_to": "none", "use_cpu": True, "overwrite_cache": True,
    "preprocessing_num_workers": 1,
}  # fmt: skip
model_args, data_args, training_args, *_ = get_train_args(settings)
loaded = load_tokenizer(model_args)
tokenizer, template = (
    loaded["tokenizer"],
    get_template_and_fix_tokenizer(loaded["tokenizer"], data_args),
)
made = get_dataset(
    template, model_args, data_args, training_args, stage="rm", **loaded
)["train_dataset"]
assert len(made) == len(rows) > 0
for row, one in zip(rows, made, strict=True):
    texts = {}
    for side in ("chosen", "rejected"):
        learnt = tokenizer.decode(
            [number for number in one[f"{side}_labels"] if number != -100]
        )
        texts[side] = tokenizer.decode(one[f"{side}_input_ids"])
        assert (
            learnt.startswith(row[side]["value"])
            and texts[side].count(START) == len(row["conversations"]) + 2
        )
        assert (
            texts[side].count(row["conversations"][-1]["value"]) == 1
            and row["system"] in texts[side]
        )
    assert texts["chosen"] != texts["rejected"]
print(f"llamafactory read {len(made)} rows")
