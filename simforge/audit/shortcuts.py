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
from simforge.audit.information import _crossed, _directions, _numbered, held_out
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


def length(chosen: Sequence[str], rejected: Sequence[str], people: Sequence[Any]) -> dict[str, Any]:
    """How the label follows length: the coefficient of log(chosen words / rejected words) in a logistic model, its
    interval by people, the median ratio of lengths, and how often the longer one is chosen by how much longer it is."""
    ratios = np.array(
        [np.log((1 + len(WORD.findall(a))) / (1 + len(WORD.findall(b)))) for a, b in zip(chosen, rejected, strict=True)]
    )
    if len(ratios) < figures.FEW:
        return {"coefficient": not_measured(f"{len(ratios)} pairs are too few")}
    owners, place = np.unique(np.array([str(one) for one in people]), return_inverse=True)
    source = np.random.default_rng(0)
    drawn = [_slope(ratios, source.poisson(1.0, len(owners))[place]) for _ in range(200)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    value = _slope(ratios, np.ones(len(ratios)))
    return {
        "coefficient": {"value": value, "n": len(ratios), "interval": [float(low), float(high)]},
        "median_ratio": float(np.exp(np.median(ratios))),
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
    if not met.height:
        return not_measured("all answers are of one model")
    wins = met.group_by("chosen_model", "rejected_model").len()
    count = {(a, b): n for a, b, n in wins.iter_rows()}
    better = sum(max(n, count.get((b, a), 0)) for (a, b), n in count.items() if a < b or (b, a) not in count)
    return figures.share(better, met.height)


def echo(pairs: pl.DataFrame) -> dict[str, Any]:
    """How often an answer quotes what the person wants: three words in a row of the wish, of the chosen and of the
    rejected answers, and the difference. Words that more than one in a hundred answers to people with other wishes have
    as well are nobody's."""
    wished = pairs.filter(pl.col("wish").fill_null("") != "")
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
    people = wished["persona"].to_list()
    return {
        "chosen": figures.mean(quoted[:, 0], people),
        "rejected": figures.mean(quoted[:, 1], people),
        "difference": figures.mean(quoted[:, 0] - quoted[:, 1], people),
    }


def _runs(text: str) -> set[tuple[str, ...]]:
    said = [word.lower() for word in WORD.findall(text)]
    return {tuple(said[start : start + ECHO]) for start in range(len(said) - ECHO + 1)}


STEPS = ("length", "format", "response", "prompt", "persona")
"What is shown to a scorer, one thing after the other."


def waterfall(
    chosen: Array, rejected: Array, prompts: Array, profiles: Array | None, folds: Sequence[Any], kinds: Sequence[Any]
) -> dict[str, Any]:
    """The bit of entropy that a label has (which of two answers, in an order that says nothing), split into what each
    step explains of held-out pairs, and what none does. A step that explains nothing can be slightly negative: it was
    paid for in what was learnt by heart. Features (pairs, columns) as `features.text_family` has them."""
    differences = chosen - rejected
    if len(differences) < information.LEAST:
        return {"residual": not_measured(f"{len(differences)} pairs are too few")}
    groups = _numbered(np.array([str(one) for one in folds], dtype=object))
    if len(set(groups)) < 2:
        return {"residual": not_measured("all pairs are of one prompt")}
    style = len(features.STYLE)
    formed = [features.LENGTH, *features.FORMAT]
    seen = [differences[:, [features.LENGTH]], differences[:, formed], differences]
    asked = _directions(prompts)[:, :4] if len(set(map(tuple, prompts[:1_000]))) > 1 else np.zeros((len(prompts), 0))
    seen.append(np.hstack([differences, *(differences[:, :style] * asked[:, [one]] for one in range(asked.shape[1]))]))
    if profiles is not None:
        named = information.together(kinds)
        seen.append(
            np.hstack(
                [seen[-1], *_personal(differences, profiles, named, np.array(list(map(str, kinds)), dtype=object))]
            )
        )
    left, found, before = 1.0, {}, 1.0
    for step, columns in zip(STEPS, seen, strict=False):
        left = float(-np.log2(held_out(columns, groups)).mean())
        found[step] = before - left
        before = left
    found["residual"] = left
    return {"n": len(differences), "bits": found}


def _personal(differences: Array, profiles: Array, named: Array, kinds: Array) -> list[Array]:
    """The differences times the directions of the profile, for each kind of pair apart."""
    blocks = []
    for kind in sorted(set(named)):
        own = named == kind
        points = np.zeros((len(named), 0))
        if own.sum() >= information.LEAST:
            there = _directions(profiles[own], kinds[own])
            points = np.zeros((len(named), there.shape[1]))
            points[own] = there
        if points.shape[1]:
            blocks.append(_crossed(differences, points)[:, differences.shape[1] :])
    return blocks
