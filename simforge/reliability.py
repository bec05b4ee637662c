"""Reliability: what a judge's verdicts are worth, read off the verdicts themselves.

A judge that was asked in both orders has answered every comparison twice. If what stands first is the better answer, it
says `first` with the probability s; if it is the worse, with f. Then both orders give `first` with s f, and both give
`second` with (1 - s)(1 - f), whatever the truth is: two equations that give s and f without a single trusted label.
s = f is a judge without information; s = 1 - f one without a leaning to a place.

    noise = Noise.of(counts)     noise.log_odds("first", "second") -> how far `a` can be trusted to be better

This is Dawid and Skene's model (1979) for one rater seen twice. It takes the errors of the two orders for independent:
what a judge gets wrong in both orders alike is not seen, so its noise is at least what is said here.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simforge.types import Choice, Told

ENOUGH = 100
"Comparisons in both orders from which a judge's noise is estimated; fewer say too little."
TINY = 1e-3
"Share of errors below which none is believed in."
TELLING = 30
"Comparisons in both orders from which a judge is said to inform or not."
Z = 1.96
"Standard errors of a 95 % interval."
Counts = Mapping[tuple[str, str], int]
"How often a judge gave which two verdicts (with `a` first, with `b` first)."


@dataclass(frozen=True, slots=True)
class Noise:
    """How a judge errs."""

    right: float
    "s: probability of `first` where the first is better."
    wrong: float
    "f: probability of `first` where the second is better."

    @classmethod
    def of(cls, counts: Counts) -> Noise | None:
        """The noise behind decided verdicts; `None` where there are too few. A judge whose two orders agree no more
        than chance would is one without information: s = f."""
        decided = {key: count for key, count in counts.items() if {*key} <= {"first", "second"}}
        total = sum(decided.values())
        if total < ENOUGH:
            return None
        both_first = decided.get(("first", "first"), 0) / total
        both_second = decided.get(("second", "second"), 0) / total
        middle = (1 + both_first - both_second) / 2
        spread = math.sqrt(max(0.0, middle * middle - both_first))
        return cls(min(1.0, middle + spread), max(0.0, middle - spread))

    def log_odds(self, ab: str, ba: str) -> float:
        """Of `a` being better after these two verdicts, where nothing was known before: what the recipe knows of how
        `a` came about is not the judge's. A tie says nothing."""
        total = 0.0
        for said, sign in ((ab, 1.0), (ba, -1.0)):
            if said == "first":
                total += sign * math.log(max(self.right, TINY) / max(self.wrong, TINY))
            elif said == "second":
                total += sign * math.log(max(1 - self.right, TINY) / max(1 - self.wrong, TINY))
        return total


DARK = {"nobody": "nothing of the person", "stranger": "of a stranger", "trait": "the least telling trait"}
"What a judge was told where it was tested, in words."
_SWAPPED = {"first": "second", "second": "first"}


def counted(judgments: Iterable[Mapping[str, Any]]) -> dict[str, Counter[tuple[str, str]]]:
    """The pairs of verdicts of each judge that was asked in both orders and could be read, told the whole profile."""
    found: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for one in judgments:
        if one["method"] == "model" and one["told"] == Told.profile and one["verdict_ab"] and one["verdict_ba"]:
            found[one["judge"]][one["verdict_ab"], one["verdict_ba"]] += 1
    return {
        judge: Counter({key: n for key, n in table.items() if Choice.unreadable not in key})
        for judge, table in found.items()
    }


def calibrated(
    judgment: Mapping[str, Any], members: Sequence[Mapping[str, Any]], noise: Mapping[str, Noise]
) -> float | None:
    """A soft label for `a` that takes the judges' noise into account: for verdicts in words in both orders. Of a panel,
    whose members' errors are taken for independent. `None` where a judge gave probabilities, or is not known enough."""
    judges = [judgment] if judgment["method"] == "model" else list(members)
    if judgment["method"] not in ("model", "panel") or not judges:
        return None
    total = 0.0
    for one in judges:
        known = noise.get(one["judge"])
        if known is None or one["p_ab"] is not None or not one["verdict_ab"] or not one["verdict_ba"]:
            return None
        total += known.log_odds(one["verdict_ab"], one["verdict_ba"])
    return 1 / (1 + math.exp(-total))


def logit(p: float) -> float:
    inside = min(max(p, 1e-9), 1 - 1e-9)
    return math.log(inside / (1 - inside))


class Record:
    """What is known of all judges of a run, from its judgments as they come."""

    def __init__(self) -> None:
        self.verdicts: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        self._calls: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._tally: dict[str, Counter[str]] = defaultdict(Counter)
        self._graded: dict[str, _Correlation] = defaultdict(_Correlation)
        self._stable: dict[str, list[float]] = defaultdict(list)
        self._dark: dict[str, Counter[bool]] = defaultdict(Counter)
        self._panel: list[dict[str, float]] = []

    def add(self, judgments: Sequence[Mapping[str, Any]]) -> None:
        """Take note of whole dialogues' judgments."""
        for judge, table in counted(judgments).items():
            self.verdicts[judge].update(table)
        with_profile: dict[Any, str] = {}
        by_comparison: dict[Any, dict[str, float]] = defaultdict(dict)
        for one in judgments:
            if one["method"] not in ("model", "rating") or one["told"] != Told.profile:
                continue
            judge, tally = one["judge"], self._tally[one["judge"]]
            tally["comparisons"] += 1
            tally[one["outcome"]] += 1
            tally["repaired"] += one["repaired"]
            if one["stability"] is not None:
                self._stable[judge].append(one["stability"])
            key = (one["a"], one["b"], one["dimension"], one["persona_id"])
            with_profile[judge, key] = one["outcome"]
            if one["outcome"] in ("a", "b", "tie"):
                mark = {"a": 1.0, "b": 0.0, "tie": 0.5}[one["outcome"]]
                # `a` is mostly the own-steered answer: turned by their ids, which mean nothing, both are as common.
                by_comparison[key][judge] = mark if one["a"] < one["b"] else 1 - mark
            if one["verdict_ab"] and one["verdict_ba"] and "unreadable" not in (one["verdict_ab"], one["verdict_ba"]):
                self._place(one)
        self._panel += [marks for marks in by_comparison.values() if len(marks) > 1]
        for one in judgments:
            same = (one["judge"], (one["a"], one["b"], one["dimension"], one["persona_id"]))
            if one["told"] != Told.profile and one["method"] in ("model", "rating") and same in with_profile:
                self._dark[one["told"]][one["outcome"] == with_profile[same]] += 1

    def _place(self, one: Mapping[str, Any]) -> None:
        """Note how much a judge leans to what stands first: its probability where it gives one, else its words. Both
        orders are counted, so the better answer stands first as often as second."""
        words = {"first": 1.0, "second": 0.0, "tie": 0.5}
        leaning = self._calls[one["judge"]]
        given = one["p_ab"], one["p_ba"]
        if None not in given:
            self._graded[one["judge"]].add(given[0], 1 - given[1])
        said = (one["verdict_ab"], one["verdict_ba"])
        leaning[0] += sum(words[word] if p is None else p for word, p in zip(said, given, strict=True))
        leaning[1] += 2

    @property
    def noise(self) -> dict[str, Noise]:
        """By judge, where there is enough to say."""
        found = {judge: Noise.of(table) for judge, table in self.verdicts.items()}
        return {judge: one for judge, one in found.items() if one is not None}

    def summary(self) -> dict[str, Any] | None:
        """What a manifest says of the judges; `None` where no model judged."""
        if not self._tally:
            return None
        judges = {judge: self._about(judge, tally) for judge, tally in sorted(self._tally.items())}
        dark = {told: wilson(same[True], same.total()) for told, same in sorted(self._dark.items())}
        return {"judges": judges, "same_in_the_dark": dark, "panel": self._alpha()}

    def _about(self, judge: str, tally: Counter[str]) -> dict[str, Any]:
        table, noise = self.verdicts[judge], self.noise.get(judge)
        both = table.total()
        found: dict[str, Any] = {"comparisons": tally["comparisons"], "both_orders": both}
        outcomes = ("a", "b", "tie", "inconsistent", "unreadable")
        found["outcomes"] = {outcome: tally[outcome] for outcome in outcomes if tally[outcome]}
        found["repaired"] = tally["repaired"]
        if self._stable[judge]:
            found["stability"] = sum(self._stable[judge]) / len(self._stable[judge])
        if not both:
            return found
        same = sum(n for (ab, ba), n in table.items() if ab == _SWAPPED.get(ba, ba))
        words = Counter[str]()
        for key, count in table.items():
            for word in key:
                words[word] += count
        share = {word: count / words.total() for word, count in words.items()}
        chance = 2 * share.get("first", 0.0) * share.get("second", 0.0) + share.get("tie", 0.0) ** 2
        agreement = wilson(same, both)
        found |= {"agreement": agreement, "chance": chance, "corrected": _corrected(same, both, chance)}
        found["first"] = wilson(*self._calls[judge])
        if judge in self._graded:
            found["correlation"] = self._graded[judge].summary()
        if noise is not None:
            found["noise"] = {"first_if_better": noise.right, "first_if_worse": noise.wrong}
        return found

    def _alpha(self) -> dict[str, Any] | None:
        """Krippendorff's alpha of several judges' decisions, taken as ordered (one, tie, the other)."""
        if not self._panel:
            return None
        import krippendorff
        import numpy as np

        judges = sorted({judge for marks in self._panel for judge in marks})
        table = np.array([[marks.get(judge, np.nan) for marks in self._panel] for judge in judges])
        if len({mark for marks in self._panel for mark in marks.values()}) < 2:
            return {"judges": judges, "comparisons": len(self._panel), "alpha": None}
        alpha = krippendorff.alpha(reliability_data=table, level_of_measurement="ordinal")
        return {"judges": judges, "comparisons": len(self._panel), "alpha": float(alpha)}


class _Correlation:
    """Pearson's r of what a judge says of `a` in its two orders, as numbers come."""

    def __init__(self) -> None:
        self.n, self.x, self.y, self.xx, self.yy, self.xy = 0, 0.0, 0.0, 0.0, 0.0, 0.0

    def add(self, x: float, y: float) -> None:
        self.n, self.x, self.y = self.n + 1, self.x + x, self.y + y
        self.xx, self.yy, self.xy = self.xx + x * x, self.yy + y * y, self.xy + x * y

    def summary(self) -> dict[str, Any]:
        """r with its 95 % interval (Fisher); 0 where the judge always says the same."""
        n = self.n
        spread = (self.xx - self.x**2 / n) * (self.yy - self.y**2 / n)
        r = 0.0 if spread < 1e-12 else (self.xy - self.x * self.y / n) / math.sqrt(spread)
        if n < 4:
            return {"r": r, "n": n, "interval": [-1.0, 1.0]}
        middle, half = math.atanh(min(max(r, -0.999999), 0.999999)), Z / math.sqrt(n - 3)
        return {"r": r, "n": n, "interval": [math.tanh(middle - half), math.tanh(middle + half)]}


def informs(about: Mapping[str, Any]) -> bool | None:
    """Whether a judge's orders agree more than chance would have them, in words or in probabilities; `None` where it
    was not asked in both, or too seldom to tell."""
    if "corrected" not in about or about["both_orders"] < TELLING:
        return None
    graded = about.get("correlation")
    return about["corrected"]["interval"][0] > 0 or bool(graded and graded["interval"][0] > 0)


def said_of(judge: str, about: Mapping[str, Any]) -> str:
    """What there is to say of a judge, in a sentence or two."""
    if "agreement" not in about:
        outcomes = ", ".join(f"{name} {count}" for name, count in about["outcomes"].items())
        return f"{judge} judged {about['comparisons']} comparisons, each answer or order once: {outcomes}."
    low, high = about["first"]["interval"]
    text = (
        f"{judge} judged {about['both_orders']} comparisons in both orders: the same answer in "
        f"{about['agreement']['share']:.0%}, where chance would give {about['chance']:.0%}; "
        f"what stood first in {about['first']['share']:.0%} ({low:.0%} to {high:.0%})."
    )
    if informs(about) is None:
        return f"{text} That is too little to tell whether it carries information."
    if informs(about):
        if "noise" in about:
            wrong = (1 - about["noise"]["first_if_better"] + about["noise"]["first_if_worse"]) / 2
            text += f" It errs in about {wrong:.0%} of its calls, or more."
        return text
    return f"{text} THIS JUDGE CARRIES NO INFORMATION that can be told from chance: train on no label of its."


def _corrected(same: int, of: int, chance: float) -> dict[str, Any]:
    """Agreement beyond chance, as Cohen's kappa has it: 0 is chance, 1 is perfect."""
    low, high = wilson(same, of)["interval"]
    beyond = [(share - chance) / (1 - chance) if chance < 1 else 0.0 for share in (same / of, low, high)]
    return {"kappa": beyond[0], "interval": beyond[1:]}


def wilson(times: float, of: float) -> dict[str, Any]:
    """A share with its 95 % Wilson interval; `times` may be a sum of probabilities."""
    share, z2 = times / of, Z * Z
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return {"share": share, "n": of, "interval": [max(0.0, middle - half), min(1.0, middle + half)]}
