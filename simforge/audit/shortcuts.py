"""Shortcuts: how far a rule gets without persona and meaning, and how many bits each kind of
information adds.

People prefer the longer answer in 63 to 64 % of pairs of natural answers (PRISM, Chatbot
Arena), so rules are compared with that share. A person who wants long answers may rightly be
at 90 %; the average over people should not be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

from simforge.audit import features, figures, information
from simforge.audit.figures import Array, Figure, Results, not_measured
from simforge.text.measures import lower_words, words

HUMAN_LONGER_SHARE = 0.635
"Share of human choices of the longer answer: 63.5 % in PRISM, 64.0 % in Chatbot Arena."


RULE_BOUNDS = (0.40, 0.70)
"Range of accuracy outside which a rule decides the labels."


QUOTE_WORDS = 3
"Length of a word sequence that counts as a quote."


COMMON_SHARE = 0.01
"Share of answers to people with other wishes above which a sequence identifies no wish."


def rules(
    chosen: Sequence[str], rejected: Sequence[str], owners: Sequence[Any]
) -> dict[str, Results | Figure]:
    """Accuracy of each rule on the pairs that it decides and the share of those pairs
    (`applies`); for length also the accuracy minus that of people's own choices (`excess`).
    Intervals resample whole `owners`."""
    names = np.asarray(owners, dtype=object)
    result: dict[str, Results | Figure] = {}
    for name, rule in RULES.items():
        differences = np.array(
            [rule(a) - rule(b) for a, b in zip(chosen, rejected, strict=True)]
        )
        decided = differences != 0
        accuracy = figures.clustered_share(
            differences[decided] > 0, names[decided].tolist()
        )
        if "value" not in accuracy:
            result[name] = not_measured("it decides no pair")
            continue
        entry: Results = {**accuracy, "applies": float(decided.mean())}
        if name == "longer":
            low, high = accuracy["interval"]
            entry["excess"] = {
                "value": accuracy["value"] - HUMAN_LONGER_SHARE,
                "n": accuracy["n"],
                "interval": [low - HUMAN_LONGER_SHARE, high - HUMAN_LONGER_SHARE],
            }
        result[name] = entry
    return result


RULES: dict[str, Callable[[str], float]] = {
    "longer": words,
    "more_markdown": lambda text: sum(
        len(pattern.findall(text))
        for pattern in (features.BULLET, features.HEADING, features.BOLD)
    ),
    "more_bullets": lambda text: len(features.BULLET.findall(text)),
    "more_exclamation": lambda text: text.count("!"),
}


def length(
    chosen: Sequence[str], rejected: Sequence[str], owners: Sequence[Any]
) -> Results:
    """Measure how the label depends on length: the coefficient of log(chosen words / rejected
    words) in a logistic model, with an interval by `owners`, and how often the longer answer
    is chosen by length ratio."""
    ratios = np.array(
        [
            np.log((1 + words(a)) / (1 + words(b)))
            for a, b in zip(chosen, rejected, strict=True)
        ]
    )
    if len(ratios) < figures.MIN_ITEMS:
        return {"coefficient": not_measured(f"{len(ratios)} pairs are too few")}
    names, owner_index = np.unique(np.asarray(owners, dtype=str), return_inverse=True)
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(names), len(names)) for _ in range(200)]
    owner_counts = np.array([np.bincount(d, minlength=len(names)) for d in draws])
    low, high = np.quantile(
        _fit_slopes(ratios, owner_counts[:, owner_index]), [0.025, 0.975]
    )
    value = float(_fit_slopes(ratios, np.ones((1, len(ratios))))[0])
    return {
        "coefficient": {
            "value": value,
            "n": len(ratios),
            "interval": [float(low), float(high)],
        },
        "by_ratio": _by_ratio(ratios),
    }


def _by_ratio(ratios: Array) -> list[Results]:
    """Share of pairs with the longer answer chosen, by length ratio, in up to five bins of
    equal size."""
    sizes, longer = np.abs(ratios[ratios != 0]), ratios[ratios != 0] > 0
    edges = (
        np.unique(np.quantile(sizes, np.linspace(0, 1, 6)))
        if len(sizes)
        else np.zeros(0)
    )
    bin_of_pair = np.clip(
        np.searchsorted(edges, sizes, side="right") - 1, 0, max(0, len(edges) - 2)
    )
    return [
        {
            "times": [float(np.exp(edges[index])), float(np.exp(edges[index + 1]))],
            **figures.share(
                int(longer[bin_of_pair == index].sum()),
                int((bin_of_pair == index).sum()),
            ),
        }
        for index in range(len(edges) - 1)
    ]


def _fit_slopes(ratios: Array, weights: Array) -> Array:
    """Fit one logistic coefficient for each row of `weights` with Newton steps and a small
    ridge penalty, since a rule that never fails has no finite coefficient."""
    slopes = np.zeros(len(weights))
    for _ in range(25):
        p = 1 / (1 + np.exp(-np.clip(slopes[:, None] * ratios, -30, 30)))
        gradients = (weights * (1 - p)) @ ratios - 0.1 * slopes
        curvatures = (weights * p * (1 - p)) @ ratios**2 + 0.1
        steps = np.clip(gradients / curvatures, -2, 2)
        slopes += steps
        if np.abs(steps).max() < 1e-9:
            break
    return slopes


def by_wish(
    pairs: pl.DataFrame, wishes: Sequence[str], owners: Sequence[Any]
) -> dict[str, Results]:
    """Figures of the pairs of each wish: accuracy of the rules, and how much more often chosen
    answers quote the wish. What cancels out over all people can decide the labels of some: of
    P-SOUP's pairs, the longer answer is chosen in 26 % for one wish and in 84 % for another."""
    names = np.asarray(owners, dtype=object)
    wish_of_pair = np.asarray(wishes, dtype=object)
    counts = Counter(wish for wish in wishes if wish)
    common = [wish for wish, n in counts.most_common() if n >= figures.MIN_ITEMS]
    if len(common) < 2:
        return {}
    quotes = _quotes(pairs.with_columns(wish=pl.Series(wishes, dtype=pl.String)))
    results: dict[str, Results] = {}
    for wish in common:
        rows = np.flatnonzero(wish_of_pair == wish)
        part = pairs[rows]
        results[wish] = {
            "rules": rules(
                part["chosen"].to_list(),
                part["rejected"].to_list(),
                names[rows].tolist(),
            ),
            "echo": figures.mean(
                quotes[rows, 0] - quotes[rows, 1], names[rows].tolist()
            ),
        }
    return results


def winning_model(pairs: pl.DataFrame) -> Figure:
    """Share of contests between two models that the more frequent winner of the two wins."""
    contests = pairs.filter(
        pl.col("chosen_model").is_not_null(),
        pl.col("chosen_model") != pl.col("rejected_model"),
    )
    if pairs["chosen_model"].null_count() == pairs.height:
        return not_measured("the models that wrote the answers are not known")
    if not contests.height:
        return not_measured("no pair compares answers of two models")
    wins = contests.group_by("chosen_model", "rejected_model").len()
    count = {(a, b): n for a, b, n in wins.iter_rows()}
    favourite_wins = sum(
        max(n, count.get((b, a), 0))
        for (a, b), n in count.items()
        if a < b or (b, a) not in count
    )
    return figures.share(favourite_wins, contests.height)


def echo(pairs: pl.DataFrame, owners: Sequence[Any]) -> Results:
    """Share of answers that quote the wish of the person (three words in a row), for chosen and
    for rejected answers, and the difference. A sequence does not count if more than 1 % of
    the answers to people with other wishes contain it too."""
    wished = pairs.with_columns(owner=pl.Series(list(map(str, owners)))).filter(
        pl.col("wish").fill_null("") != ""
    )
    if not wished.height:
        return {
            "difference": not_measured(
                "the wishes of the people are not known in words"
            )
        }
    quoted = _quotes(wished)
    pair_owners = wished["owner"].to_list()
    return {
        "chosen": figures.mean(quoted[:, 0], pair_owners),
        "rejected": figures.mean(quoted[:, 1], pair_owners),
        "difference": figures.mean(quoted[:, 0] - quoted[:, 1], pair_owners),
    }


def _quotes(wished: pl.DataFrame) -> Array:
    """Return 1 where the chosen and the rejected answer quote the wish (pairs, 2)."""
    wishes = {wish: _word_sequences(wish) for wish in wished["wish"].unique()}
    wish_sequences = set().union(*wishes.values())
    rows = [
        (
            wish,
            [
                _word_sequences(chosen) & wish_sequences,
                _word_sequences(rejected) & wish_sequences,
            ],
        )
        for wish, chosen, rejected in wished.select(
            "wish", "chosen", "rejected"
        ).iter_rows()
    ]
    counts_by_wish: dict[str, Counter[tuple[str, ...]]] = {
        wish: Counter() for wish in wishes
    }
    for wish, sides in rows:
        for runs in sides:
            counts_by_wish[wish].update(runs)
    total_counts = sum(counts_by_wish.values(), Counter[tuple[str, ...]]())
    answers = Counter(wish for wish, _ in rows)
    distinctive = {
        wish: {
            run
            for run in runs
            if total_counts[run] - counts_by_wish[wish][run]
            <= COMMON_SHARE * 2 * (len(rows) - answers[wish])
        }
        for wish, runs in wishes.items()
    }
    return np.array(
        [[bool(distinctive[wish] & runs) for runs in sides] for wish, sides in rows],
        dtype=float,
    )


def _word_sequences(text: str) -> set[tuple[str, ...]]:
    text_words = lower_words(text)
    return {
        text_words[start : start + QUOTE_WORDS]
        for start in range(len(text_words) - QUOTE_WORDS + 1)
    }


STEPS = ("length", "format", "response", "prompt", "persona")
"Information that a scorer gets, added step by step."


def waterfall(
    chosen: Array,
    rejected: Array,
    prompts: Array,
    profiles: Array | None,
    folds: Sequence[Any],
    owners: Sequence[Any],
    kinds: Sequence[Any],
) -> Results:
    """Split the one bit of entropy of a label (which of two answers in random order) into what
    each step explains on held-out pairs and the residual; also how often the answers alone
    predict the label (`response_only`). A step that explains nothing can be slightly
    negative, because of overfitting. Features (pairs, columns) are those of
    `features.text_family`; intervals resample whole `owners`."""
    differences = chosen - rejected
    groups = information.assign_folds(folds)
    if len(differences) < information.MIN_PAIRS or len(set(groups)) < 2:
        reason = f"{len(differences)} pairs of {len(set(folds))} prompts are too few"
        return {"bits": not_measured(reason), "response_only": not_measured(reason)}
    style, format_columns = (
        len(features.STYLE_COLUMNS),
        [features.LENGTH_COLUMN, *features.FORMAT_COLUMNS],
    )
    inputs = [
        differences[:, [features.LENGTH_COLUMN]],
        differences[:, format_columns],
        differences,
    ]
    predicted = [
        information.held_out_probabilities(columns, groups) for columns in inputs
    ]
    prompt_interactions = (
        differences[:, :style],
        information.profile_columns(prompts, ["all"] * len(prompts)),
    )
    predicted.append(
        information.held_out_probabilities(differences, groups, prompt_interactions)
        if prompt_interactions[1].shape[1]
        else predicted[-1]
    )
    if profiles is not None:
        kind_of_pair = np.array([str(kind) for kind in kinds], dtype=object)
        points = np.hstack(
            [
                _profiles_of_kind(kind, profiles, kind_of_pair)
                for kind in sorted(set(kind_of_pair))
            ]
        )
        profile_interactions = (
            differences,
            information.profile_columns(points, kind_of_pair),
        )
        predicted.append(
            information.held_out_probabilities(
                differences, groups, profile_interactions
            )
            if profile_interactions[1].shape[1]
            else predicted[-1]
        )
    remaining = [
        np.ones(len(differences)),
        *(-np.log2(probabilities) for probabilities in predicted),
    ]
    steps = zip(STEPS, remaining, remaining[1:], strict=False)
    bits = {step: figures.mean(before - after, owners) for step, before, after in steps}
    return {
        "bits": {**bits, "residual": figures.mean(remaining[-1], owners)},
        "response_only": figures.mean(information.correctness(predicted[2]), owners),
    }


def _profiles_of_kind(kind: str, profiles: Array, kinds: Array) -> Array:
    """Profiles of the pairs of a kind, and zeros elsewhere."""
    return np.where((kinds == kind)[:, None], profiles, 0.0)
