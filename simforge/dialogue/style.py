"""Fidelity: measures how closely simulated users behave like people, per dialogue and per run.

Style is counted per user message and compared with shares measured on human chats
(`personas/speech/human.yaml`: figures from published data sets, none of their texts). Rates of
guard objections come with 95 % Wilson intervals. These figures are fingerprints: a run that
matches all of them may still be distinguishable from people; a run that does not match is
certainly distinguishable.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from simforge import catalog
from simforge.catalog import documents, records
from simforge.catalog.documents import Strict
from simforge.dialogue.guards import GUARDS, MAX_MESSAGE_WORDS
from simforge.judging.reliability import wilson
from simforge.text.measures import asks, words
from simforge.types import JsonObject

if TYPE_CHECKING:
    import polars as pl


THANKS = re.compile(r"\b(?:thanks?|thank you|thx|cheers|appreciate)\b", re.IGNORECASE)


POLITE = re.compile(
    r"\b(?:please|pls|plz|could you|would you|kindly|if you could|may i)\b",
    re.IGNORECASE,
)


PRAISE = re.compile(
    r"\b(?:great|good|excellent|amazing|awesome|perfect|wonderful|brilliant|fantastic|helpful) "
    r"(?:answer|advice|job|work|idea|tips?|explanation|suggestions?|point|help|information)\b"
    r"|\bvery helpful\b",
    re.IGNORECASE,
)


MARKDOWN = re.compile(
    r"^\s{0,3}#{1,6}\s+\S|\*\*[^*\n]{2,}\*\*|^\s*(?:[-*•]|\d{1,2}[.)])\s+\S|```",
    re.MULTILINE,
)


_STYLE_CHECKS: dict[str, Callable[[str], bool]] = {
    "markdown": lambda text: bool(MARKDOWN.search(text)),
    "thanks": lambda text: bool(THANKS.search(text)),
    "polite": lambda text: bool(POLITE.search(text)),
    "praise": lambda text: bool(PRAISE.search(text)),
    "question": asks,
    "lower_case": lambda text: text[:1].islower(),
    "no_final_punctuation": lambda text: (
        text.rstrip()[-1:] not in (".", "?", "!", "…", "。", "？", "！")
    ),
    "too_long": lambda text: words(text) > MAX_MESSAGE_WORDS,
}


STYLE_FIGURES = ("words", *_STYLE_CHECKS)
"Style figures of a dialogue's user messages: median length in words, and shares of messages."


class HumanFigures(Strict):
    """Figures measured on human chats."""

    source: str
    sets: dict[str, dict[str, float]]
    "By data set: `turns` counted, `words` and `words_p90` of a message, and the shares."


@cache
def human_figures() -> dict[str, dict[str, float]]:
    """Reads the figures shipped with the package, by data set of human chats."""
    entry = catalog.entry("personas", "speech/human")
    return documents.validated(
        documents.read(entry.text, entry.label), HumanFigures
    ).sets


def style_figures(texts: Sequence[str]) -> dict[str, float] | None:
    """Computes the median length and the shares of user messages; `None` if the model wrote
    none."""
    if not texts:
        return None
    lengths = sorted(words(text) for text in texts)
    median = (lengths[(len(lengths) - 1) // 2] + lengths[len(lengths) // 2]) / 2
    return {"words": median} | {
        name: sum(map(holds, texts)) / len(texts)
        for name, holds in _STYLE_CHECKS.items()
    }


def summary(folder: Path) -> JsonObject | None:
    """Summarises a run's simulated users from its tables; `None` if no model played a user.

    A dialogue that branched counts its goals and facts once. Guard objections are counted per
    final message of the model: the messages that were accepted, and those that ended a
    dialogue.
    """
    import polars as pl

    wanted = (
        "id",
        "parent",
        "prompt_id",
        "ending",
        "goals_met",
        "facts",
        "disclosed",
        "rejected_by",
    )
    dialogues = records.scan_table(folder, "dialogues").select(wanted).collect()
    written_by_model = pl.col("prompt_id").is_null() | (pl.col("turn") > 0)
    turns = (
        records.scan_table(folder, "turns")
        .join(
            dialogues.lazy().select("id", "prompt_id"),
            left_on="dialogue_id",
            right_on="id",
            how="left",
        )
        .filter(written_by_model)
        .select("text", "repaired", *GUARDS)
        .collect()
    )
    rejected = dialogues.filter(pl.col("rejected_by").list.len() > 0)["rejected_by"]
    messages = turns.height + len(rejected)
    if not messages:
        return None
    repaired, ended = (
        Counter(name for names in lists for name in names)
        for lists in (turns["repaired"], rejected)
    )
    endings = (
        dialogues["ending"].value_counts().sort("count", "ending", descending=True)
    )
    roots = dialogues.filter(pl.col("parent").is_null())
    goals_met = roots["goals_met"].drop_nulls()
    return {
        "messages": messages,
        "guards": {
            name: {
                "repaired": repaired[name],
                "kept": int(turns[name].sum()),
                "ended": ended[name],
                **_share(int(turns[name].sum()) + ended[name], messages),
            }
            for name in GUARDS
            if turns[name].any() or repaired[name] or ended[name]
        },
        "endings": dict(endings.iter_rows()),
        "goals_met": goals_met.mean() if len(goals_met) else None,
        "disclosure": _disclosure_curve(roots),
        "style": _fingerprint(turns["text"].to_list()),
    }


def _share(count: int, total: int) -> JsonObject:
    """Computes a share with its 95 % Wilson interval."""
    result = wilson(count, total)
    return {"share": result["share"], "interval": result["interval"]}


def _fingerprint(texts: Sequence[str]) -> JsonObject:
    """Sets each figure beside the lowest and the highest value of the human data sets."""
    figures = style_figures(texts)
    if figures is None:
        return {}
    lengths = sorted(map(words, texts))
    figures["words_p90"] = lengths[min(len(lengths) - 1, int(0.9 * len(lengths)))]
    sets = human_figures().values()
    human_values = {
        name: [
            figures_of_set[name] for figures_of_set in sets if name in figures_of_set
        ]
        for name in figures
    }
    return {
        name: {
            "simulated": value,
            "human": [min(human_values[name]), max(human_values[name])],
        }
        for name, value in figures.items()
    }


def _disclosure_curve(dialogues: pl.DataFrame) -> list[float]:
    """Computes the mean share of a person's facts revealed by each turn, over dialogues that
    reached that turn."""
    shares_by_turn: list[list[float]] = []
    for counts, facts in dialogues.select("disclosed", "facts").iter_rows():
        for turn, count in enumerate(counts if facts else []):
            if turn == len(shares_by_turn):
                shares_by_turn.append([])
            shares_by_turn[turn].append(count / facts)
    return [sum(shares) / len(shares) for shares in shares_by_turn]
