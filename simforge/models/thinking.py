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
    ("<analysis>", "</analysis>"),
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


_CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
"Code in Markdown."


_RESPONSE = re.compile(r"\A\s*<\|START_RESPONSE\|>|<\|END_RESPONSE\|>\s*\Z")
"Marks of Command A around the answer."


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
    closing mark, since some chat templates write the opening mark themselves. Marks in code are
    part of the answer: it may be about marks. An opening mark alone counts only at the start."""
    visible, unfinished = _after_harmony(text)
    if not unfinished:
        lowered = text.lower()
        for opening, closing in _MARKS:
            if opening.lower() not in lowered and closing.lower() not in lowered:
                continue
            begins = re.match(rf"\s*{re.escape(opening)}", visible, re.IGNORECASE)
            end = _last_end(_CODE.sub(_blank, visible), closing)
            if end is None and begins:
                # a code block that the thinking began may end in the answer
                end = _last_end(visible, closing)
            if end is not None:
                visible = visible[end:]
                begins = re.match(rf"\s*{re.escape(opening)}", visible, re.IGNORECASE)
            if begins:
                visible, unfinished = "", True
    visible = _RESPONSE.sub("", visible).strip()
    removed = unfinished or visible != text.strip()
    return Thinking(visible, len(text) - len(visible) if removed else 0, unfinished)


def _last_end(text: str, mark: str) -> int | None:
    """Return where the last occurrence of a mark ends, in any case; `None` if there is none."""
    ends = [match.end() for match in re.finditer(re.escape(mark), text, re.IGNORECASE)]
    return ends[-1] if ends else None


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


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
