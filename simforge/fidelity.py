"""Fidelity: how far simulated users behave like people, per dialogue and per run.

Style is counted per user message and held against shares measured on human chats (`personas/speech/human.yaml`: figures
of other people's data, none of their texts). Rates of what the guards found come with 95 % Wilson intervals. These are
fingerprints: a run that matches them all may still be told from people, and one that does not surely is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simforge import catalog, documents
from simforge.documents import Strict
from simforge.guards import GUARDS, LONG
from simforge.measures import words

if TYPE_CHECKING:
    import polars as pl

THANKS = re.compile(r"\b(?:thanks?|thank you|thx|cheers|appreciate)\b", re.IGNORECASE)
POLITE = re.compile(r"\b(?:please|pls|plz|could you|would you|kindly|if you could|may i)\b", re.IGNORECASE)
PRAISE = re.compile(
    r"\b(?:great|good|excellent|amazing|awesome|perfect|wonderful|brilliant|fantastic|helpful) "
    r"(?:answer|advice|job|work|idea|tips?|explanation|suggestions?|point|help|information)\b|\bvery helpful\b",
    re.IGNORECASE,
)
MARKDOWN = re.compile(r"^\s{0,3}#{1,6}\s+\S|\*\*[^*\n]{2,}\*\*|^\s*(?:[-*•]|\d{1,2}[.)])\s+\S|```", re.MULTILINE)

_SHARES: dict[str, Callable[[str], bool]] = {
    "markdown": lambda text: bool(MARKDOWN.search(text)),
    "thanks": lambda text: bool(THANKS.search(text)),
    "polite": lambda text: bool(POLITE.search(text)),
    "praise": lambda text: bool(PRAISE.search(text)),
    "question": lambda text: "?" in text,
    "lower_case": lambda text: text[:1].islower(),
    "no_stop": lambda text: text.rstrip()[-1:] not in (".", "?", "!", "…", "。", "？", "！"),
    "too_long": lambda text: words(text) > LONG,
}
STYLE = ("words", *_SHARES)
"What is told of a dialogue's user messages: their median length in words, and shares of them."


class Human(Strict):
    """Figures of human chats."""

    source: str
    sets: dict[str, dict[str, float]]
    "By set: `turns` counted, `words` and `words_p90` of a message, and the shares."


@cache
def human() -> dict[str, dict[str, float]]:
    """The shipped figures, by set of human chats."""
    found = catalog.entry("personas", "speech/human")
    return documents.validated(documents.read(found.text, found.label), Human).sets


def style(texts: Sequence[str]) -> dict[str, float] | None:
    """Median length and shares of user messages; `None` where the model wrote none."""
    if not texts:
        return None
    lengths = sorted(words(text) for text in texts)
    middle = (lengths[(len(lengths) - 1) // 2] + lengths[len(lengths) // 2]) / 2
    return {"words": middle} | {name: sum(map(holds, texts)) / len(texts) for name, holds in _SHARES.items()}


def summary(data: Path) -> dict[str, Any] | None:
    """What a run's users were like, from its tables; `None` where no model played a user.

    A dialogue that branched counts its goals and facts once. Guards are counted per message that the model gave in the
    end: those let in, and those before which a dialogue was ended.
    """
    import polars as pl

    wanted = ("id", "parent", "prompt_id", "ending", "goals_met", "facts", "disclosed", "rejected")
    dialogues = pl.scan_parquet(data / "dialogues" / "*.parquet").select(wanted).collect()
    own = pl.col("prompt_id").is_null() | (pl.col("turn") > 0)
    turns = (
        pl.scan_parquet(data / "turns" / "*.parquet")
        .join(dialogues.lazy().select("id", "prompt_id"), left_on="dialogue_id", right_on="id", how="left")
        .filter(own)
        .select("text", "mended", *GUARDS)
        .collect()
    )
    rejected = dialogues.filter(pl.col("rejected").list.len() > 0)["rejected"]
    messages = turns.height + len(rejected)
    if not messages:
        return None
    mended, ended = (Counter(name for names in lists for name in names) for lists in (turns["mended"], rejected))
    endings = dialogues["ending"].value_counts().sort("count", "ending", descending=True)
    roots = dialogues.filter(pl.col("parent").is_null())
    met = roots["goals_met"].drop_nulls()
    return {
        "messages": messages,
        "guards": {
            name: {
                "mended": mended[name],
                "left": int(turns[name].sum()),
                "ended": ended[name],
                **_share(int(turns[name].sum()) + ended[name], messages),
            }
            for name in GUARDS
            if turns[name].any() or mended[name] or ended[name]
        },
        "endings": dict(endings.iter_rows()),
        "goals_met": met.mean() if len(met) else None,
        "disclosure": _curve(roots),
        "style": _fingerprint(turns["text"].to_list()),
    }


def _share(times: int, of: int) -> dict[str, Any]:
    """A share with its 95 % Wilson interval."""
    from scipy.stats import binomtest

    interval = binomtest(times, of).proportion_ci(method="wilson")
    return {"share": times / of, "interval": [interval.low, interval.high]}


def _fingerprint(texts: Sequence[str]) -> dict[str, Any]:
    """Each figure beside the lowest and the highest of the human sets."""
    own = style(texts)
    if own is None:
        return {}
    lengths = sorted(map(words, texts))
    own["words_p90"] = lengths[min(len(lengths) - 1, int(0.9 * len(lengths)))]
    sets = human().values()
    known = {name: [one[name] for one in sets if name in one] for name in own}
    return {name: {"here": value, "human": [min(known[name]), max(known[name])]} for name, value in own.items()}


def _curve(dialogues: pl.DataFrame) -> list[float]:
    """Mean share of a person's facts that they had told by each turn, over dialogues that got so far."""
    told: list[list[float]] = []
    for counts, facts in dialogues.select("disclosed", "facts").iter_rows():
        for turn, count in enumerate(counts if facts else []):
            if turn == len(told):
                told.append([])
            told[turn].append(count / facts)
    return [sum(shares) / len(shares) for shares in told]
