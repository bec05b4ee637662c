"""Reliability: what a judge's verdicts are worth, read off the verdicts themselves.

A judge that was asked in both orders has answered every question twice. If what stands first is the better answer, it
says `first` with the probability s; if it is the worse, with f. Then both orders give `first` with s f, and both give
`second` with (1 - s)(1 - f), whatever the truth is: two equations that give s and f without a single trusted label.
s = f is a judge without information; s = 1 - f one without a leaning to a place.

    noise = Noise.of(counts)     noise.log_odds("first", "second") -> how far `a` can be trusted to be better

This is Dawid and Skene's model (1979) for one rater seen twice. It takes the errors of the two orders for independent:
what a judge gets wrong in both orders alike is not seen, so its noise is at least what is said here. People who want
the same of the same answers ask one question; it is counted once.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from simforge.judgments import SOFT, VOTES
from simforge.types import Outcome, Told

ENOUGH = 100
"Questions in both orders from which a judge's noise is estimated; fewer say too little."
TELLING = 30
"Questions in both orders from which a judge is said to inform or not."
TINY = 1e-3
"Share of errors below which none is believed in."
Z = 1.96
"Standard errors of a 95 % interval."
SURE = 3.29
"Standard errors by which a judge must beat chance before it is said to inform: luck does so once in two thousand runs."
DARK = {Told.nobody: "nothing of the person", Told.stranger: "of a stranger", Told.trait: "the least telling trait"}
"What a judge was told where it was tested, in words."
Row = Mapping[str, Any]
"A row of `judgments`."
Counts = Mapping[tuple[str, str], int]
"How often a judge gave which two verdicts (with `a` first, with `b` first)."


class Noise(NamedTuple):
    """How a judge errs."""

    right: float
    "s: probability of `first` where the first is better."
    wrong: float
    "f: probability of `first` where the second is better."

    @classmethod
    def of(cls, counts: Counts) -> Noise | None:
        """The noise behind decided verdicts; `None` where there are too few. Of a judge whose orders do not agree by
        more than chance, s = f: the equations would take its luck for knowledge."""
        decided = {key: count for key, count in counts.items() if {*key} <= {"first", "second"}}
        total = sum(decided.values())
        if total < ENOUGH:
            return None
        both_first = decided.get(("first", "first"), 0) / total
        both_second = decided.get(("second", "second"), 0) / total
        middle = (1 + both_first - both_second) / 2
        if not agreeing(decided)["corrected"]["sure"]:
            return cls(middle, middle)
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


def agreeing(counts: Counts) -> dict[str, Any]:
    """How often both orders give the same answer, what chance would give, and what is beyond it (Cohen's kappa: 0 is
    chance, 1 is perfect)."""
    of = sum(counts.values())
    turned = {"first": "second", "second": "first", "tie": "tie"}
    same = sum(n for (ab, ba), n in counts.items() if ab == turned[ba])
    words = Counter[str]()
    for key, count in counts.items():
        for word in key:
            words[word] += count
    share = {word: count / words.total() for word, count in words.items()}
    chance = 2 * share.get("first", 0.0) * share.get("second", 0.0) + share.get("tie", 0.0) ** 2
    agreement = wilson(same, of)
    kappas = [(one - chance) / (1 - chance) if chance < 1 else 0.0 for one in (same / of, *agreement["interval"])]
    corrected = {"kappa": kappas[0], "interval": kappas[1:], "sure": wilson(same, of, SURE)["interval"][0] > chance}
    return {"agreement": agreement, "chance": chance, "corrected": corrected}


def calibrated(judgment: Row, members: Sequence[Row], noise: Mapping[str, Noise]) -> float | None:
    """A soft label for `a` that takes the judges' noise into account: for verdicts in words in both orders. Of a panel,
    whose members' errors are taken for independent. `None` where a judge gave probabilities, or is not known enough."""
    judges = [judgment] if judgment["method"] == "model" else [one for one in members if one["outcome"] != "unreadable"]
    if judgment["method"] not in ("model", "panel") or not judges:
        return None
    total = 0.0
    for one in judges:
        known = noise.get(one["role"])
        if known is None or one["p_ab"] is not None or not one["verdict_ab"] or not one["verdict_ba"]:
            return None
        total += known.log_odds(one["verdict_ab"], one["verdict_ba"])
    return 1 / (1 + math.exp(-total))


def logit(p: float) -> float:
    inside = min(max(p, 1e-9), 1 - 1e-9)
    return math.log(inside / (1 - inside))


class Record:
    """What is known of all judges of a run, from its judgments as they come; by their names in `models`."""

    def __init__(self) -> None:
        self._judges: dict[str, _Judge] = defaultdict(_Judge)
        self._dark: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._panel: dict[str, dict[str, float]] = {}

    def add(self, rows: Sequence[Row]) -> None:
        """Take note of whole dialogues' judgments."""
        constructed = {_compared(one): one["outcome"] for one in rows if one["method"] == "construction"}
        told_all = [one for one in rows if one["told"] == Told.profile and one["method"] != "construction"]
        with_profile = {(one["role"], _compared(one)): one["outcome"] for one in told_all}
        for one in told_all:
            if one["method"] == "weighted":
                continue
            self._judges[one["role"]].add(one, constructed.get(_compared(one)))
            if one["outcome"] in SOFT:
                # `a` is mostly the own-steered answer: turned by their ids, which mean nothing, both are as common.
                mark = SOFT[one["outcome"]]
                marks = self._panel.setdefault(one["question"], {})
                marks[one["role"]] = mark if one["a"] < one["b"] else 1 - mark
        for one in rows:
            known = with_profile.get((one["role"], _compared(one)))
            if one["told"] != Told.profile and "unreadable" not in (one["outcome"], known or "unreadable"):
                self._dark[one["told"]][0] += int(one["outcome"] == known)
                self._dark[one["told"]][1] += 1

    @property
    def noise(self) -> dict[str, Noise]:
        """By judge, where there is enough to say."""
        found = {role: Noise.of(judge.verdicts) for role, judge in self._judges.items()}
        return {role: one for role, one in found.items() if one is not None}

    @property
    def uninformed(self) -> set[str]:
        """Judges of which it is seen that they carry no information."""
        return {role for role, judge in self._judges.items() if informs(judge.summary()) is False}

    def summary(self) -> dict[str, Any] | None:
        """What a manifest says of the judges; `None` where no model judged."""
        if not self._judges:
            return None
        dark = {told: wilson(*self._dark[told]) for told in DARK if told in self._dark}
        judges = {role: judge.summary() for role, judge in sorted(self._judges.items())}
        return {"judges": judges, "same_in_the_dark": dark, "panel": self._alpha()}

    def _alpha(self) -> dict[str, Any] | None:
        """Krippendorff's alpha of several judges' outcomes, taken as ordered (one, undecided, the other)."""
        if len(self._judges) < 2:
            return None
        import krippendorff
        import numpy as np

        marks, judges = list(self._panel.values()), sorted(self._judges)
        table = np.array([[one.get(judge, np.nan) for one in marks] for judge in judges])
        several = len({mark for one in marks for mark in one.values()}) > 1 and any(len(one) > 1 for one in marks)
        alpha = krippendorff.alpha(table, level_of_measurement="ordinal") if several else None
        return {"judges": judges, "questions": len(marks), "alpha": None if alpha is None else float(alpha)}


class _Judge:
    """What is known of one judge. Each question counts once, however many people ask it."""

    def __init__(self) -> None:
        self.model = ""
        self.verdicts: Counter[tuple[str, str]] = Counter()
        self._seen: set[str] = set()
        self._judgments = 0
        self._outcomes: Counter[str] = Counter()
        self._repaired = 0
        self._first = [0.0, 0]
        self._stable = [0.0, 0]
        self._constructed = [0, 0]
        self._graded = _Correlation()

    def add(self, one: Row, constructed: str | None) -> None:
        self.model, self._judgments = one["judge"], self._judgments + 1
        if one["question"] in self._seen:
            return
        self._seen.add(one["question"])
        self._outcomes[one["outcome"]] += 1
        self._repaired += one["repaired"]
        if one["stability"] is not None:
            self._stable = [self._stable[0] + one["stability"], self._stable[1] + 1]
        if constructed is not None and one["outcome"] in ("a", "b"):
            self._constructed = [self._constructed[0] + (one["outcome"] == constructed), self._constructed[1] + 1]
        ab, ba = one["verdict_ab"], one["verdict_ba"]
        for word, p in ((ab, one["p_ab"]), (ba, one["p_ba"])):
            if word in VOTES:
                self._first = [self._first[0] + (VOTES[word] if p is None else p), self._first[1] + 1]
        if ab in VOTES and ba in VOTES:
            self.verdicts[ab, ba] += 1
            if one["p_ab"] is not None and one["p_ba"] is not None:
                self._graded.add(one["p_ab"], 1 - one["p_ba"])

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "model": self.model,
            "judgments": self._judgments,
            "questions": len(self._seen),
            "both_orders": self.verdicts.total(),
            "outcomes": {name.value: self._outcomes[name] for name in Outcome if self._outcomes[name]},
            "repaired": self._repaired,
        }
        if self._first[1]:
            found["first"] = wilson(*self._first)
        if self._stable[1]:
            found["stability"] = self._stable[0] / self._stable[1]
        if self._constructed[1]:
            found["as_constructed"] = wilson(*self._constructed)
        if self.verdicts:
            found |= agreeing(self.verdicts)
        if self._graded.n:
            found["correlation"] = self._graded.summary()
        noise = Noise.of(self.verdicts)
        if noise is not None:
            found["noise"] = {"first_if_better": noise.right, "first_if_worse": noise.wrong}
        return found


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
            return {"r": r, "n": n, "interval": [-1.0, 1.0], "sure": False}
        middle, error = math.atanh(min(max(r, -0.999999), 0.999999)), 1 / math.sqrt(n - 3)
        interval = [math.tanh(middle - Z * error), math.tanh(middle + Z * error)]
        return {"r": r, "n": n, "interval": interval, "sure": middle > SURE * error}


def informs(about: Mapping[str, Any]) -> bool | None:
    """Whether a judge's orders agree well beyond chance, in words or in probabilities; `None` where it was not asked in
    both, or too seldom to tell."""
    if about["both_orders"] < TELLING:
        return None
    return bool(about["corrected"]["sure"] or about.get("correlation", {}).get("sure"))


def said_of(judge: str, about: Mapping[str, Any]) -> str:
    """What there is to say of a judge, in a few sentences."""
    name = f"{judge} ({about['model']})"
    if not about["both_orders"]:
        outcomes = ", ".join(f"{outcome} {count}" for outcome, count in about["outcomes"].items())
        first = f" It took what stood first in {_percent(about['first'])}." if "first" in about else ""
        return (
            f"{name} answered {about['questions']} questions, none of them readably in both orders: {outcomes}.{first} "
            "What its verdicts are worth cannot be told from that."
        )
    text = (
        f"{name} answered {about['both_orders']} questions in both orders: the same in {_percent(about['agreement'])}, "
        f"where chance would give {about['chance']:.0%}; what stood first in {_percent(about['first'])}."
    )
    if "as_constructed" in about:
        text += f" Where it decided, it agreed with the label by construction in {_percent(about['as_constructed'])}."
    if informs(about) is None:
        return f"{text} That is too little to tell whether it carries information."
    if not informs(about):
        return f"{text} THIS JUDGE CARRIES NO INFORMATION that can be told from chance: train on no label of its."
    if "noise" in about and "correlation" not in about:
        wrong = (1 - about["noise"]["first_if_better"] + about["noise"]["first_if_worse"]) / 2
        text += f" It errs in about {wrong:.0%} of its calls, or more."
    return text


def _percent(share: Mapping[str, Any]) -> str:
    low, high = share["interval"]
    return f"{share['share']:.0%} ({low:.0%} to {high:.0%})"


def _compared(one: Row) -> tuple[Any, ...]:
    return (one["a"], one["b"], one["dimension"], one["persona_id"])


def wilson(times: float, of: float, errors: float = Z) -> dict[str, Any]:
    """A share with its Wilson interval, of 95 % unless told otherwise; `times` may be a sum of probabilities."""
    if not of:
        return {"share": 0.0, "n": 0, "interval": [0.0, 1.0]}
    share, z2 = times / of, errors * errors
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = errors * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return {"share": share, "n": of, "interval": [max(0.0, middle - half), min(1.0, middle + half)]}
