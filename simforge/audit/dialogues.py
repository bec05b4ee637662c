"""Dialogues: whether simulated users behave like people, in figures with intervals.

The hardest question is realism: a classifier learns to tell the user messages from those of people (a two-sample test,
Lopez-Paz and Oquab 2017, arXiv 1610.06545). 0.5 is somebody whom nothing tells apart, and human messages held against
other human messages come out there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from simforge import fidelity, loading
from simforge.audit import features, figures
from simforge.audit.figures import Array, Figure, not_measured
from simforge.errors import SourceError

MOST = 2_000
"Messages of each side that are learnt from."
FOLDS = 5
LEAST = 50
"Conversations of each side from which a classifier is learnt."
Said = list[tuple[str, str]]
"Conversation and message."


def measure(source: str, manifest: dict[str, Any], human: Path | None) -> dict[str, Any]:
    """`endings`, `guards`, `goals`, `disclosure`, `style` and `realism`. Raises what `loading.scan` raises, and
    `SourceError` where the human messages cannot be read."""
    counted = manifest.get("fidelity")
    if counted is None:
        reason = not_measured("no model played the people: they asked prompts of a list")
        return dict.fromkeys(("endings", "guards", "goals", "disclosure", "style", "realism"), reason)
    wanted = ("id", "persona_id", "parent", "goals_met", "disclosed", "facts", "style")
    table = loading.scan(source, "dialogues").select(wanted).collect()
    met = table["goals_met"].drop_nulls().to_numpy()
    total = sum(counted["endings"].values())
    return {
        "messages": counted["messages"],
        "endings": {name: figures.share(times, total) for name, times in counted["endings"].items()},
        "guards": {
            name: {"value": one["share"], "n": counted["messages"], "interval": one["interval"]}
            for name, one in counted["guards"].items()
        },
        "goals": figures.mean(met) if len(met) else not_measured("nobody had goals beyond their need"),
        "disclosure": _disclosure(table.filter(pl.col("parent").is_null())),
        "style": _style_of(table, counted["style"]),
        "realism": _realism(source, human),
    }


def _style_of(dialogues: pl.DataFrame, counted: dict[str, Any]) -> dict[str, Any]:
    """Style over dialogues, each beside the lowest and the highest of the human sets."""
    found = {}
    for name in fidelity.STYLE if counted else ():
        own = dialogues.select("persona_id", value=pl.col("style").struct.field(name)).drop_nulls()
        found[name] = {
            **figures.mean(own["value"].to_numpy(), own["persona_id"].to_list()),
            "human": counted[name]["human"],
        }
    return found


def _disclosure(dialogues: pl.DataFrame) -> dict[str, Any]:
    """The share of what there is to tell that people have told by each turn, and how much of what they tell at all is
    told at once (`at_once`): 1 is everything in the first message."""
    rows = [(told, facts) for told, facts in dialogues.select("disclosed", "facts").iter_rows() if told and facts]
    if not rows:
        return {
            "by_turn": not_measured("there is nothing to tell"),
            "at_once": not_measured("there is nothing to tell"),
        }
    turns = max(len(told) for told, _ in rows)
    by_turn = [np.array([told[turn] / facts for told, facts in rows if turn < len(told)]) for turn in range(turns)]
    first = np.array([told[0] / told[-1] for told, _ in rows if len(told) > 1 and told[-1]])
    reason = not_measured("nobody told anything over two turns")
    return {
        "by_turn": [figures.mean(one) for one in by_turn],
        "at_once": figures.mean(first) if len(first) else reason,
    }


def _realism(source: str, human: Path | None) -> dict[str, Any]:
    """How well a classifier tells the user messages from people's, by two families of features."""
    if human is None:
        reason = "no human dialogues were given (--human FILE); `style` is held against the shipped figures of some"
        return {"characters": not_measured(reason), "style": not_measured(reason)}
    own = (
        loading.scan(source, "turns")
        .join(
            loading.scan(source, "dialogues").select("id", "prompt_id"),
            left_on="dialogue_id",
            right_on="id",
            how="left",
        )
        .filter(pl.col("prompt_id").is_null() | (pl.col("turn") > 0))  # not the prompts that people were given
        .select("dialogue_id", "text", "turn")
        .collect()
    )
    said = conversations(human)
    if own.height and not (own["turn"] == 0).any():  # else openings would be told from what comes after
        said = [one for before, one in pairwise(said) if before[0] == one[0]]
    return two_sample(_part([(str(one), text) for one, text, _ in own.iter_rows()]), _part(said))


def conversations(path: Path) -> Said:
    """The user messages of a file of human dialogues (.jsonl or .parquet), a row a dialogue: `messages` as lists of
    role and content. Raises `SourceError`."""
    try:
        table = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_ndjson(path, infer_schema_length=None)
        found = [
            (str(number), one["content"])
            for number, messages in enumerate(table["messages"])
            for one in messages
            if one["role"] == "user" and one["content"]
        ]
    except (OSError, pl.exceptions.PolarsError, KeyError, TypeError):
        raise SourceError(
            f"--human {path} cannot be read; it is .jsonl or .parquet with a row for each dialogue and a column "
            "`messages` of lists of role and content."
        ) from None
    if not found:
        raise SourceError(f"--human {path} has no message of the role user.")
    return found


def _part(said: Said) -> Said:
    """Whole conversations, drawn at random, with at most `MOST` messages."""
    names = list(dict.fromkeys(name for name, _ in said))
    order = np.random.default_rng(0).permutation(len(names))
    count: dict[str, int] = {}
    for name, _ in said:
        count[name] = count.get(name, 0) + 1
    kept, left = set(), MOST
    for place in order:
        if count[names[place]] <= left:
            kept.add(names[place])
            left -= count[names[place]]
    return [one for one in said if one[0] in kept]


def two_sample(own: Said, human: Said) -> dict[str, Any]:
    """Area under the curve of classifiers that tell messages of `own` from `human` ones, held out by conversation, by
    runs of characters and by style; and of two halves of the human ones as a control."""
    counts = [len({name for name, _ in said}) for said in (own, human)]
    if min(counts) < LEAST:
        which = "the dataset has" if counts[0] < LEAST else "the human file has"
        reason = not_measured(f"{which} {min(counts)} dialogues with user messages; it takes {LEAST}")
        return {"characters": reason, "style": reason}
    names = list(dict.fromkeys(name for name, _ in human))
    half = set(names[::2])
    control = [one for one in human if one[0] in half], [one for one in human if one[0] not in half]
    return {
        "characters": _told_apart(own, human, _characters),
        "style": _told_apart(own, human, _style),
        "control": _told_apart(*control, _characters) if counts[1] >= 2 * LEAST else not_measured("too few human ones"),
    }


def _characters(train: list[str], test: list[str]) -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    seen = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=3, max_features=50_000, sublinear_tf=True)
    return seen.fit_transform(train), seen.transform(test)


def _style(train: list[str], test: list[str]) -> tuple[Any, Any]:
    from sklearn.preprocessing import StandardScaler

    def seen(texts: list[str]) -> Array:
        shares = [fidelity.style([text]) or {} for text in texts]
        return np.array([[*features.style(text), *one.values()] for text, one in zip(texts, shares, strict=True)])

    scale = StandardScaler().fit(seen(train))
    return scale.transform(seen(train)), scale.transform(seen(test))


def _told_apart(one: Said, other: Said, features_of: Any) -> Figure:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold

    texts = [text for _, text in (*one, *other)]
    owners = np.array([f"a{name}" for name, _ in one] + [f"b{name}" for name, _ in other])
    side = np.array([1] * len(one) + [0] * len(other))
    score, fold = np.zeros(len(texts)), np.zeros(len(texts), dtype=int)
    parts = GroupKFold(FOLDS, shuffle=True, random_state=0).split(texts, side, owners)
    for number, (train, test) in enumerate(parts):
        seen, new = features_of([texts[row] for row in train], [texts[row] for row in test])
        model = LogisticRegression(max_iter=1_000, class_weight="balanced").fit(seen, side[train])
        score[test], fold[test] = model.decision_function(new), number

    def area(rows: Array) -> float:
        """The mean over folds, since scores of two classifiers are not on one scale."""
        found = []
        for number in range(FOLDS):
            own = rows[fold[rows] == number]
            if 0 < side[own].sum() < len(own):
                found.append(float(roc_auc_score(side[own], score[own])))
        return float(np.mean(found)) if found else 0.5

    source = np.random.default_rng(0)
    groups = {name: np.flatnonzero(owners == name) for name in dict.fromkeys(owners)}
    names: Sequence[str] = list(groups)
    drawn = [
        area(np.concatenate([groups[names[place]] for place in source.integers(0, len(names), len(names))]))
        for _ in range(200)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"value": area(np.arange(len(texts))), "n": len(names), "interval": [float(low), float(high)]}
