"""Information: how many bits of personal preference a dataset holds.

Two scorers of one family are fitted to the same pairs, one that knows the answers only and one that also knows who
prefers. What the second predicts better on pairs that neither has seen, in bits a pair, is the personal information
that the family can use (V-information: Xu et al. 2020, arXiv 2002.10689; Ethayarajh et al. 2022, arXiv 2110.08420):

    I(P -> Y | X) = H(Y | X) - H(Y | X, P)

Both are Bradley-Terry models over features of the answers, sparse ones (lasso: few features matter to people, and what
does not matter shall not be paid for); the second has every feature times every direction of the profile besides. Where
people are dealt other people's profiles, nothing must be left of it. It is a lower bound: a family that sees more may
find more.
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
DIRECTIONS = 8
"Of profiles."
STRENGTHS = (0.003, 0.006, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.3)
"How freely a scorer may follow the pairs; the best is found on a part of the first fold."


Labels = Sequence[Any] | Array


@dataclass(frozen=True)
class Fit:
    """What scorers predict of pairs that they were not fitted to."""

    plain: Array
    "Probability of the label without the profile, a row a pair."
    personal: Array
    "With it."


def measure(
    features: Array, other: Array, profiles: Array, folds: Labels, people: Labels, kinds: Labels
) -> dict[str, Any]:
    """Bits a pair and the gap in accuracy, over all and by kind of pair.

    `features` and `other` (pairs, columns) are those of the chosen and of the rejected answers; pairs with the same
    entry in `folds` are held out together; intervals draw whole `people`; `kinds` (dimensions) are fitted
    apart, those with too few pairs together.
    """
    both, shuffled = _fitted(features - other, profiles, folds, people, kinds)
    known = ~np.isnan(both.plain)
    if not known.any():
        if len(set(folds)) < 2:
            return {"bits": not_measured("all pairs are of nearly the same prompt, or of one person: none is held out")}
        return {"bits": not_measured(f"there are no {LEAST} pairs with profiles that differ")}
    gain = np.log2(both.personal[known]) - np.log2(both.plain[known])
    owners = np.asarray(people, dtype=object)[known]
    without, personal = _right(both.plain[known]), _right(both.personal[known])
    lost = np.log2(shuffled.personal[known]) - np.log2(shuffled.plain[known])
    found: dict[str, Any] = {
        "bits": figures.mean(gain, owners),
        "shuffled": figures.mean(lost, owners),
        "accuracy_without": figures.mean(without, owners),
        "accuracy_with": figures.mean(personal, owners),
        "gap": figures.mean(personal - without, owners),
        "below_zero": figures.share(int((gain < 0).sum()), len(gain)),
        "left_out": int((~known).sum()),
        "by_dimension": {},
    }
    named = np.array([str(kind) for kind in kinds], dtype=object)[known]
    for kind in sorted(set(named)):
        own = named == kind
        found["by_dimension"][kind] = {
            "bits": figures.mean(gain[own], owners[own]),
            "gap": figures.mean((personal - without)[own], owners[own]),
        }
    return found


def _right(probability: Array) -> Array:
    """1 where what was chosen is held for likelier, 0 where the other is, a half where the scorer does not know."""
    found: Array = np.where(probability == 0.5, 0.5, (probability > 0.5).astype(float))
    return found


def _fitted(differences: Array, profiles: Array, folds: Labels, people: Labels, kinds: Labels) -> tuple[Fit, Fit]:
    """Held-out predictions with the profiles, and with those of others; NaN where a kind has too few pairs."""
    count = len(differences)
    true, false = (Fit(np.full(count, np.nan), np.full(count, np.nan)) for _ in range(2))
    named, apart = together(kinds), np.array([str(kind) for kind in kinds], dtype=object)
    owners = np.asarray(people, dtype=object)
    for kind in set(named):
        rows = np.flatnonzero(named == kind)
        points = _directions(profiles[rows], apart[rows])
        if len(rows) < LEAST or points.shape[1] == 0:
            continue
        groups = _numbered(np.asarray(folds, dtype=object)[rows])
        if len(set(groups)) < 2:
            continue
        dealt = points[_dealt(owners[rows])]
        plain = held_out(differences[rows], groups)
        true.plain[rows] = false.plain[rows] = plain
        true.personal[rows] = held_out(_crossed(differences[rows], points), groups)
        false.personal[rows] = held_out(_crossed(differences[rows], dealt), groups)
    return true, false


def together(kinds: Labels) -> Array:
    """The kinds that are fitted apart (pairs,): those with too few pairs are taken together."""
    named = np.array([str(kind) for kind in kinds], dtype=object)
    found, counts = np.unique(named, return_counts=True)
    few = set(found[counts < ENOUGH])
    return np.array(["" if name in few else name for name in named], dtype=object)


def held_out(differences: Array, groups: Array) -> Array:
    """Probability that a scorer, fitted to the other groups, gives to what was chosen; (pairs,)."""
    from sklearn.linear_model import LogisticRegression

    source = np.random.default_rng(0)
    turned = np.where(source.random(len(differences)) < 0.5, -1.0, 1.0)  # so that there are two classes
    seen, side = differences * turned[:, None], turned > 0
    found = np.full(len(differences), 0.5)

    def fitted(rows: Array, strength: float) -> Any:
        model = LogisticRegression(C=strength, l1_ratio=1, solver="liblinear", fit_intercept=False, tol=1e-3)
        return model.fit(seen[rows], side[rows])

    strength: float | None = None
    for fold in sorted(set(groups)):
        train, test = np.flatnonzero(groups != fold), np.flatnonzero(groups == fold)
        if len(set(side[train])) < 2:
            continue
        if strength is None:
            inner = source.random(len(train)) < 0.75
            strength = min(STRENGTHS, key=lambda one: _loss(fitted(train[inner], one), seen, side, train[~inner]))
        margin = differences[test] @ fitted(train, strength).coef_[0]
        found[test] = 1 / (1 + np.exp(-np.clip(margin, -12, 12)))
    return found


def _loss(model: Any, seen: Array, side: Array, rows: Array) -> float:
    margin = np.where(side[rows], 1.0, -1.0) * (seen[rows] @ model.coef_[0])
    return float(np.logaddexp(0, -margin).mean())


def _crossed(differences: Array, points: Array) -> Array:
    """The differences, and each times each direction of the profile."""
    return np.hstack([differences, *(differences * points[:, [place]] for place in range(points.shape[1]))])


def _directions(profiles: Array, kinds: Array | None = None) -> Array:
    """The main directions in which profiles differ (pairs, at most `DIRECTIONS`), in units of their spread; within each
    of the `kinds`, since a profile that is nothing elsewhere would tell what a pair is about, and not who asks."""
    centred = profiles - profiles.mean(axis=0)
    for kind in set(kinds) if kinds is not None else ():
        centred[kinds == kind] -= centred[kinds == kind].mean(axis=0)
    _, spread, axes = np.linalg.svd(centred[:5_000], full_matrices=False)
    kept = (spread > 1e-6 * max(1.0, float(spread[:1].sum()))).sum()
    points = centred @ axes[: min(DIRECTIONS, int(kept))].T
    found: Array = points / np.maximum(points.std(axis=0), 1e-9)
    return found


def _dealt(owners: Array) -> Array:
    """For each pair the row of a pair of another person, the same for all pairs of one person."""
    source = np.random.default_rng(1)
    people, first = np.unique(owners.astype(str), return_index=True)
    other = dict(zip(people, first[source.permutation(len(people))], strict=True))
    return np.array([other[str(owner)] for owner in owners])


def _numbered(names: Array) -> Array:
    """Each name's fold; names are dealt out in turn, the most common first."""
    found, place, counts = np.unique(names.astype(str), return_inverse=True, return_counts=True)
    fold = np.empty(len(found), dtype=int)
    sizes = np.zeros(FOLDS)
    for number in np.argsort(-counts, kind="stable"):
        fold[number] = sizes.argmin()
        sizes[fold[number]] += counts[number]
    return fold[place]
