"""Shapes of preference data: where the prompt and the two answers of a row are.

Datasets write a pair in many ways: as texts, as lists of messages (also as JSON in text), as two
whole transcripts that share their beginning (HH-RLHF), or as two answers and a label. This module
turns them into a prompt, a chosen and a rejected text, or says why a row is no pair. Nothing is
guessed: an unknown label is left out, and counted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from simforge.catalog import records
from simforge.errors import SourceError

if TYPE_CHECKING:
    import polars as pl


FIRST_LABELS = frozenset("a 1 model_a response_a answer_a first left chosen_a".split())


SECOND_LABELS = frozenset(
    "b 2 model_b response_b answer_b second right chosen_b".split()
)


TIE_LABELS = frozenset(
    ["tie", "tie (bothbad)", "both", "bothbad", "equal", "draw", "same"]
)


AMBIGUOUS_LABELS = frozenset(["0", "-1", "true", "false", "yes", "no"])
"Labels that name the first answer in some datasets, and the second in others."


MAX_UNKNOWN_LABELS = 0.2
"Share of unknown labels above which a column is refused."


TRANSCRIPT = re.compile(r"(?:^|\n\n)(Human|Assistant):[ ]?")
"Start of a turn in a transcript of HH-RLHF."


MIN_TRANSCRIPTS = 0.95
"Share of the rows that must be transcripts for a file to be read as such."


Message = tuple[str, str]
"Role and text."


@dataclass(slots=True)
class PairTexts:
    """The texts of all rows, before rows that are no pairs are left out."""

    prompt: list[str]
    chosen: list[str | None]
    rejected: list[str | None]
    swapped: list[bool]
    "True where the second of two labelled answers is the chosen one."
    decided: list[bool]
    "False where the label names neither answer."
    left_out: Counter[str] = field(default_factory=Counter)
    "Rows that are no pairs, by reason."
    note: str = ""
    "How the file was read, if that is not plain."


def read_texts(table: pl.DataFrame, columns: Mapping[str, str], path: str) -> PairTexts:
    """Read the texts of a table. `columns` names its columns by role: `chosen` and `rejected`, or
    `a`, `b` and `label`; and `prompt`, if known. Raises `SourceError`."""
    has_labels = {"a", "b", "label"} <= {*columns}
    first, second = ("a", "b") if has_labels else ("chosen", "rejected")
    cells = [_cells(table, columns[role], path) for role in (first, second)]
    dialogues = [[messages_of(cell) for cell in side] for side in cells]
    known_prompt = "prompt" in columns and records.has_column(table, columns["prompt"])
    prompts = (
        [_last_text(cell) for cell in _cells(table, columns["prompt"], path)]
        if known_prompt
        else None
    )
    note = ""
    if prompts is None and not any(map(_holds_dialogues, dialogues)):
        transcripts = [[_transcript(cell) for cell in side] for side in cells]
        whole = sum(bool(a and b) for a, b in zip(*transcripts, strict=True))
        if whole and whole >= MIN_TRANSCRIPTS * table.height:
            dialogues = transcripts
            note = "each side is a whole transcript: the turns that both share are the prompt"
    texts = PairTexts(
        [], [], [], [False] * table.height, [True] * table.height, note=note
    )
    for number, (a, b) in enumerate(zip(*dialogues, strict=True)):
        cell_texts = [_plain_text(cells[side][number]) for side in (0, 1)]
        if a and b and prompts is None:
            prompt, first_text, second_text = _split_dialogues(a, b)
        else:
            prompt = "" if prompts is None else prompts[number] or ""
            first_text = a[-1][1] if a else cell_texts[0]
            second_text = b[-1][1] if b else cell_texts[1]
        texts.prompt.append(prompt)
        texts.chosen.append(first_text)
        texts.rejected.append(second_text)
    if has_labels:
        words, first_word = _read_labels(table, columns["label"], path)
        _apply_labels(texts, words, _places(words, first_word, columns, path))
    _count_unusable(texts)
    return texts


def _cells(table: pl.DataFrame, name: str, path: str) -> list[Any]:
    """Return the values of a column of texts or of messages. Raises `SourceError` for a column
    of anything else."""
    import polars as pl

    series = records.column(table, name, path)
    if not isinstance(series.dtype, pl.String | pl.List | pl.Struct | pl.Null):
        raise SourceError(
            f"{path}: the column {name!r} holds {series.dtype}, not texts or lists of messages."
        )
    return series.to_list()


def messages_of(cell: Any) -> list[Message] | None:
    """Return a dialogue's messages: a list of objects with role and content, one such object, or
    either as JSON in text; `None` for anything else."""
    if isinstance(cell, str):
        text = cell.strip()
        if not text.startswith(("[{", "[ {", '{"', "[\n")):
            return None
        try:
            cell = json.loads(text)
        except (ValueError, RecursionError):
            return None
    if isinstance(cell, dict):
        cell = [cell]
    if not isinstance(cell, list) or not cell:
        return None
    messages = []
    for message in cell:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            return None
        messages.append((str(message.get("role") or ""), message["content"]))
    return messages


def _holds_dialogues(side: list[list[Message] | None]) -> bool:
    return any(messages is not None for messages in side)


def _last_text(cell: Any) -> str | None:
    """Return the last message of a dialogue, or a text as it is."""
    messages = messages_of(cell)
    return messages[-1][1] if messages else _plain_text(cell)


def _plain_text(cell: Any) -> str | None:
    if cell is None or isinstance(cell, str):
        return cell
    last = cell[-1] if isinstance(cell, list) and cell else None
    return last if isinstance(last, str) else None


def _transcript(cell: Any) -> list[Message] | None:
    """Return the turns of a transcript that ends with the assistant; `None` if it is none."""
    if not isinstance(cell, str):
        return None
    parts = TRANSCRIPT.split(cell)
    if len(parts) < 5 or parts[0].strip():
        return None
    roles, texts = parts[1::2], parts[2::2]
    if "Human" not in roles or roles[-1] != "Assistant":
        return None
    names = {"Human": "user", "Assistant": "assistant"}
    return [
        (names[role], text.strip()) for role, text in zip(roles, texts, strict=True)
    ]


def _split_dialogues(
    first: list[Message], second: list[Message]
) -> tuple[str, str | None, str | None]:
    """Split two dialogues into the last message that they share, and what follows. Dialogues
    that part before the last answer give no pair."""
    shared = 0
    while shared < min(len(first), len(second)) - 1 and first[shared] == second[shared]:
        shared += 1
    prompt = next(
        (text for role, text in reversed(first[:shared]) if role == "user"), ""
    )
    if shared < len(first) - 1 or shared < len(second) - 1:
        return prompt, None, None
    return prompt, first[-1][1], second[-1][1]


def _read_labels(
    table: pl.DataFrame, role: str, path: str
) -> tuple[list[str], str | None]:
    """Return the labels as words, and the word that names the first answer if the role says it
    (`COLUMN:VALUE`)."""
    column, named, first = role, "", ""
    if not records.has_column(table, role):
        column, named, first = role.rpartition(":")
    if not named:
        column = role
    words = [
        "" if label is None else re.sub(r"\.0$", "", str(label).strip().lower())
        for label in records.column(table, column, path).to_list()
    ]
    if named and first.lower() not in words:
        raise SourceError(
            f"{path}: no value of {column!r} is {first!r}; there are: {_some(words)}."
        )
    return words, first.lower() if named else None


def _some(words: list[str]) -> str:
    return ", ".join(repr(word) for word in list(dict.fromkeys(words))[:6])


def _places(
    words: list[str], first: str | None, columns: Mapping[str, str], path: str
) -> dict[str, int]:
    """Return the place of the answer that each label names. Raises `SourceError` if the labels
    could mean either."""
    labels = {word for word in words if word}
    if first is not None:
        others = labels - TIE_LABELS - {first}
        return {first: 0, **({others.pop(): 1} if len(others) == 1 else {})}
    column = columns["label"]
    if labels & AMBIGUOUS_LABELS:
        raise SourceError(
            f"{path}: the values of {column!r} can mean either answer: {_some(words)}. Name the "
            f"value that means the first answer (a): label={column}:VALUE."
        )
    places = {
        **dict.fromkeys(FIRST_LABELS, 0),
        **dict.fromkeys(SECOND_LABELS, 1),
        columns["a"].lower(): 0,
        columns["b"].lower(): 1,
    }
    unknown = [word for word in words if word and word not in {*places, *TIE_LABELS}]
    if len(unknown) > MAX_UNKNOWN_LABELS * sum(map(bool, words)):
        raise SourceError(
            f"{path}: the values of {column!r} do not say which answer is better: "
            f"{_some(unknown)}. They must name the first "
            "answer (a, 1, first, model_a, or its column) or the second (b, 2, second, model_b); "
            f"or name the value that means the first answer: label={column}:VALUE."
        )
    return places


def _apply_labels(
    texts: PairTexts, words: list[str], places: Mapping[str, int]
) -> None:
    """Swap the texts of rows whose label names the second answer. Rows without a decision are
    left out."""
    for number, word in enumerate(words):
        place = places.get(word)
        if place is None:
            reason = "a tie" if word in TIE_LABELS else "an unknown label"
            texts.left_out[reason] += 1
            texts.decided[number] = False
        elif place == 1:
            texts.swapped[number] = True
            texts.chosen[number], texts.rejected[number] = (
                texts.rejected[number],
                texts.chosen[number],
            )


def _count_unusable(texts: PairTexts) -> None:
    """Mark rows that are no pairs by a missing text, and count the reasons."""
    for number, (chosen, rejected) in enumerate(
        zip(texts.chosen, texts.rejected, strict=True)
    ):
        if not texts.decided[number]:
            texts.chosen[number] = None  # counted by its label
        elif chosen is None or rejected is None:
            texts.left_out[
                "a text is missing, or the dialogues part before the end"
            ] += 1
        elif chosen == rejected:
            texts.left_out["the same text on both sides"] += 1
            texts.chosen[number] = None
