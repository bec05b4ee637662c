"""The small test model as a Hugging Face folder, which vLLM loads: its GGUF's weights as bfloat16.

python tests/served/model.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from simforge.models import downloads


def main(folder: str) -> None:
    file = downloads.model_path("smollm2-135m")
    where = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    whole = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        **where, quantization_config=whole, dtype=torch.bfloat16
    )
    for trace in (
        "quantization_config",
        "is_quantized",
    ):  # else it is saved as a quantised model
        for part in (model, model.config):
            part.__dict__.pop(trace, None)
    AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
    model.save_pretrained(Path(folder))


if __name__ == "__main__":
    main(sys.argv[1])
