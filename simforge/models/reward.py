"""The `reward` provider: a reward model of the transformers library, in this process.

`reward:NAME_OR_FOLDER` is a sequence classifier with one output, as most published reward
models are; it needs the extra `train`. Its reply to a chat is the score of the last message.
For more than a trial, run the model on a server and use `score:NAME@URL`, which is faster. A
model from the Hub is loaded at its newest revision.
"""

from __future__ import annotations

import asyncio
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from simforge.errors import ModelError, UsageError
from simforge.identity import digest, file_sha256
from simforge.install import how_to_install
from simforge.models.contract import ModelSpec
from simforge.types import ChatReply, ChatRequest, Finish, JsonObject, Message

MAX_TOKENS = 4_096
"Maximum number of tokens read from a chat; of a longer chat, the last ones."


_thread = ThreadPoolExecutor(1, "simforge-reward")
"Loads and scores one text at a time: tokenizers are not safe to use from several threads."


_opened: dict[str, RewardModel] = {}


def resolve(name: str) -> ModelSpec:
    """Return the spec of a reward model. A folder is identified by the sizes of its files and
    its configuration. Raises `UsageError`."""
    if not name:
        raise UsageError("reward: needs a model: reward:NAME of the Hub, or a folder.")
    folder = Path(name)
    content = ""
    if (folder / "config.json").is_file():
        sizes = sorted(
            (path.name, path.stat().st_size)
            for path in folder.iterdir()
            if path.is_file()
        )
        content = f"#{digest([sizes, file_sha256(folder / 'config.json')])}"
    return ModelSpec(
        f"reward:{name}",
        f"reward:{name}{content}",
        "unknown",
        f"{name}, a reward model in this process",
    )


def check(name: str) -> None:
    """Raise `ModelError` if a library is missing or the model does not return one score. Its
    weights are not loaded."""
    for library in ("torch", "transformers"):
        if importlib.util.find_spec(library) is None:
            message = (
                f"reward:{name} needs {library}: {how_to_install('train')}; or serve it "
                "and use score:NAME@URL."
            )
            raise ModelError(message)
    import transformers

    try:
        outputs = transformers.AutoConfig.from_pretrained(name).num_labels
    except (OSError, ValueError) as problem:
        raise ModelError(
            f"reward:{name} cannot be loaded: {str(problem).splitlines()[0]}"
        ) from None
    if outputs != 1:
        raise ModelError(
            f"reward:{name} gives {outputs} numbers, and a reward model gives one."
        )


class RewardModel:
    """A sequence classifier with one output."""

    def __init__(self, name: str) -> None:
        import torch
        import transformers

        self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
            name, truncation_side="left"
        )
        self._model: Any = (
            transformers.AutoModelForSequenceClassification.from_pretrained(name)
        )
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model.eval().to(self._device)
        positions = (
            getattr(self._model.config, "max_position_embeddings", None) or MAX_TOKENS
        )
        self._max_tokens = min(MAX_TOKENS, positions, self._tokenizer.model_max_length)

    @classmethod
    async def open(cls, name: str) -> RewardModel:
        """Return the model, loaded once per process."""

        def load() -> RewardModel:
            if name not in _opened:
                _opened[name] = cls(name)
            return _opened[name]

        return await asyncio.get_running_loop().run_in_executor(_thread, load)

    async def chat(self, request: ChatRequest, dialogue: str = "") -> ChatReply:
        loop = asyncio.get_running_loop()
        score, tokens = await loop.run_in_executor(
            _thread, self._score, request.messages
        )
        return ChatReply(repr(score), Finish.stop, tokens, 0, 0)

    def _score(self, messages: tuple[Message, ...]) -> tuple[float, int]:
        import torch

        options: JsonObject = {
            "truncation": True,
            "max_length": self._max_tokens,
            "return_tensors": "pt",
        }
        if self._tokenizer.chat_template:
            chat = [message.as_dict() for message in messages]
            text = self._tokenizer.apply_chat_template(chat, tokenize=False)
            inputs = self._tokenizer(text, add_special_tokens=False, **options)
        else:
            inputs = self._tokenizer(
                "\n\n".join(message.content for message in messages), **options
            )
        with torch.no_grad():
            logits = self._model(**inputs.to(self._device)).logits
        return float(logits[0, 0]), int(inputs["input_ids"].shape[1])

    async def close(self) -> None:
        """Do nothing: the model is shared within the process."""
