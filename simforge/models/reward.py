"""The `reward` provider: a reward model of the transformers library, in this process.

`reward:NAME_OR_FOLDER` is a sequence classifier with one output, as most published reward models are; it needs the
extra `train`. Its reply to a chat is the number that it gives the last message. Behind a server it is `score:NAME@URL`,
which is faster for more than a trial.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from typing import Any

from simforge.errors import ModelError, UsageError
from simforge.models import ModelSpec
from simforge.types import ChatReply, ChatRequest, Finish

LONGEST = 4_096
"Tokens of a chat that are read; of a longer one, the last."
_opened: dict[str, RewardModel] = {}


def resolve(name: str) -> ModelSpec:
    """The spec of a reward model. Raises `UsageError` without a name."""
    if not name:
        raise UsageError("reward: needs a model: reward:NAME of the Hub, or a folder.")
    return ModelSpec(f"reward:{name}", f"reward:{name}", "unknown", f"{name}, a reward model in this process")


def check(name: str) -> None:
    """Raise `ModelError` where the library is missing or the model is none that scores."""
    for library in ("torch", "transformers"):
        if importlib.util.find_spec(library) is None:
            raise ModelError(
                f"reward:{name} needs {library}: install simforge[train], or serve it and use score:NAME@URL."
            )
    if name not in _opened:
        _opened[name] = RewardModel(name)


class RewardModel:
    """A sequence classifier with one output."""

    def __init__(self, name: str) -> None:
        import torch
        import transformers

        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(name, truncation_side="left")
            self._model: Any = transformers.AutoModelForSequenceClassification.from_pretrained(name)
        except (OSError, ValueError) as problem:
            raise ModelError(f"reward:{name} cannot be loaded: {str(problem).splitlines()[0]}") from None
        outputs = self._model.config.num_labels
        if outputs != 1:
            raise ModelError(f"reward:{name} gives {outputs} numbers, and a reward model gives one.")
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model.eval().to(self._device)
        self._turn = threading.Lock()

    @classmethod
    async def open(cls, name: str) -> RewardModel:
        """The model, loaded once per process."""
        if name not in _opened:
            _opened[name] = await asyncio.to_thread(cls, name)
        return _opened[name]

    async def chat(self, request: ChatRequest, dialogue: str = "") -> ChatReply:
        score, tokens = await asyncio.to_thread(self._score, [message.as_dict() for message in request.messages])
        return ChatReply(repr(score), Finish.stop, tokens, 0, 0)

    def _score(self, messages: list[dict[str, str]]) -> tuple[float, int]:
        import torch

        if self._tokenizer.chat_template:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False)
            read = self._tokenizer(
                text, add_special_tokens=False, truncation=True, max_length=LONGEST, return_tensors="pt"
            )
        else:
            said = "\n\n".join(message["content"] for message in messages)
            read = self._tokenizer(said, truncation=True, max_length=LONGEST, return_tensors="pt")
        with self._turn, torch.no_grad():
            logits = self._model(**read.to(self._device)).logits
        return float(logits[0, 0]), int(read["input_ids"].shape[1])

    async def close(self) -> None:
        """Nothing to let go of: the model is shared in the process."""
