"""Information: how many bits of personal preference a dataset holds.

Two scorers of one family are fitted to the same pairs, one that knows the answers only and one that also knows who
prefers. What the second predicts better on pairs that neither has seen, in bits a pair, is the personal information
that the family can use (V-information: Xu et al. 2020, arXiv 2002.10689; Ethayarajh et al. 2022, arXiv 2110.08420):

    I(P -> Y | X) = H(Y | X) - H(Y | X, P)

Both are Bradley-Terry models over features of the answers, sparse ones (lasso: few features matter to people, and what
does not matter shall not be paid for); the second has features times columns of the profile besides, those of them that
go with the labels most (screened on the pairs that it is fitted to: Fan and Lv 2008). Where profiles are dealt at
random, nothing must be left of it. It is a lower bound: a family that sees more may find more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simforge.audit import figures
from simforge.audit.figures import Array, not_measured

FOLDS = 10
ENOUGH, LEAST = 200, 100
"Pairs of a dimension from which a scorer is fitted to it alone, and of any from which one is fitted at all."
WIDEST = 100
"Columns of a profile; one with more is cut down to as many main directions."
SAME = 0.999
"Correlation from which two columns say the same: of two values one is enough."
CROSSED = 300
"Products of a feature and a column of the profile that a scorer is given."
STRENGTHS = (0.003, 0.006, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.3)
"How freely a scorer may follow the pairs; the best is found on whole groups of the first fold's pairs."
Labels = Sequence[Any] | Array


@dataclass(frozen=True)
class Fit:
    """What scorers predict of pairs that they were not fitted to."""

    plain: Array
    "Probability of the label without the profile, a row a pair."
    personal: Array
    "With it."


def measure(
    features: Array, other: Array, profiles: Array, folds: Labels, owners: Labels, kinds: Labels
) -> dict[str, Any]:
    """Bits a pair and the gap in accuracy, over all and by kind of pair.

    `features` and `other` (pairs, columns) are those of the chosen and of the rejected answers; pairs with the same
    entry in `folds` are held out together; intervals draw whole `owners`; `kinds` (dimensions) are fitted apart, those
    with too few pairs together.
    """
    if len(set(folds)) < 2:
        return {"bits": not_measured("all pairs are of nearly the same prompt, or of one person: none is held out")}
    both, shuffled = _fitted(features - other, profiles, folds, kinds)
    known = ~np.isnan(both.plain)
    if not known.any():
        return {"bits": not_measured(f"fewer than {LEAST} pairs have profiles that differ")}
    gain = np.log2(both.personal[known]) - np.log2(both.plain[known])
    of = np.asarray(owners, dtype=object)[known]
    without, personal = right(both.plain[known]), right(both.personal[known])
    lost = np.log2(shuffled.personal[known]) - np.log2(shuffled.plain[known])
    found: dict[str, Any] = {
        "bits": figures.mean(gain, of),
        "shuffled": figures.mean(lost, of),
        "accuracy_without": figures.mean(without, of),
        "accuracy_with": figures.mean(personal, of),
        "gap": figures.mean(personal - without, of),
        "below_zero": figures.share(int((gain < 0).sum()), len(gain)),
        "left_out": int((~known).sum()),
        "by_dimension": {},
    }
    named = np.array([str(kind) for kind in kinds], dtype=object)[known]
    for kind in sorted(set(named)):
        own = named == kind
        found["by_dimension"][kind] = {
            "bits": figures.mean(gain[own], of[own]),
            "gap": figures.mean((personal - without)[own], of[own]),
        }
    return found


def right(probability: Array) -> Array:
    """1 where what was chosen is held for likelier, 0 where the other is, a half where the scorer does not know."""
    found: Array = np.where(probability == 0.5, 0.5, (probability > 0.5).astype(float))
    return found


def together(kinds: Labels) -> Array:
    """The kinds that are fitted apart (pairs,): those with too few pairs are taken together."""
    named = np.array([str(kind) for kind in kinds], dtype=object)
    found, counts = np.unique(named, return_counts=True)
    few = set(found[counts < ENOUGH])
    return np.array(["" if name in few else name for name in named], dtype=object)


def columns(profiles: Array, kinds: Labels) -> Array:
    """How profiles differ (pairs, columns), in units of their spread; within each of the `kinds`, since a profile that
    is nothing elsewhere would tell what a pair is about, and not who asks."""
    named = np.array([str(kind) for kind in kinds], dtype=object)
    found = profiles.astype(float)
    for kind in set(named):
        found[named == kind] -= found[named == kind].mean(axis=0)
    if found.shape[1] > WIDEST:
        _, _, axes = np.linalg.svd(found[:5_000], full_matrices=False)
        found = found @ axes[:WIDEST].T
    spread = found.std(axis=0)
    scaled = np.clip(found[:, spread > 1e-9] / spread[spread > 1e-9], -5, 5)
    alike = np.abs(scaled.T @ scaled) / max(1, len(scaled)) > SAME
    kept: Array = scaled[:, [not alike[place, :place].any() for place in range(scaled.shape[1])]]
    return kept


def numbered(names: Labels) -> Array:
    """Each name's fold (pairs,); names are dealt out in turn, the most common first."""
    found, place, counts = np.unique([str(name) for name in names], return_inverse=True, return_counts=True)
    fold = np.empty(len(found), dtype=int)
    sizes = np.zeros(FOLDS)
    for number in np.argsort(-counts, kind="stable"):
        fold[number] = sizes.argmin()
        sizes[fold[number]] += counts[number]
    whole: Array = fold[place]
    return whole


def _fitted(differences: Array, profiles: Array, folds: Labels, kinds: Labels) -> tuple[Fit, Fit]:
    """Held-out predictions with the profiles, and with those of others; NaN where a kind has too few pairs."""
    count = len(differences)
    true, false = (Fit(np.full(count, np.nan), np.full(count, np.nan)) for _ in range(2))
    named, apart = together(kinds), np.array([str(kind) for kind in kinds], dtype=object)
    of = np.asarray(folds, dtype=object)
    for kind in sorted(set(named)):
        rows = np.flatnonzero(named == kind)
        points = columns(profiles[rows], apart[rows])
        groups = numbered(of[rows])
        if len(rows) < LEAST or points.shape[1] == 0 or len(set(groups)) < 2:
            continue
        dealt = points[np.random.default_rng(1).permutation(len(rows))]
        plain = held_out(differences[rows], groups)
        true.plain[rows] = false.plain[rows] = plain
        true.personal[rows] = held_out(differences[rows], groups, (differences[rows], points))
        false.personal[rows] = held_out(differences[rows], groups, (differences[rows], dealt))
    return true, false


def held_out(differences: Array, groups: Array, crossed: tuple[Array, Array] | None = None) -> Array:
    """Probability that a scorer, fitted to the other groups, gives to what was chosen; (pairs,). It sees the
    `differences` (pairs, columns), and the best products of a column of the one and of the other of `crossed`."""
    found = np.full(len(differences), 0.5)
    strength: float | None = None
    for fold in sorted(set(groups)):
        train, test = np.flatnonzero(groups != fold), np.flatnonzero(groups == fold)
        if len(train) < 2:
            continue
        strength = strength or _strength(differences, crossed, groups, train)
        products = _screened(crossed, train)
        weights = _weights(_with(differences, crossed, products, train), strength)
        margin = _with(differences, crossed, products, test) @ weights
        found[test] = 1 / (1 + np.exp(-np.clip(margin, -12, 12)))
    return found


def _weights(seen: Array, strength: float) -> Array:
    """Of a scorer by which the chosen answers of all pairs are the better ones."""
    from sklearn.linear_model import LogisticRegression

    sign = np.where(np.arange(len(seen)) % 2, -1.0, 1.0)  # every second pair is turned, so that there are two classes
    model = LogisticRegression(C=strength, l1_ratio=1, solver="liblinear", fit_intercept=False, tol=1e-3)
    found: Array = model.fit(seen * sign[:, None], sign > 0).coef_[0]
    return found


def _strength(differences: Array, crossed: tuple[Array, Array] | None, groups: Array, train: Array) -> float:
    """The best strength on some of the training groups, whole ones: a pair that several people judged must not stand on
    both sides."""
    names = sorted(set(groups[train]))
    asked = set(names[::4]) if len(names) > 1 else set()
    inside = np.array([group in asked for group in groups[train]], dtype=bool)
    inner, outer = train[~inside], train[inside]
    if len(inner) < 2 or not len(outer):
        return STRENGTHS[0]
    products = _screened(crossed, inner)
    seen, new = (_with(differences, crossed, products, rows) for rows in (inner, outer))
    losses = [float(np.logaddexp(0, -(new @ _weights(seen, one))).mean()) for one in STRENGTHS]
    return STRENGTHS[int(np.argmin(losses))]


def _screened(crossed: tuple[Array, Array] | None, rows: Array) -> list[tuple[int, int]]:
    """The products that go with the labels most, over some pairs: places of the two columns."""
    if crossed is None:
        return []
    one, other = (part[rows] for part in crossed)
    strength = np.abs(one.T @ other) / np.maximum(np.sqrt((one**2).T @ other**2), 1e-9)
    best = np.argsort(-strength, axis=None, kind="stable")[:CROSSED]
    return [(int(place // other.shape[1]), int(place % other.shape[1])) for place in np.sort(best)]


def _with(
    differences: Array, crossed: tuple[Array, Array] | None, products: list[tuple[int, int]], rows: Array
) -> Array:
    """The differences of some pairs, and the products."""
    if crossed is None or not products:
        return differences[rows]
    first, second = (list(places) for places in zip(*products, strict=True))
    return np.hstack([differences[rows], crossed[0][np.ix_(rows, first)] * crossed[1][np.ix_(rows, second)]])
