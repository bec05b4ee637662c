"""Shortcuts: how far a rule without persona and without meaning gets, and what each thing is worth in bits.

People prefer the longer answer in 63 to 64 % of pairs of natural answers (PRISM, Chatbot Arena), so that is what a rule
is held against. A person who wants long answers may rightly be at 90 %; the average over people should not be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

from simforge.audit import features, figures, information
from simforge.audit.figures import Array, Figure, not_measured
from simforge.measures import WORD

HUMAN = 0.635
"Share of human choices that fall on the longer answer: 63.5 % in PRISM, 64.0 % in Chatbot Arena."
BOUNDS = (0.40, 0.70)
"A rule beyond these decides the labels."
ECHO = 3
"Words in a row that count as quoting."
COMMON = 0.01
"Share of answers to people with other wishes above which words in a row belong to nobody."


def rules(chosen: Sequence[str], rejected: Sequence[str]) -> dict[str, Figure]:
    """Accuracy of each rule where it says something, with how often it does (`says`), and of length how far it is
    beyond people's own choices (`excess`)."""
    found = {}
    for name, rule in RULES.items():
        sides = np.array([rule(a) - rule(b) for a, b in zip(chosen, rejected, strict=True)])
        said = sides != 0
        one = figures.share(int((sides > 0).sum()), int(said.sum()))
        found[name] = {**one, "says": float(said.mean())} if "value" in one else not_measured("no pair differs in it")
        if name == "longer" and "value" in one:
            low, high = one["interval"]
            found[name]["excess"] = {
                "value": one["value"] - HUMAN, "n": one["n"], "interval": [low - HUMAN, high - HUMAN]
            }  # fmt: skip
    return found


RULES: dict[str, Callable[[str], float]] = {
    "longer": lambda text: len(WORD.findall(text)),
    "more_markdown": lambda text: sum(
        len(one.findall(text)) for one in (features.BULLET, features.HEADING, features.BOLD)
    ),
    "more_bullets": lambda text: len(features.BULLET.findall(text)),
    "more_exclamation": lambda text: text.count("!"),
}


def length(chosen: Sequence[str], rejected: Sequence[str], owners: Sequence[Any]) -> dict[str, Any]:
    """How the label follows length: the coefficient of log(chosen words / rejected words) in a logistic model, its
    interval by `owners`, and how often the longer one is chosen by how much longer it is."""
    ratios = np.array(
        [np.log((1 + len(WORD.findall(a))) / (1 + len(WORD.findall(b)))) for a, b in zip(chosen, rejected, strict=True)]
    )
    if len(ratios) < figures.FEW:
        return {"coefficient": not_measured(f"{len(ratios)} pairs are too few")}
    names, place = np.unique(np.asarray(owners, dtype=str), return_inverse=True)
    source = np.random.default_rng(0)
    drawn = [_slope(ratios, np.bincount(source.integers(0, len(names), len(names)), minlength=len(names))[place])
             for _ in range(200)]  # fmt: skip
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = _slope(ratios, np.ones(len(ratios)))
    return {
        "coefficient": {"value": value, "n": len(ratios), "interval": [float(low), float(high)]},
        "by_ratio": _by_ratio(ratios),
    }


def _by_ratio(ratios: Array) -> list[dict[str, Any]]:
    """How often the longer answer is the chosen one, by how much longer it is: up to five bins of as many pairs."""
    sizes, longer = np.abs(ratios[ratios != 0]), ratios[ratios != 0] > 0
    edges = np.unique(np.quantile(sizes, np.linspace(0, 1, 6))) if len(sizes) else np.zeros(0)
    place = np.clip(np.searchsorted(edges, sizes, side="right") - 1, 0, max(0, len(edges) - 2))
    return [
        {
            "times": [float(np.exp(edges[one])), float(np.exp(edges[one + 1]))],
            **figures.share(int(longer[place == one].sum()), int((place == one).sum())),
        }
        for one in range(len(edges) - 1)
    ]


def _slope(ratios: Array, weights: Array) -> float:
    """Newton's steps for one coefficient, with a little ridge, since a rule that never fails has no finite one."""
    slope = 0.0
    for _ in range(25):
        p = 1 / (1 + np.exp(-np.clip(slope * ratios, -30, 30)))
        gradient = float((weights * ratios * (1 - p)).sum()) - 0.1 * slope
        curve = float((weights * ratios**2 * p * (1 - p)).sum()) + 0.1
        slope += np.clip(gradient / curve, -2, 2)
    return float(slope)


def models(pairs: pl.DataFrame) -> Figure:
    """How often the model wins that wins more often against the other, where two models met."""
    met = pairs.filter(pl.col("chosen_model").is_not_null(), pl.col("chosen_model") != pl.col("rejected_model"))
    if pairs["chosen_model"].null_count() == pairs.height:
        return not_measured("it is not known which model wrote what")
    if not met.height:
        return not_measured("all answers are of one model")
    wins = met.group_by("chosen_model", "rejected_model").len()
    count = {(a, b): n for a, b, n in wins.iter_rows()}
    better = sum(max(n, count.get((b, a), 0)) for (a, b), n in count.items() if a < b or (b, a) not in count)
    return figures.share(better, met.height)


def echo(pairs: pl.DataFrame, owners: Sequence[Any]) -> dict[str, Any]:
    """How often an answer quotes what the person wants: three words in a row of the wish, of the chosen and of the
    rejected answers, and the difference. Words that more than one in a hundred answers to people with other wishes have
    as well are nobody's."""
    wished = pairs.with_columns(owner=pl.Series(list(map(str, owners)))).filter(pl.col("wish").fill_null("") != "")
    if not wished.height:
        return {"difference": not_measured("nothing is known of what people want in words")}
    wishes = {wish: _runs(wish) for wish in wished["wish"].unique()}
    known = set().union(*wishes.values())
    rows = [
        (wish, [_runs(chosen) & known, _runs(rejected) & known])
        for wish, chosen, rejected in wished.select("wish", "chosen", "rejected").iter_rows()
    ]
    own: dict[str, Counter[tuple[str, ...]]] = {wish: Counter() for wish in wishes}
    for wish, sides in rows:
        for runs in sides:
            own[wish].update(runs)
    whole = sum(own.values(), Counter[tuple[str, ...]]())
    answers = Counter(wish for wish, _ in rows)
    telling = {
        wish: {run for run in runs if whole[run] - own[wish][run] <= COMMON * 2 * (len(rows) - answers[wish])}
        for wish, runs in wishes.items()
    }
    quoted = np.array([[bool(telling[wish] & runs) for runs in sides] for wish, sides in rows], dtype=float)
    of = wished["owner"].to_list()
    return {
        "chosen": figures.mean(quoted[:, 0], of),
        "rejected": figures.mean(quoted[:, 1], of),
        "difference": figures.mean(quoted[:, 0] - quoted[:, 1], of),
    }


def _runs(text: str) -> set[tuple[str, ...]]:
    said = [word.lower() for word in WORD.findall(text)]
    return {tuple(said[start : start + ECHO]) for start in range(len(said) - ECHO + 1)}


STEPS = ("length", "format", "response", "prompt", "persona")
"What is shown to a scorer, one thing after the other."


def waterfall(
    chosen: Array,
    rejected: Array,
    prompts: Array,
    profiles: Array | None,
    folds: Sequence[Any],
    owners: Sequence[Any],
    kinds: Sequence[Any],
) -> dict[str, Any]:
    """The bit of entropy that a label has (which of two answers, in an order that says nothing), split into what each
    step explains of held-out pairs, and what none does; and how often the answers alone tell the label
    (`response_only`). A step that explains nothing can be slightly negative: it was paid for in what was learnt by
    heart. Features (pairs, columns) as `features.text_family` has them; intervals draw whole `owners`."""
    differences = chosen - rejected
    groups = information.numbered(folds)
    if len(differences) < information.LEAST or len(set(groups)) < 2:
        few = f"{len(differences)} pairs of {len(set(folds))} prompts are too few"
        return {"bits": not_measured(few), "response_only": not_measured(few)}
    style, formed = len(features.STYLE), [features.LENGTH, *features.FORMAT]
    seen = [differences[:, [features.LENGTH]], differences[:, formed], differences]
    predicted = [information.held_out(columns, groups) for columns in seen]
    asked = (differences[:, :style], information.columns(prompts, ["all"] * len(prompts)))
    predicted.append(information.held_out(differences, groups, asked) if asked[1].shape[1] else predicted[-1])
    if profiles is not None:
        named = np.array([str(kind) for kind in kinds], dtype=object)
        points = np.hstack([_of(kind, profiles, named) for kind in sorted(set(named))])
        crossed = (differences, information.columns(points, named))
        predicted.append(information.held_out(differences, groups, crossed) if crossed[1].shape[1] else predicted[-1])
    left = [np.ones(len(differences)), *(-np.log2(one) for one in predicted)]
    steps = zip(STEPS, left, left[1:], strict=False)
    bits = {step: figures.mean(before - after, owners) for step, before, after in steps}
    return {
        "bits": {**bits, "residual": figures.mean(left[-1], owners)},
        "response_only": figures.mean(information.right(predicted[2]), owners),
    }


def _of(kind: str, profiles: Array, kinds: Array) -> Array:
    """The profiles where pairs are of a kind, and nothing elsewhere."""
    return np.where((kinds == kind)[:, None], profiles, 0.0)
