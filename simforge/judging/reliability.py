"""Reliability: estimates how reliable a judge is, from its verdicts alone.

A judge that was asked in both orders has answered every question twice. Let s be the
probability that it says `first` when the answer shown first is better, and f that probability
when it is worse. Then, whatever the truth is, both orders give `first` with probability s f,
and both give `second` with (1 - s)(1 - f): two equations that yield s and f without a single
trusted label. A judge with s = f carries no information; one with s = 1 - f has no position
bias.

    noise = Noise.of(counts)
    noise.log_odds("first", "second")  ->  how far `a` can be trusted to be better

This is Dawid and Skene's model (1979) for one rater that answers twice. It assumes that the
errors of the two orders are independent. Errors that a judge makes in both orders cannot be
detected, so its true noise is at least the estimate. If several people want the same of the
same answers, that is one question and is counted once.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from simforge.judging.aggregation import SOFT_LABELS, VOTES
from simforge.types import JsonObject, Outcome, ProfileShown

MIN_NOISE_QUESTIONS = 100
"Questions asked in both orders that a noise estimate needs; with fewer there is no estimate."


MIN_QUESTIONS = 30
"Questions asked in both orders that are needed to say whether a judge is informative."


MIN_ERROR_RATE = 1e-3
"Floor on error rates: no smaller rate is believed."


Z_95 = 1.96
"Standard errors of a 95 % interval."


Z_SIGNIFICANT = 3.29
"Standard errors above chance that count as informative: luck gives one in two thousand runs."


BLIND_CONTROLS = {
    ProfileShown.nobody: "nothing about the person",
    ProfileShown.stranger: "a stranger's profile",
    ProfileShown.trait: "only the least informative trait",
}
"Description of each blind control: what the judge was shown about the person."


Row = Mapping[str, Any]
"A row of the table `judgments`."


VerdictCounts = Mapping[tuple[str, str], int]
"Counts of a judge's verdict pairs: (with `a` first, with `b` first)."


class Noise(NamedTuple):
    """Error rates of a judge."""

    first_if_better: float
    "s: probability of the verdict `first` when the first answer is better."
    first_if_worse: float
    "f: probability of the verdict `first` when the second answer is better."

    @classmethod
    def of(cls, counts: VerdictCounts) -> Noise | None:
        """Estimates the noise from decided verdicts; `None` if there are too few. If the
        judge's orders do not agree significantly more often than chance, s = f: otherwise the
        equations would take its luck for knowledge."""
        decided = {
            key: count for key, count in counts.items() if {*key} <= {"first", "second"}
        }
        total = sum(decided.values())
        if total < MIN_NOISE_QUESTIONS:
            return None
        both_first = decided.get(("first", "first"), 0) / total
        both_second = decided.get(("second", "second"), 0) / total
        middle = (1 + both_first - both_second) / 2
        if not order_agreement(decided)["corrected"]["significant"]:
            return cls(middle, middle)
        spread = math.sqrt(max(0.0, middle * middle - both_first))
        return cls(min(1.0, middle + spread), max(0.0, middle - spread))

    def log_odds(self, ab: str, ba: str) -> float:
        """Log odds that `a` is better, given these two verdicts and an even prior. The prior is
        even because what the recipe knows about how `a` was made is not the judge's knowledge.
        A tie adds nothing."""
        total = 0.0
        for word, sign in ((ab, 1.0), (ba, -1.0)):
            if word == "first":
                total += sign * math.log(
                    max(self.first_if_better, MIN_ERROR_RATE)
                    / max(self.first_if_worse, MIN_ERROR_RATE)
                )
            elif word == "second":
                total += sign * math.log(
                    max(1 - self.first_if_better, MIN_ERROR_RATE)
                    / max(1 - self.first_if_worse, MIN_ERROR_RATE)
                )
        return total


def order_agreement(counts: VerdictCounts) -> JsonObject:
    """Measures how often both orders give the same answer, how often they would by chance, and
    the agreement beyond chance (Cohen's kappa: 0 is chance, 1 is perfect)."""
    total = sum(counts.values())
    swapped = {"first": "second", "second": "first", "tie": "tie"}
    same = sum(count for (ab, ba), count in counts.items() if ab == swapped[ba])
    words = Counter[str]()
    for key, count in counts.items():
        for word in key:
            words[word] += count
    share = {word: count / words.total() for word, count in words.items()}
    chance = (
        2 * share.get("first", 0.0) * share.get("second", 0.0)
        + share.get("tie", 0.0) ** 2
    )
    agreement = wilson(same, total)
    kappas = [
        (bound - chance) / (1 - chance) if chance < 1 else 0.0
        for bound in (same / total, *agreement["interval"])
    ]
    corrected = {
        "kappa": kappas[0],
        "interval": kappas[1:],
        "significant": wilson(same, total, Z_SIGNIFICANT)["interval"][0] > chance,
    }
    return {"agreement": agreement, "chance": chance, "corrected": corrected}


def calibrated_label(
    judgment: Row, members: Sequence[Row], noise: Mapping[str, Noise]
) -> float | None:
    """Computes a soft label for `a` that accounts for the judges' noise. It needs one-word
    verdicts in both orders. For a panel, the members' errors are assumed to be independent.
    `None` if a judge gave probabilities or its noise is not known."""
    judges = (
        [judgment]
        if judgment["method"] == "model"
        else [member for member in members if member["outcome"] != "unreadable"]
    )
    if judgment["method"] not in ("model", "panel") or not judges:
        return None
    total = 0.0
    for row in judges:
        judge_noise = noise.get(row["role"])
        if (
            judge_noise is None
            or row["p_ab"] is not None
            or not row["verdict_ab"]
            or not row["verdict_ba"]
        ):
            return None
        total += judge_noise.log_odds(row["verdict_ab"], row["verdict_ba"])
    return 1 / (1 + math.exp(-total))


def logit(p: float) -> float:
    inside = min(max(p, 1e-9), 1 - 1e-9)
    return math.log(inside / (1 - inside))


class JudgeStatistics:
    """Statistics of all judges of a run, collected from its judgments as they arrive; by the
    judges' names in `models`."""

    def __init__(self) -> None:
        self._judges: dict[str, _SingleJudge] = defaultdict(_SingleJudge)
        self._blind_controls: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._panel: dict[str, dict[str, float]] = {}

    def add(self, rows: Sequence[Row]) -> None:
        """Adds the judgments of whole dialogues."""
        constructed = {
            _comparison_key(row): row["outcome"]
            for row in rows
            if row["method"] == "construction"
        }
        profile_rows = [
            row
            for row in rows
            if row["profile_shown"] == ProfileShown.profile
            and row["method"] != "construction"
        ]
        with_profile = {
            (row["role"], _comparison_key(row)): row["outcome"] for row in profile_rows
        }
        for row in profile_rows:
            if row["method"] == "weighted":
                continue
            self._judges[row["role"]].add(row, constructed.get(_comparison_key(row)))
            if row["outcome"] in SOFT_LABELS:
                # `a` is mostly the own-steered answer; ordering by id makes both sides as common.
                p_first_by_id = SOFT_LABELS[row["outcome"]]
                marks_by_role = self._panel.setdefault(row["question"], {})
                marks_by_role[row["role"]] = (
                    p_first_by_id if row["a"] < row["b"] else 1 - p_first_by_id
                )
        for row in rows:
            profile_outcome = with_profile.get((row["role"], _comparison_key(row)))
            if row["profile_shown"] != ProfileShown.profile and "unreadable" not in (
                row["outcome"],
                profile_outcome or "unreadable",
            ):
                self._blind_controls[row["profile_shown"]][0] += int(
                    row["outcome"] == profile_outcome
                )
                self._blind_controls[row["profile_shown"]][1] += 1

    @property
    def noise(self) -> dict[str, Noise]:
        """Estimated noise of each judge that has answered enough questions."""
        estimates = {
            role: Noise.of(judge.verdicts) for role, judge in self._judges.items()
        }
        return {role: noise for role, noise in estimates.items() if noise is not None}

    @property
    def uninformative(self) -> set[str]:
        """Judges that have been shown to carry no information."""
        return {
            role
            for role, judge in self._judges.items()
            if is_informative(judge.summary()) is False
        }

    def summary(self) -> JsonObject | None:
        """Summary of the judges for the manifest; `None` if no model judged."""
        if not self._judges:
            return None
        blind_shares = {
            shown: wilson(*self._blind_controls[shown])
            for shown in BLIND_CONTROLS
            if shown in self._blind_controls
        }
        judges = {role: judge.summary() for role, judge in sorted(self._judges.items())}
        return {
            "judges": judges,
            "blind_agreement": blind_shares,
            "panel": self._alpha(),
        }

    def _alpha(self) -> JsonObject | None:
        """Computes Krippendorff's alpha over the judges' outcomes, on an ordinal scale (one,
        undecided, the other)."""
        if len(self._judges) < 2:
            return None
        import krippendorff
        import numpy as np

        marks, judges = list(self._panel.values()), sorted(self._judges)
        table = np.array(
            [
                [question_marks.get(judge, np.nan) for question_marks in marks]
                for judge in judges
            ]
        )
        varied = len(
            {mark for question_marks in marks for mark in question_marks.values()}
        ) > 1 and any(len(question_marks) > 1 for question_marks in marks)
        alpha = (
            krippendorff.alpha(table, level_of_measurement="ordinal")
            if varied
            else None
        )
        return {
            "judges": judges,
            "questions": len(marks),
            "alpha": None if alpha is None else float(alpha),
        }


class _SingleJudge:
    """Statistics of one judge. Each question counts once, however many people ask it."""

    def __init__(self) -> None:
        self.model = ""
        self.verdicts: Counter[tuple[str, str]] = Counter()
        self._seen: set[str] = set()
        self._judgments = 0
        self._outcomes: Counter[str] = Counter()
        self._repaired = 0
        self._first_chosen = [0.0, 0]
        self._stability = [0.0, 0]
        self._constructed = [0, 0]
        self._p_correlation = _Correlation()
        self._ratings: dict[tuple[Any, ...], float] = {}
        "Rating of each answer, if the judge rates answers."
        self._comparisons_by_rating = 0
        self._asked_in_both_orders = False

    def add(self, row: Row, constructed: str | None) -> None:
        self.model, self._judgments = row["judge"], self._judgments + 1
        if row["question"] in self._seen:
            return
        self._seen.add(row["question"])
        self._outcomes[row["outcome"]] += 1
        self._repaired += row["repaired"]
        if row["stability"] is not None:
            self._stability = [
                self._stability[0] + row["stability"],
                self._stability[1] + 1,
            ]
        if constructed is not None and row["outcome"] in ("a", "b"):
            self._constructed = [
                self._constructed[0] + (row["outcome"] == constructed),
                self._constructed[1] + 1,
            ]
        if row["method"] == "rating":
            self._comparisons_by_rating += 1
            for side in ("a", "b"):
                if row[f"value_{side}"] is not None:
                    key = (row[side], row["dimension"], row["persona_id"])
                    self._ratings[key] = row[f"value_{side}"]
        ab, ba = row["verdict_ab"], row["verdict_ba"]
        self._asked_in_both_orders |= ab is not None and ba is not None
        for word, p in ((ab, row["p_ab"]), (ba, row["p_ba"])):
            if word in VOTES:
                self._first_chosen = [
                    self._first_chosen[0] + (VOTES[word] if p is None else p),
                    self._first_chosen[1] + 1,
                ]
        if ab in VOTES and ba in VOTES:
            self.verdicts[ab, ba] += 1
            if row["p_ab"] is not None and row["p_ba"] is not None:
                self._p_correlation.add(row["p_ab"], 1 - row["p_ba"])

    def _rating_figures(self) -> JsonObject:
        """Figures of ratings: how many, how they spread, and how often they tie."""
        values = list(self._ratings.values())
        count = len(values)
        mean = sum(values) / count if count else 0.0
        variance = (
            sum((value - mean) ** 2 for value in values) / count if count else 0.0
        )
        return {
            "answers": count,
            "mean": mean,
            "deviation": math.sqrt(variance),
            "different": len(set(values)),
            "ties": wilson(self._outcomes[Outcome.tie], self._comparisons_by_rating),
        }

    def summary(self) -> JsonObject:
        figures: JsonObject = {
            "model": self.model,
            "judgments": self._judgments,
            "questions": len(self._seen),
            "both_orders": self.verdicts.total(),
            "outcomes": {
                name.value: self._outcomes[name]
                for name in Outcome
                if self._outcomes[name]
            },
            "repaired": self._repaired,
            "asked_in_both_orders": self._asked_in_both_orders,
        }
        if self._comparisons_by_rating:
            figures["rated"] = self._rating_figures()
        if self._first_chosen[1]:
            figures["first"] = wilson(*self._first_chosen)
        if self._stability[1]:
            figures["stability"] = self._stability[0] / self._stability[1]
        if self._constructed[1]:
            figures["agrees_with_construction"] = wilson(*self._constructed)
        if self.verdicts:
            figures |= order_agreement(self.verdicts)
        if self._p_correlation.n:
            figures["correlation"] = self._p_correlation.summary()
        noise = Noise.of(self.verdicts)
        if noise is not None:
            figures["noise"] = {
                "first_if_better": noise.first_if_better,
                "first_if_worse": noise.first_if_worse,
            }
        return figures


class _Correlation:
    """Running Pearson correlation between a judge's probabilities for `a` in its two orders."""

    def __init__(self) -> None:
        self.n, self.x, self.y, self.xx, self.yy, self.xy = 0, 0.0, 0.0, 0.0, 0.0, 0.0

    def add(self, x: float, y: float) -> None:
        self.n, self.x, self.y = self.n + 1, self.x + x, self.y + y
        self.xx, self.yy, self.xy = self.xx + x * x, self.yy + y * y, self.xy + x * y

    def summary(self) -> JsonObject:
        """Returns r with its 95 % interval (Fisher); r is 0 if the judge's probability never
        changes."""
        n = self.n
        spread = (self.xx - self.x**2 / n) * (self.yy - self.y**2 / n)
        r = (
            0.0
            if spread < 1e-12
            else (self.xy - self.x * self.y / n) / math.sqrt(spread)
        )
        if n < 4:
            return {"r": r, "n": n, "interval": [-1.0, 1.0], "significant": False}
        middle, error = (
            math.atanh(min(max(r, -0.999999), 0.999999)),
            1 / math.sqrt(n - 3),
        )
        interval = [math.tanh(middle - Z_95 * error), math.tanh(middle + Z_95 * error)]
        return {
            "r": r,
            "n": n,
            "interval": interval,
            "significant": middle > Z_SIGNIFICANT * error,
        }


def is_informative(summary: Mapping[str, Any]) -> bool | None:
    """Returns whether a judge's orders agree significantly more often than chance, in words or
    in probabilities; `None` if too few questions were asked in both orders."""
    if summary["both_orders"] < MIN_QUESTIONS:
        return None
    return bool(
        summary["corrected"]["significant"]
        or summary.get("correlation", {}).get("significant")
    )


def describe(judge: str, summary: Mapping[str, Any]) -> str:
    """Describes a judge's reliability in a few sentences."""
    name = f"{judge} ({summary['model']})"
    if summary.get("rated"):
        return _describe_ratings(name, summary)
    if not summary["both_orders"]:
        outcomes = ", ".join(
            f"{outcome} {count}" for outcome, count in summary["outcomes"].items()
        )
        first = (
            f" It chose the answer shown first in {_percent_with_interval(summary['first'])}."
            if "first" in summary
            else ""
        )
        if not summary["asked_in_both_orders"]:
            return (
                f"{name} answered {_questions(summary['questions'])} in one order only, as the "
                f"recipe says: {outcomes}.{first} Its reliability is not measured."
            )
        return (
            f"{name} answered {_questions(summary['questions'])}, none of them readably "
            f"in both orders: {outcomes}.{first} That is too little to "
            "estimate its reliability."
        )
    text = (
        f"{name} answered {_questions(summary['both_orders'])} in both orders: with the "
        f"same result in {_percent_with_interval(summary['agreement'])}, where chance "
        f"would give {summary['chance']:.0%}; it chose the answer shown first in "
        f"{_percent_with_interval(summary['first'])}."
    )
    if "agrees_with_construction" in summary:
        text += (
            " Where it decided, it agreed with the label by construction in "
            f"{_percent_with_interval(summary['agrees_with_construction'])}."
        )
    if is_informative(summary) is None:
        return f"{text} That is too little to tell whether it carries information."
    if not is_informative(summary):
        return (
            f"{text} THIS JUDGE CARRIES NO INFORMATION: it cannot be told from chance. "
            "Do not train on its labels."
        )
    if "noise" in summary and "correlation" not in summary:
        error_rate = (
            1 - summary["noise"]["first_if_better"] + summary["noise"]["first_if_worse"]
        ) / 2
        text += f" It is wrong in at least about {error_rate:.0%} of its calls."
    return text


def _describe_ratings(name: str, summary: Mapping[str, Any]) -> str:
    """Describe a judge that rates answers one by one: it has no orders that could differ."""
    rated = summary["rated"]
    text = f"{name} rated {rated['answers']} answers"
    if rated["answers"]:
        text += (
            f": on average {rated['mean']:.0f}, standard deviation "
            f"{rated['deviation']:.0f}, {rated['different']} different values; two answers got "
            f"the same rating in {_percent_with_interval(rated['ties'])}"
        )
    unreadable = summary["outcomes"].get("unreadable", 0)
    if unreadable:
        text += f"; {unreadable} ratings could not be read"
    if "stability" in summary:
        text += f"; asked again, it gave the same in {summary['stability']:.0%}"
    if "agrees_with_construction" in summary:
        text += (
            "; where it decided, it agreed with the label by construction in "
            f"{_percent_with_interval(summary['agrees_with_construction'])}"
        )
    return f"{text}."


def _questions(count: int) -> str:
    return f"{count} question{'' if count == 1 else 's'}"


def _percent_with_interval(share: Mapping[str, Any]) -> str:
    low, high = share["interval"]
    return f"{share['share']:.0%} ({low:.0%} to {high:.0%})"


def _comparison_key(row: Row) -> tuple[Any, ...]:
    return (row["a"], row["b"], row["dimension"], row["persona_id"])


def wilson(count: float, total: float, z: float = Z_95) -> JsonObject:
    """Computes a share with its Wilson interval, 95 % by default; the count may be a sum of
    probabilities."""
    if not total:
        return {"share": 0.0, "n": 0, "interval": [0.0, 1.0]}
    share, z2 = count / total, z * z
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = (
        z
        * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
        / (1 + z2 / total)
    )
    return {
        "share": share,
        "n": total,
        "interval": [max(0.0, middle - half), min(1.0, middle + half)],
    }
