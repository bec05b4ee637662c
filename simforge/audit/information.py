"""Information: how many bits of personal preference a dataset contains.

Two scorers of one family are fitted to the same pairs. One knows only the answers; the other
also knows the profile of the person. The improvement of the second on held-out pairs, in
bits a pair, is the personal information that the family can use (V-information: Xu et al.
2020, arXiv 2002.10689; Ethayarajh et al. 2022, arXiv 2110.08420):

    I(P -> Y | X) = H(Y | X) - H(Y | X, P)

Both are Bradley-Terry models over features of the answers. They are sparse (lasso), since
few features matter to people and the others must not add noise. The second scorer also gets
products of features and profile columns: those that correlate most with the labels, screened
on its training pairs (Fan and Lv 2008). With profiles shuffled at random, no information may
remain. The result is a lower bound: a family with richer features may find more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simforge.audit import figures
from simforge.audit.figures import Array, Results, not_measured

FOLDS = 10


MIN_PAIRS_OF_DIMENSION, MIN_PAIRS = 200, 100
"Fewest pairs of one dimension for a scorer of its own, and fewest pairs for any scorer."


MAX_PROFILE_COLUMNS = 100
"Most columns of a profile; a wider one is reduced to this number of main components."


DUPLICATE_CORRELATION = 0.999
"Correlation above which two columns count as equal, and only one of them is kept."


MAX_INTERACTIONS = 300
"Most products of a feature and a profile column that a scorer gets."


INVERSE_PENALTIES = (0.003, 0.006, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.3)
"Inverse lasso penalties (C) to try; validation on groups of the first fold picks one."


Labels = Sequence[Any] | Array


@dataclass(frozen=True)
class HeldOutPredictions:
    """Predictions of scorers for pairs that they were not fitted to."""

    without_profile: Array
    "Probability of the label without the profile (pairs,)."
    with_profile: Array
    "Probability of the label with the profile (pairs,)."


def measure(
    chosen: Array,
    rejected: Array,
    profiles: Array,
    folds: Labels,
    owners: Labels,
    kinds: Labels,
) -> Results:
    """Measure bits a pair and the accuracy gap, overall and by kind of pair.

    `chosen` and `rejected` (pairs, columns) are the features of the answers. Pairs with the
    same entry in `folds` are held out together. Intervals resample whole `owners`. Each of
    the `kinds` (dimensions) gets its own scorer; kinds with too few pairs share one."""
    if len(set(folds)) < 2:
        return {
            "bits": not_measured(
                "all pairs share nearly one prompt or one person: none is held out"
            )
        }
    fit, shuffled_fit = _predict_held_out(chosen - rejected, profiles, folds, kinds)
    scored = ~np.isnan(fit.without_profile)
    if not scored.any():
        return {
            "bits": not_measured(
                f"fewer than {MIN_PAIRS} pairs have profiles that differ"
            )
        }
    gain = np.log2(fit.with_profile[scored]) - np.log2(fit.without_profile[scored])
    clusters = np.asarray(owners, dtype=object)[scored]
    correct_without, correct_with = (
        correctness(fit.without_profile[scored]),
        correctness(fit.with_profile[scored]),
    )
    shuffled_gain = np.log2(shuffled_fit.with_profile[scored]) - np.log2(
        shuffled_fit.without_profile[scored]
    )
    result: Results = {
        "bits": figures.mean(gain, clusters),
        "shuffled": figures.mean(shuffled_gain, clusters),
        "accuracy_without": figures.mean(correct_without, clusters),
        "accuracy_with": figures.mean(correct_with, clusters),
        "gap": figures.mean(correct_with - correct_without, clusters),
        "below_zero": figures.clustered_share(gain < 0, clusters.tolist()),
        "left_out": int((~scored).sum()),
        "by_dimension": {},
    }
    kind_of_pair = np.array([str(kind) for kind in kinds], dtype=object)[scored]
    for kind in sorted(set(kind_of_pair)):
        rows = kind_of_pair == kind
        result["by_dimension"][kind] = {
            "bits": figures.mean(gain[rows], clusters[rows]),
            "gap": figures.mean((correct_with - correct_without)[rows], clusters[rows]),
        }
    return result


def correctness(probability: Array) -> Array:
    """1 where the scorer prefers the chosen answer, 0 where it prefers the other, 0.5 where it
    is undecided."""
    scores: Array = np.where(probability == 0.5, 0.5, (probability > 0.5).astype(float))
    return scores


def merge_small_kinds(kinds: Labels) -> Array:
    """Kind of each pair (pairs,) for fitting: kinds with too few pairs are merged into one."""
    kind_of_pair = np.array([str(kind) for kind in kinds], dtype=object)
    unique, counts = np.unique(kind_of_pair, return_counts=True)
    small = set(unique[counts < MIN_PAIRS_OF_DIMENSION])
    return np.array(
        ["" if name in small else name for name in kind_of_pair], dtype=object
    )


def profile_columns(profiles: Array, kinds: Labels) -> Array:
    """Deviation of each profile from the mean (pairs, columns), standardized. The mean is taken
    within each of the `kinds`: a profile column that is zero elsewhere would reveal the
    topic of a pair instead of the person."""
    kind_of_pair = np.array([str(kind) for kind in kinds], dtype=object)
    values = profiles.astype(float)
    for kind in set(kind_of_pair):
        values[kind_of_pair == kind] -= values[kind_of_pair == kind].mean(axis=0)
    if values.shape[1] > MAX_PROFILE_COLUMNS:
        _, _, axes = np.linalg.svd(values[:5_000], full_matrices=False)
        values = values @ axes[:MAX_PROFILE_COLUMNS].T
    spread = values.std(axis=0)
    scaled = np.clip(values[:, spread > 1e-9] / spread[spread > 1e-9], -5, 5)
    alike = np.abs(scaled.T @ scaled) / max(1, len(scaled)) > DUPLICATE_CORRELATION
    kept: Array = scaled[
        :, [not alike[place, :place].any() for place in range(scaled.shape[1])]
    ]
    return kept


def assign_folds(names: Labels) -> Array:
    """Fold of each name (pairs,); names are assigned to the smallest fold, the most common
    first."""
    unique, index, counts = np.unique(
        [str(name) for name in names], return_inverse=True, return_counts=True
    )
    fold = np.empty(len(unique), dtype=int)
    sizes = np.zeros(FOLDS)
    for number in np.argsort(-counts, kind="stable"):
        fold[number] = sizes.argmin()
        sizes[fold[number]] += counts[number]
    folds: Array = fold[index]
    return folds


def _predict_held_out(
    differences: Array, profiles: Array, folds: Labels, kinds: Labels
) -> tuple[HeldOutPredictions, HeldOutPredictions]:
    """Held-out predictions with the true profiles and with shuffled ones; NaN where a kind has
    too few pairs."""
    count = len(differences)
    true_fit, shuffled_fit = (
        HeldOutPredictions(np.full(count, np.nan), np.full(count, np.nan))
        for _ in range(2)
    )
    merged_kinds, kind_of_pair = (
        merge_small_kinds(kinds),
        np.array([str(kind) for kind in kinds], dtype=object),
    )
    fold_labels = np.asarray(folds, dtype=object)
    for kind in sorted(set(merged_kinds)):
        rows = np.flatnonzero(merged_kinds == kind)
        points = profile_columns(profiles[rows], kind_of_pair[rows])
        groups = assign_folds(fold_labels[rows])
        if len(rows) < MIN_PAIRS or points.shape[1] == 0 or len(set(groups)) < 2:
            continue
        shuffled_points = points[np.random.default_rng(1).permutation(len(rows))]
        probabilities = held_out_probabilities(differences[rows], groups)
        true_fit.without_profile[rows] = shuffled_fit.without_profile[rows] = (
            probabilities
        )
        true_fit.with_profile[rows] = held_out_probabilities(
            differences[rows], groups, (differences[rows], points)
        )
        shuffled_fit.with_profile[rows] = held_out_probabilities(
            differences[rows], groups, (differences[rows], shuffled_points)
        )
    return true_fit, shuffled_fit


def held_out_probabilities(
    differences: Array, groups: Array, interactions: tuple[Array, Array] | None = None
) -> Array:
    """Probability of the chosen answer (pairs,) by a scorer that was fitted to the other
    groups. Its features are the `differences` (pairs, columns) and the best products of a
    column of the first and a column of the second array of `interactions`."""
    probabilities = np.full(len(differences), 0.5)
    inverse_penalty: float | None = None
    for fold in sorted(set(groups)):
        train, test = np.flatnonzero(groups != fold), np.flatnonzero(groups == fold)
        if len(train) < 2:
            continue
        inverse_penalty = inverse_penalty or _best_inverse_penalty(
            differences, interactions, groups, train
        )
        products = _screen_interactions(interactions, train)
        weights = _fit_weights(
            _design_matrix(differences, interactions, products, train), inverse_penalty
        )
        margin = _design_matrix(differences, interactions, products, test) @ weights
        probabilities[test] = 1 / (1 + np.exp(-np.clip(margin, -12, 12)))
    return probabilities


def _fit_weights(features: Array, inverse_penalty: float) -> Array:
    """Fit the weights of a scorer for which the chosen answer of each pair is the better one."""
    from sklearn.linear_model import LogisticRegression

    sign = np.where(
        np.arange(len(features)) % 2, -1.0, 1.0
    )  # flip every second pair for two classes
    model = LogisticRegression(
        C=inverse_penalty, l1_ratio=1, solver="liblinear", fit_intercept=False, tol=1e-3
    )
    weights: Array = model.fit(features * sign[:, None], sign > 0).coef_[0]
    return weights


def _best_inverse_penalty(
    differences: Array,
    interactions: tuple[Array, Array] | None,
    groups: Array,
    train: Array,
) -> float:
    """Inverse penalty with the lowest loss on some of the training groups. Groups stay whole: a
    pair that several people judged must not be on both sides."""
    names = sorted(set(groups[train]))
    validation_groups = set(names[::4]) if len(names) > 1 else set()
    is_validation = np.array(
        [group in validation_groups for group in groups[train]], dtype=bool
    )
    fit_rows, validation_rows = train[~is_validation], train[is_validation]
    if len(fit_rows) < 2 or not len(validation_rows):
        return INVERSE_PENALTIES[0]
    products = _screen_interactions(interactions, fit_rows)
    fit_features, validation_features = (
        _design_matrix(differences, interactions, products, rows)
        for rows in (fit_rows, validation_rows)
    )
    losses = [
        float(
            np.logaddexp(
                0, -(validation_features @ _fit_weights(fit_features, inverse_penalty))
            ).mean()
        )
        for inverse_penalty in INVERSE_PENALTIES
    ]
    return INVERSE_PENALTIES[int(np.argmin(losses))]


def _screen_interactions(
    interactions: tuple[Array, Array] | None, rows: Array
) -> list[tuple[int, int]]:
    """Column indices of the products that correlate most with the labels of some pairs."""
    if interactions is None:
        return []
    first, second = (part[rows] for part in interactions)
    correlation = np.abs(first.T @ second) / np.maximum(
        np.sqrt((first**2).T @ second**2), 1e-9
    )
    best = np.argsort(-correlation, axis=None, kind="stable")[:MAX_INTERACTIONS]
    return [
        (int(place // second.shape[1]), int(place % second.shape[1]))
        for place in np.sort(best)
    ]


def _design_matrix(
    differences: Array,
    interactions: tuple[Array, Array] | None,
    products: list[tuple[int, int]],
    rows: Array,
) -> Array:
    """Differences of some pairs, with their products as further columns."""
    if interactions is None or not products:
        return differences[rows]
    first_columns, second_columns = (
        list(places) for places in zip(*products, strict=True)
    )
    return np.hstack(
        [
            differences[rows],
            interactions[0][np.ix_(rows, first_columns)]
            * interactions[1][np.ix_(rows, second_columns)],
        ]
    )
