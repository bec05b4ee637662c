"""SmolLM2-135M-Instruct as transformers has it, from the file that the provider `local` runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from simforge.models import downloads


def smollm(folder: Path) -> tuple[Any, Any]:
    """The model in 32 bits, to be trained, and its tokenizer; both lie in `folder`, for
    trainers that load it again."""
    if not (folder / "config.json").is_file():
        file = downloads.model_path("smollm2-135m")
        where = {
            "pretrained_model_name_or_path": str(file.parent),
            "gguf_file": file.name,
        }
        whole = GgufConfig(dequantize=True)
        model = AutoModelForCausalLM.from_pretrained(
            **where, quantization_config=whole, dtype=torch.float32
        )
        for trace in (
            "quantization_config",
            "is_quantized",
        ):  # else it is saved as a quantised model
            for part in (model, model.config):
                part.__dict__.pop(trace, None)
        tokenizer = AutoTokenizer.from_pretrained(**where)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32
    ), AutoTokenizer.from_pretrained(folder)


def settings(kind: Any, folder: str, steps: int, **more: Any) -> Any:
    """A trainer's settings for a few steps on a CPU, that drop no pair for its length."""
    return kind(
        output_dir=folder, max_steps=steps, per_device_train_batch_size=4, learning_rate=1e-5, max_length=None,
        logging_steps=1, save_strategy="no", report_to="none", use_cpu=True, bf16=False, gradient_checkpointing=False,
        disable_tqdm=True, seed=0, **more,
    )  # fmt: skip
