"""Scoring: what the scorers of each family make of a dataset's pairs.

Each family is held out two ways, by prompts and by people. Where a judge has looked at pairs whose labels are by
construction, the same is measured of its own choices, beside the labels of the same pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from simforge import clusters
from simforge.audit import features, information, shortcuts
from simforge.audit.figures import Array, not_measured
from simforge.audit.pairs import Pairs
from simforge.errors import ModelError, NotFound, UsageError

ROWS = 20_000
"Pairs that are scored at most, drawn at random."
Made = Callable[[Sequence[str]], Array]
Sides = tuple[Array, Array]
"Features of the chosen and of the rejected answers, a row a pair."


@dataclass(frozen=True)
class Family:
    """A way of seeing answers."""

    features: Made
    texts: int | None
    "Different answers that are looked at, at most; all of them where none is said."


FAMILIES = {
    "text": Family(features.text_family, None),
    "embeddings": Family(features.embedding_family, 6_000),
}
"By name."


@dataclass(frozen=True)
class _Rows:
    """Pairs as scorers take them."""

    chosen: list[str]
    rejected: list[str]
    prompts: list[str]
    profiles: Array | None
    near: Sequence[int]
    "The cluster of each pair's prompt."
    people: list[str] | None
    "Who prefers; none where it is not known of all."
    owners: list[str]
    "Of intervals."
    kinds: list[str]
    judge: list[float | None] | str
    "The judge's soft label for the chosen answer; or why they say nothing of the judge."

    def __len__(self) -> int:
        return len(self.chosen)

    def few(self, texts: int | None) -> Array:
        """Rows with at most so many different answers: whole prompts, so that those who share answers stay together."""
        near = np.asarray(self.near)
        found: list[Array] = []
        seen: set[str] = set()
        for one in np.random.default_rng(0).permutation(np.unique(near)):
            rows = np.flatnonzero(near == one)
            seen.update(text for row in rows for text in (self.chosen[row], self.rejected[row]))
            if texts is not None and len(seen) > texts and found:
                break
            found.append(rows)
        return np.sort(np.concatenate(found))


def measure(found: Pairs, families: Sequence[str] = tuple(FAMILIES)) -> dict[str, Any]:
    """`information` by family and way of holding out, `judged` (the judge's choices beside the labels), and the
    `waterfall`. Raises `UsageError`, `NotFound`."""
    for name in families:
        if name not in FAMILIES:
            raise NotFound("family of scorers", name, FAMILIES)
    try:
        import sklearn  # noqa: F401
    except ImportError:
        raise UsageError(
            'the audit needs scikit-learn: install SimForge with the extra report ("simforge[report]").'
        ) from None
    rows = _rows(found)
    texts = _sides(rows, np.arange(len(rows)), features.text_family)
    told: dict[str, Any] = {"information": {}, "judged": {}}
    for name in families:
        told["information"][name], told["judged"][name] = _family(rows, FAMILIES[name], texts)
    told["waterfall"] = _waterfall(rows, texts)
    return told


def _rows(found: Pairs) -> _Rows:
    frame, profiles = found.frame.with_columns(owner=pl.Series(found.owners)), found.profiles
    if frame.height > ROWS:
        drawn = np.sort(np.random.default_rng(0).choice(frame.height, ROWS, replace=False))
        frame, profiles = frame[drawn], None if profiles is None else profiles[drawn]
    known = not frame["persona"].null_count() and frame["persona"].n_unique() > 1
    asked = list(dict.fromkeys(frame["prompt"]))
    near = dict(zip(asked, clusters.of_prompts(asked), strict=True))
    return _Rows(
        chosen=frame["chosen"].to_list(),
        rejected=frame["rejected"].to_list(),
        prompts=frame["prompt"].to_list(),
        profiles=profiles,
        near=[near[text] for text in frame["prompt"]],
        people=frame["persona"].to_list() if known else None,
        owners=frame["owner"].to_list(),
        kinds=[one or "overall" for one in frame["dimension"]],
        judge=_unchosen(found.manifest) or frame["p_chosen"].to_list(),
    )


def _unchosen(manifest: dict[str, Any] | None) -> str:
    """Why the pairs do not show what a judge chooses; nothing where they do: it must not have had a say in which
    comparisons became pairs."""
    if manifest is None:
        return "the dataset does not say how a judge decided"
    labels = manifest["recipe"]["labels"]
    if labels["by"] != "construction":
        return "the labels are not by construction"
    return "" if labels["verify"] == "none" else "the judge decided which comparisons became pairs (labels.verify)"


def _family(rows: _Rows, family: Family, texts: Sides) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a family makes of the labels, and of the judge's choices; `texts` are all pairs by the family `text`."""
    if rows.profiles is None:
        reason = not_measured("nothing is known of who prefers: name the column of a profile")
        return {"bits": reason}, {"bits": reason}
    taken = rows.few(family.texts)
    try:
        sides = texts if family.features is features.text_family else _sides(rows, taken, family.features)
    except ModelError as problem:  # a family without its model says so; the others are not in need of it
        reason = not_measured(str(problem).rstrip("."))
        return {"bits": reason}, {"bits": reason}
    known = {
        "profiles": rows.profiles[taken],
        "near": np.asarray(rows.near)[taken],
        "people": np.asarray(rows.people if rows.people is not None else rows.near, dtype=object)[taken],
        "owners": np.asarray(rows.owners, dtype=object)[taken],
        "kinds": np.asarray(rows.kinds, dtype=object)[taken],
    }

    def told(one: Array, other: Array, part: Array, by: str) -> dict[str, Any]:
        about = {name: values[part] for name, values in known.items()}
        return information.measure(one, other, about["profiles"], about[by], about["owners"], about["kinds"])

    whole = np.arange(len(taken))
    unknown = {"bits": not_measured("it is not known who prefers")}
    labels = {
        "prompts": told(*sides, whole, "near"),
        "people": told(*sides, whole, "people") if rows.people is not None else unknown,
    }
    if isinstance(rows.judge, str):
        return labels, {"bits": not_measured(rows.judge)}
    said = np.array([rows.judge[row] if rows.judge[row] is not None else 0.5 for row in taken], dtype=float)
    decided = np.flatnonzero(said != 0.5)
    if len(decided) < information.LEAST:
        few = f"a judge decided {len(decided)} of the pairs that were scored; it takes {information.LEAST}"
        return labels, {"bits": not_measured(few)}
    turned = (said[decided] < 0.5)[:, None]
    one, other = (side[decided] for side in sides)
    judge = told(np.where(turned, other, one), np.where(turned, one, other), decided, "near")
    return labels, {"judge": judge, "labels": told(one, other, decided, "near"), "pairs": len(decided)}


def _sides(rows: _Rows, taken: Array, made: Made) -> Sides:
    """The features of the chosen and of the rejected answers, each different text seen once."""
    pairs = [(rows.chosen[row], rows.rejected[row]) for row in taken]
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    place = {text: number for number, text in enumerate(texts)}
    seen = made(texts)
    return seen[[place[one] for one, _ in pairs]], seen[[place[other] for _, other in pairs]]


def _waterfall(rows: _Rows, texts: Sides) -> dict[str, Any]:
    asked = list(dict.fromkeys(rows.prompts))
    at = {text: number for number, text in enumerate(asked)}
    words = features.words(asked, 8) if len(asked) > 20 else np.zeros((len(asked), 1))
    prompts = words[[at[text] for text in rows.prompts]]
    return shortcuts.waterfall(*texts, prompts, rows.profiles, rows.near, rows.owners, rows.kinds)
