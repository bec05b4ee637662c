"""Scoring: fit the scorers of each family to the pairs of a dataset.

Each family is held out in two ways, by prompts and by people. If a judge has also decided
pairs whose labels are by construction, its own choices are measured too, next to the labels
of the same pairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from simforge.audit import features, figures, information, shortcuts
from simforge.audit.figures import Array, Results, not_measured
from simforge.audit.pairs import Pairs
from simforge.dataset.manifest import Manifest
from simforge.errors import ModelError, NotFound, UsageError
from simforge.install import how_to_install
from simforge.text import near_duplicates

MAX_PAIRS = 20_000
"Most pairs that are scored, sampled at random."


MAX_TRAIT_VALUES = 10
"Different values above which a profile column counts as a number."


FeatureFunction = Callable[[Sequence[str]], Array]


AnswerFeatures = tuple[Array, Array]
"Features of the chosen and of the rejected answers, one row a pair."


@dataclass(frozen=True)
class ScorerFamily:
    """Family of scorers: how they turn answers into features."""

    features: FeatureFunction
    max_texts: int | None
    "Most different answers that are used; `None` for all."


FAMILIES = {
    "text": ScorerFamily(features.text_family, None),
    "embeddings": ScorerFamily(features.embedding_family, 6_000),
}
"Families of scorers by name."


@dataclass(frozen=True)
class _ScoredPairs:
    """Pairs in the form that scorers take."""

    chosen: list[str]
    rejected: list[str]
    prompts: list[str]
    profiles: Array | None
    prompt_clusters: Sequence[int]
    "Cluster of near-duplicate prompts that each pair belongs to."
    people: list[str] | None
    "Person of each pair; `None` if some are unknown."
    owners: list[str]
    "Group of each pair that intervals resample as a whole."
    kinds: list[str]
    why_no_profiles: str
    judge_labels: list[float | None] | str
    "The judge's soft labels for the chosen answers, or the reason why they cannot be used."

    def __len__(self) -> int:
        return len(self.chosen)

    def rows_within(self, texts: int | None) -> Array:
        """Rows of the pairs with at most `max_texts` different answers. Prompts stay whole, so
        that people who share answers stay together."""
        prompt_clusters = np.asarray(self.prompt_clusters)
        selected: list[Array] = []
        seen: set[str] = set()
        for cluster in np.random.default_rng(0).permutation(np.unique(prompt_clusters)):
            rows = np.flatnonzero(prompt_clusters == cluster)
            seen.update(
                text for row in rows for text in (self.chosen[row], self.rejected[row])
            )
            if texts is not None and len(seen) > texts and selected:
                break
            selected.append(rows)
        return np.sort(np.concatenate(selected))


def measure(pairs: Pairs, families: Sequence[str] = tuple(FAMILIES)) -> Results:
    """Measure `information` by family and by what is held out, `judged` (the choices of the
    judge next to the labels), and the `waterfall`. Raises `UsageError`, `NotFound`."""
    for name in families:
        if name not in FAMILIES:
            raise NotFound("family of scorers", name, FAMILIES)
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise UsageError(
            f"the audit needs scikit-learn: {how_to_install('report')}."
        ) from None
    rows = _scored_pairs(pairs)
    texts = _answer_features(rows, np.arange(len(rows)), features.text_family)
    results: Results = {"information": {}, "judged": {}}
    for name in families:
        results["information"][name], results["judged"][name] = _measure_family(
            rows, FAMILIES[name], texts
        )
    results["waterfall"] = _waterfall(rows, texts)
    return results


def _scored_pairs(pairs: Pairs) -> _ScoredPairs:
    frame, profiles = (
        pairs.frame.with_columns(owner=pl.Series(pairs.owners)),
        pairs.profiles,
    )
    if frame.height > MAX_PAIRS:
        drawn = np.sort(
            np.random.default_rng(0).choice(frame.height, MAX_PAIRS, replace=False)
        )
        frame, profiles = frame[drawn], None if profiles is None else profiles[drawn]
    people_known = not frame["persona"].null_count() and frame["persona"].n_unique() > 1
    prompts = list(dict.fromkeys(frame["prompt"]))
    cluster_of_prompt = dict(
        zip(prompts, near_duplicates.cluster_prompts(prompts), strict=True)
    )
    return _ScoredPairs(
        chosen=frame["chosen"].to_list(),
        rejected=frame["rejected"].to_list(),
        prompts=frame["prompt"].to_list(),
        profiles=profiles,
        prompt_clusters=[cluster_of_prompt[text] for text in frame["prompt"]],
        people=frame["persona"].to_list() if people_known else None,
        owners=frame["owner"].to_list(),
        kinds=[dimension or "overall" for dimension in frame["dimension"]],
        why_no_profiles=pairs.why_no_profiles,
        judge_labels=_why_no_judge(pairs.manifest) or frame["p_chosen"].to_list(),
    )


def _why_no_judge(manifest: Manifest | None) -> str:
    """Reason why the pairs do not show what a judge chooses, or an empty text if they do. The
    judge must not have decided which comparisons became pairs."""
    if manifest is None:
        return "the dataset does not state how a judge decided"
    labels = manifest["recipe"]["labels"]
    if labels["by"] != "construction":
        return "the labels are not by construction"
    return (
        ""
        if labels["verify"] == "none"
        else "the judge decided which comparisons became pairs (labels.verify)"
    )


def _measure_family(
    rows: _ScoredPairs, family: ScorerFamily, texts: AnswerFeatures
) -> tuple[Results, Results]:
    """Measure one family on the labels and on the choices of the judge. `texts` are the
    features of all pairs in the family `text`."""
    if rows.profiles is None:
        reason = not_measured(
            rows.why_no_profiles
            or "there are no profiles of the people: name their columns "
            "(--columns profile=COLUMN)"
        )
        return {"bits": reason}, {"bits": reason}
    selected = rows.rows_within(family.max_texts)
    try:
        sides = (
            texts
            if family.features is features.text_family
            else _answer_features(rows, selected, family.features)
        )
    except (
        ModelError
    ) as problem:  # a family without its model reports that; the other families go on
        reason = not_measured(str(problem).rstrip("."))
        return {"bits": reason}, {"bits": reason}
    arrays = {
        "profiles": rows.profiles[selected],
        "near": np.asarray(rows.prompt_clusters)[selected],
        "people": np.asarray(
            rows.people if rows.people is not None else rows.prompt_clusters,
            dtype=object,
        )[selected],
        "owners": np.asarray(rows.owners, dtype=object)[selected],
        "kinds": np.asarray(rows.kinds, dtype=object)[selected],
    }

    def told(chosen: Array, rejected: Array, part: Array, held_out_by: str) -> Results:
        part_arrays = {name: values[part] for name, values in arrays.items()}
        if held_out_by == "people":
            reason = _why_no_held_out_people(
                part_arrays["people"], part_arrays["profiles"]
            )
            if reason:
                return {"bits": not_measured(reason)}
        return information.measure(
            chosen,
            rejected,
            part_arrays["profiles"],
            part_arrays[held_out_by],
            part_arrays["owners"],
            part_arrays["kinds"],
        )

    everything = np.arange(len(selected))
    unknown = {"bits": not_measured("it is not known who prefers")}
    labels = {
        "prompts": told(*sides, everything, "near"),
        "people": told(*sides, everything, "people")
        if rows.people is not None
        else unknown,
    }
    if isinstance(rows.judge_labels, str):
        return labels, {"bits": not_measured(rows.judge_labels)}
    p_chosen = np.array(
        [
            rows.judge_labels[row] if rows.judge_labels[row] is not None else 0.5
            for row in selected
        ],
        dtype=float,
    )
    decided = np.flatnonzero(p_chosen != 0.5)
    if len(decided) < information.MIN_PAIRS:
        too_few = (
            f"a judge decided {len(decided)} of the pairs that were scored; the "
            f"minimum is {information.MIN_PAIRS}"
        )
        return labels, {"bits": not_measured(too_few)}
    swapped = (p_chosen[decided] < 0.5)[:, None]
    chosen_features, rejected_features = (side[decided] for side in sides)
    judge = told(
        np.where(swapped, rejected_features, chosen_features),
        np.where(swapped, chosen_features, rejected_features),
        decided,
        "near",
    )
    return labels, {
        "judge": judge,
        "labels": told(chosen_features, rejected_features, decided, "near"),
        "pairs": len(decided),
    }


def _why_no_held_out_people(people: Array, profiles: Array) -> str:
    """The reason why nothing can be said about held-out people; empty if something can: there
    must be some to hold out, and they must share something with the others."""
    names, first_rows = np.unique(people.astype(str), return_index=True)
    if len(names) < figures.MIN_CLUSTERS:
        return (
            f"{len(names)} people are too few to hold some out; the minimum is "
            f"{figures.MIN_CLUSTERS}"
        )
    for column in profiles[first_rows].T:
        counts = Counter(column.tolist())
        # a number generalises, and so does a trait that at least two people have or lack
        if len(counts) > MAX_TRAIT_VALUES or (
            len(counts) > 1 and min(counts.values()) > 1
        ):
            return ""
    return "each profile belongs to one person"


def _answer_features(
    rows: _ScoredPairs, selected: Array, features_of: FeatureFunction
) -> AnswerFeatures:
    """Features of the chosen and of the rejected answers; each different text is read once."""
    pairs = [(rows.chosen[row], rows.rejected[row]) for row in selected]
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    index = {text: number for number, text in enumerate(texts)}
    vectors = features_of(texts)
    return vectors[[index[chosen] for chosen, _ in pairs]], vectors[
        [index[rejected] for _, rejected in pairs]
    ]


def _waterfall(rows: _ScoredPairs, texts: AnswerFeatures) -> Results:
    unique_prompts = list(dict.fromkeys(rows.prompts))
    index = {text: number for number, text in enumerate(unique_prompts)}
    words = (
        features.words(unique_prompts, 8)
        if len(unique_prompts) > 20
        else np.zeros((len(unique_prompts), 1))
    )
    prompts = words[[index[text] for text in rows.prompts]]
    return shortcuts.waterfall(
        *texts, prompts, rows.profiles, rows.prompt_clusters, rows.owners, rows.kinds
    )
