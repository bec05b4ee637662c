"""Thinking: what a reasoning model writes before its answer, in whatever notation, is removed.

Servers that know a model's notation return its thinking in a field of its own. Others leave it in
the text, between the marks of the model's chat template. It must never become an answer, a user
message or a verdict.

    split_thinking("<think>They want it short.</think>Hi")   -> Thinking(visible="Hi", ...)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<reflection>", "</reflection>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("◁think▷", "◁/think▷"),
    ("<unused94>", "<unused95>"),
)
"""Marks around thinking: DeepSeek and Qwen, Claude-style prompts, fine-tuned open models, Seed,
Magistral, Command A, Sky-T1, Kimi, MedGemma."""


_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*<\|message\|>")
"Start of a message in OpenAI's harmony format, with its channel."


_END_OF_MESSAGE = re.compile(r"<\|(?:end|return|call|start)\|>")


_BARE_CHANNELS = re.compile(
    r"\A(?:assistant)?analysis(?=[A-Z\s\"']).*?assistantfinal", re.DOTALL
)
"Harmony format whose special tokens the server has removed."


@dataclass(frozen=True, slots=True)
class Thinking:
    """A text, divided into thinking and answer."""

    visible: str
    "The answer, without surrounding white space."
    characters: int
    "Length of the thinking and its marks; 0 if there is none."
    is_unfinished: bool
    "True if the thinking never ended, so that there is no answer."


def split_thinking(text: str) -> Thinking:
    """Separate the answer from the thinking before it. The answer is the text after the last
    closing mark, since some chat templates write the opening mark themselves. An opening mark
    counts only at the start: an answer may be about marks."""
    visible, unfinished = _after_harmony(text)
    if not unfinished:
        for opening, closing in _MARKS:
            if closing in visible:
                visible = visible.rpartition(closing)[2]
            if visible.lstrip().startswith(opening):
                visible, unfinished = "", True
    visible = visible.strip()
    removed = unfinished or visible != text.strip()
    return Thinking(visible, len(text) - len(visible) if removed else 0, unfinished)


def _after_harmony(text: str) -> tuple[str, bool]:
    """Return the message of the channel `final`, and whether there is none although there are
    other channels."""
    channels = list(_CHANNEL.finditer(text))
    if channels:
        last = channels[-1]
        if last[1] != "final":
            return "", True
        return _END_OF_MESSAGE.split(text[last.end() :], maxsplit=1)[0], False
    bare = _BARE_CHANNELS.match(text)
    return (text[bare.end() :] if bare else text), False
