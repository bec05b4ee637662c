"""Dialogues: how closely simulated users behave like people, as figures with intervals.

The hardest test is realism: a classifier learns to separate simulated user messages from
those of people (a two-sample test, Lopez-Paz and Oquab 2017, arXiv 1610.06545). An area
under the curve of 0.5 means that the two cannot be separated; human messages against other
human messages reach about that value.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from simforge.audit import features, figures, shapes
from simforge.audit.figures import Array, Figure, Results, not_measured
from simforge.catalog import records
from simforge.dataset.manifest import Manifest
from simforge.dialogue import style
from simforge.errors import SourceError
from simforge.hub import loading

MAX_MESSAGES = 2_000
"Most messages of each side that the classifier learns from."


FOLDS = 5


MIN_CONVERSATIONS = 50
"Fewest conversations of each side that a classifier needs."


UserMessages = list[tuple[str, str]]
"User messages, each as a pair of conversation and text."


def measure(source: str, manifest: Manifest, human: Path | None) -> Results:
    """Measure `endings`, `guards`, `goals`, `disclosure`, `style` and `realism`. Raises what
    `loading.scan` raises, and `SourceError` if the human messages cannot be read."""
    counted = manifest.get("fidelity")
    if counted is None:
        reason = not_measured(
            "no model played the people: their prompts came from a list"
        )
        return dict.fromkeys(
            ("endings", "guards", "goals", "disclosure", "style", "realism"), reason
        )
    wanted = ("id", "persona_id", "parent", "goals_met", "disclosed", "facts", "style")
    table = loading.scan(source, "dialogues").select(wanted).collect()
    met = table["goals_met"].drop_nulls().to_numpy()
    total = sum(counted["endings"].values())
    return {
        "messages": counted["messages"],
        "endings": {
            name: figures.share(times, total)
            for name, times in counted["endings"].items()
        },
        "guards": {
            name: {
                "value": guard["share"],
                "n": counted["messages"],
                "interval": guard["interval"],
            }
            for name, guard in counted["guards"].items()
        },
        "goals": figures.mean(met)
        if len(met)
        else not_measured("no person had goals beyond their first need"),
        "disclosure": _disclosure(table.filter(pl.col("parent").is_null())),
        "style": _style_figures(table, counted["style"]),
        "realism": _realism(source, human),
    }


def _style_figures(dialogues: pl.DataFrame, counted: Results) -> Results:
    """Style figures over dialogues, each with the lowest and highest value of the human
    datasets."""
    result = {}
    for name in style.STYLE_FIGURES if counted else ():
        values = dialogues.select(
            "persona_id", value=pl.col("style").struct.field(name)
        ).drop_nulls()
        result[name] = {
            **figures.mean(values["value"].to_numpy(), values["persona_id"].to_list()),
            "human": counted[name]["human"],
        }
    return result


def _disclosure(dialogues: pl.DataFrame) -> Results:
    """Share of a person's facts that are disclosed by each turn (`by_turn`), and share of all
    disclosed facts that come in the first message (`in_first_message`); 1 means that
    everything is in the first message."""
    rows = [
        (disclosed, facts)
        for disclosed, facts in dialogues.select("disclosed", "facts").iter_rows()
        if disclosed and facts
    ]
    if not rows:
        return {
            "by_turn": not_measured("the people had no facts to disclose"),
            "in_first_message": not_measured("the people had no facts to disclose"),
        }
    turns = max(len(disclosed) for disclosed, _ in rows)
    by_turn = [
        np.array(
            [
                disclosed[turn] / facts
                for disclosed, facts in rows
                if turn < len(disclosed)
            ]
        )
        for turn in range(turns)
    ]
    first_shares = np.array(
        [
            disclosed[0] / disclosed[-1]
            for disclosed, _ in rows
            if len(disclosed) > 1 and disclosed[-1]
        ]
    )
    reason = not_measured("no dialogue with two or more turns disclosed a fact")
    return {
        "by_turn": [figures.mean(shares) for shares in by_turn],
        "in_first_message": figures.mean(first_shares) if len(first_shares) else reason,
    }


def _realism(source: str, human: Path | None) -> Results:
    """Test how well a classifier separates simulated from human user messages, for two feature
    families."""
    if human is None:
        reason = (
            "no human dialogues were given (--human FILE); `style` is compared with "
            "shipped figures of human chats"
        )
        return {"characters": not_measured(reason), "style": not_measured(reason)}
    simulated = (
        loading.scan(source, "turns")
        .join(
            loading.scan(source, "dialogues").select("id", "prompt_id"),
            left_on="dialogue_id",
            right_on="id",
            how="left",
        )
        .filter(
            pl.col("prompt_id").is_null() | (pl.col("turn") > 0)
        )  # without the given prompts
        .select("dialogue_id", "text", "turn")
        .collect()
    )
    real = read_user_messages(human)
    if (
        simulated.height and not (simulated["turn"] == 0).any()
    ):  # else it would recognize openings only
        real = [
            message for previous, message in pairwise(real) if previous[0] == message[0]
        ]
    return two_sample_test(
        _subsample(
            [(str(dialogue), text) for dialogue, text, _ in simulated.iter_rows()]
        ),
        _subsample(real),
    )


def read_user_messages(path: Path) -> UserMessages:
    """Read the user messages of a file of human dialogues, one dialogue a row; `messages` is a
    list of role and content, or the same as JSON in text. Raises `SourceError`."""
    name = f"--human {path}"
    table = records.read_table(path, name)
    if "messages" not in table.columns:
        raise SourceError(
            f"{name} needs a column `messages`, a list of role and content; it has: "
            f"{', '.join(table.columns)}."
        )
    dialogues = table["messages"].to_list()
    user_messages: UserMessages = []
    for number, cell in enumerate(dialogues):
        messages = shapes.messages_of(cell)
        if messages is None:
            raise SourceError(
                f"{name}, row {number + 1}: `messages` must be a list of role and content."
            )
        user_messages += [
            (str(number), text) for role, text in messages if role == "user" and text
        ]
    if not user_messages:
        raise SourceError(f"--human {path} has no message of the role user.")
    return user_messages


def _subsample(messages: UserMessages) -> UserMessages:
    """Random whole conversations with at most `MAX_MESSAGES` messages in total."""
    names = list(dict.fromkeys(name for name, _ in messages))
    order = np.random.default_rng(0).permutation(len(names))
    count: dict[str, int] = {}
    for name, _ in messages:
        count[name] = count.get(name, 0) + 1
    kept, remaining = set(), MAX_MESSAGES
    for place in order:
        if count[names[place]] <= remaining:
            kept.add(names[place])
            remaining -= count[names[place]]
    return [message for message in messages if message[0] in kept]


def two_sample_test(simulated: UserMessages, human: UserMessages) -> Results:
    """Area under the curve of classifiers that separate `simulated` from `human` messages, held
    out by conversation: one on character n-grams (`characters`) and one on style. `control`
    compares two halves of the human messages."""
    counts = [len({name for name, _ in messages}) for messages in (simulated, human)]
    if min(counts) < MIN_CONVERSATIONS:
        which = (
            "the dataset has" if counts[0] < MIN_CONVERSATIONS else "the human file has"
        )
        reason = not_measured(
            f"{which} {min(counts)} dialogues with user messages; it takes {MIN_CONVERSATIONS}"
        )
        return {"characters": reason, "style": reason}
    names = list(dict.fromkeys(name for name, _ in human))
    half = set(names[::2])
    control = (
        [message for message in human if message[0] in half],
        [message for message in human if message[0] not in half],
    )
    return {
        "characters": _classifier_auc(simulated, human, _character_features),
        "style": _classifier_auc(simulated, human, _style_features),
        "control": _classifier_auc(*control, _character_features)
        if counts[1] >= 2 * MIN_CONVERSATIONS
        else not_measured("too few dialogues"),
    }


def _character_features(train: list[str], test: list[str]) -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        analyzer="char_wb",
        ngram_range=(2, 5),
        min_df=3,
        max_features=50_000,
        sublinear_tf=True,
    )
    return vectorizer.fit_transform(train), vectorizer.transform(test)


def _style_features(train: list[str], test: list[str]) -> tuple[Any, Any]:
    from sklearn.preprocessing import StandardScaler

    def seen(texts: list[str]) -> Array:
        shares = [style.style_figures([text]) or {} for text in texts]
        return np.array(
            [
                [*features.style(text), *share.values()]
                for text, share in zip(texts, shares, strict=True)
            ]
        )

    scale = StandardScaler().fit(seen(train))
    return scale.transform(seen(train)), scale.transform(seen(test))


def _classifier_auc(
    first: UserMessages, second: UserMessages, features_of: Any
) -> Figure:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold

    texts = [text for _, text in (*first, *second)]
    owners = np.array(
        [f"a{name}" for name, _ in first] + [f"b{name}" for name, _ in second]
    )
    side = np.array([1] * len(first) + [0] * len(second))
    score, fold = np.zeros(len(texts)), np.zeros(len(texts), dtype=int)
    parts = GroupKFold(FOLDS, shuffle=True, random_state=0).split(texts, side, owners)
    for number, (train, test) in enumerate(parts):
        train_features, test_features = features_of(
            [texts[row] for row in train], [texts[row] for row in test]
        )
        model = LogisticRegression(max_iter=1_000, class_weight="balanced").fit(
            train_features, side[train]
        )
        score[test], fold[test] = model.decision_function(test_features), number

    def area(rows: Array) -> float:
        """Mean over folds, since the scores of two classifiers are not on one scale."""
        areas = []
        for number in range(FOLDS):
            fold_rows = rows[fold[rows] == number]
            if 0 < side[fold_rows].sum() < len(fold_rows):
                areas.append(float(roc_auc_score(side[fold_rows], score[fold_rows])))
        return float(np.mean(areas)) if areas else 0.5

    rng = np.random.default_rng(0)
    groups = {name: np.flatnonzero(owners == name) for name in dict.fromkeys(owners)}
    names: Sequence[str] = list(groups)
    resampled = [
        area(
            np.concatenate(
                [
                    groups[names[place]]
                    for place in rng.integers(0, len(names), len(names))
                ]
            )
        )
        for _ in range(200)
    ]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return {
        "value": area(np.arange(len(texts))),
        "n": len(names),
        "interval": [float(low), float(high)],
    }
