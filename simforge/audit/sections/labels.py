"""Labels: the quality of the judges, and the share of wrong labels that trusted ones certify."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simforge.audit import labels
from simforge.audit.drawing import BLUE, GREEN, INK, RED, draw_bars
from simforge.audit.figures import Figure, Results, measured, not_measured
from simforge.audit.sections import (
    CALIBRATION_SLACK,
    DOUBT,
    FAULT,
    GOOD,
    SIMFORGE_ONLY,
    AuditData,
    Chart,
    Finding,
    Row,
    Section,
    chance_text,
)
from simforge.judging.reliability import BLIND_CONTROLS
from simforge.types import ProfileShown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from simforge.dataset.manifest import Manifest


def _label_findings(section: Results) -> Iterator[Finding]:
    judges = section["judges"]
    weight = (
        FAULT if {*section["by"]} != {"construction"} else DOUBT
    )  # the judge decided no label
    for name, judge in judges.items() if "not_measured" not in judges else ():
        first, agreement = judge["first_shown"], judge["agreement"]
        if measured(first) and (
            first["interval"][0] > 0.6 or first["interval"][1] < 0.4
        ):
            frequency = f"{first['value']:.0%} of {first['n']} verdicts"
            yield (
                weight,
                f"A position bias: {_judge_name(name)} chooses the answer shown first "
                f"in {frequency}.",
            )
        if measured(agreement) and agreement["interval"][1] < 0.7:
            yield (
                weight,
                f"{_judge_name(name, True)} gives the same verdict in both orders in "
                f"only {agreement['value']:.0%} of {agreement['n']} questions; 85% "
                "would be good.",
            )
        elif measured(agreement) and agreement["interval"][0] >= 0.85:
            yield (
                GOOD,
                f"{_judge_name(name, True)} gives the same verdict in both orders in "
                f"{agreement['value']:.0%}.",
            )
    shared = section["families"]["shared"]
    if isinstance(shared, list) and shared and "not_measured" not in judges:
        roles = ", ".join(section["families"]["roles"])
        yield (
            DOUBT,
            f"One family of models ({', '.join(shared)}) plays {roles}: judges may "
            "prefer their own.",
        )


def _judge_quality(section: Results) -> Iterator[Finding]:
    """Findings on calibration and self-preference of the judges."""
    by_name = section.get("calibration", {})
    for name, entry in by_name.items() if "not_measured" not in by_name else ():
        overconfidence = entry["overconfidence"]
        if (
            measured(overconfidence)
            and max(overconfidence["interval"][0], -overconfidence["interval"][1])
            > CALIBRATION_SLACK
        ):
            text = (
                f"its mean confidence is {entry['confidence']['value']:.0%} and its "
                f"accuracy is {entry['accuracy']['value']:.0%}"
            )
            yield (
                DOUBT,
                f"The probabilities of {_judge_name(name)} are miscalibrated: {text} "
                f"in {overconfidence['n']} questions.",
            )
    by_name = section.get("self_preference", {})
    for name, entry in by_name.items() if "not_measured" not in by_name else ():
        if measured(entry) and entry["interval"][0] > 0.05:
            yield (
                FAULT,
                f"Self-preference: judges of the family {name} take its answers "
                f"{entry['value']:.0%} more often.",
            )


def _certified(certified: Results, consistency: Results) -> Iterator[Finding]:
    """Findings on certified labels, and on the consistency of the people."""
    coverage = certified.get("coverage", {})
    if coverage and "not_measured" not in coverage:
        text = ", ".join(
            f"at most {bound} in {figure['value']:.0%}"
            for bound, figure in coverage.items()
        )
        any_certified = any(figure["value"] > 0 for figure in coverage.values())
        yield (
            GOOD if any_certified else DOUBT,
            f"With {certified['trusted']} trusted labels, the share of wrong labels is "
            f"certified: {text} of the pairs.",
        )
    icc = consistency.get("icc", {})
    if measured(icc):
        same = consistency["same"]
        text = (
            f"they choose the same in {same['value']:.0%} of {same['n']} pairs, ICC "
            f"{icc['value']:.2f}"
        )
        yield (
            (GOOD if icc["interval"][0] > 0.5 else DOUBT),
            f"In another run of the same people {text}; ICC 0.5 is usable.",
        )


def _judge_name(name: str, capitalized: bool = False) -> str:
    return ("The" if capitalized else "the") + (
        " judge" if name == "judge" else f" judge {name}"
    )


def _rows(audit: Results) -> Iterator[tuple[str, list[Row]]]:
    judges, verdicts = audit["labels"]["judges"], audit.get("verdicts", {})
    calibration = verdicts.get("calibration", {})
    for name, entry in judges.items() if "not_measured" not in judges else ():
        rows: list[Row] = [
            ("same verdict in both orders", entry["agreement"], "0.85 and more"),
            (
                "agreement of both orders beyond chance (kappa)",
                entry["beyond_chance"],
                "above 0.5",
            ),
            ("chooses the answer shown first", entry["first_shown"], "0.5"),
            ("agrees with labels by construction", entry["with_construction"], "high"),
        ]
        if name in calibration:
            rows += [
                (
                    "accuracy, both orders combined",
                    calibration[name]["accuracy"],
                    "high",
                ),
                (
                    "overconfidence",
                    calibration[name]["overconfidence"],
                    "-0.05 to 0.05",
                ),
                (
                    "calibration error (ECE)",
                    calibration[name]["ece"],
                    chance_text(calibration[name]["ece"]),
                ),
                ("Brier score", calibration[name]["brier"], "below 0.25 (chance)"),
            ]
        yield "The judge" if name == "judge" else f"The judge {name}", rows
    rows = []
    for name, good in (("between", "high"), ("self_preference", "below 0.05")):
        section = verdicts.get(name, {})
        phrase = {
            "between": "agree",
            "self_preference": "chooses answers of its own family more often",
        }[name]
        for subject, entry in section.items() if "not_measured" not in section else ():
            rows.append(
                (
                    f"{subject} {phrase}"
                    if name == "between"
                    else f"a judge of {subject} {phrase}",
                    entry,
                    good,
                )
            )
    for profile_shown, share in audit["labels"].get("blind_controls", {}).items():
        agreement: Figure = {
            "value": share["share"],
            "n": share.get("n"),
            "interval": share["interval"],
        }
        rows.append(
            (
                f"the judge decides the same, given {BLIND_CONTROLS[ProfileShown(profile_shown)]}",
                agreement,
                "low, near chance",
            )
        )
    covered = audit.get("certified", {}).get("coverage", {})
    if "not_measured" in covered:
        rows.append(("labels with a certified error rate", covered, ""))
    else:
        rows += [
            (
                f"share of labels of which at most {bound} are wrong, at 90 % confidence",
                figure,
                "",
            )
            for bound, figure in covered.items()
        ]
    yield "Labels", rows


def _draw_position(axes: Axes, audit: Results, manifest: Manifest | None) -> bool:
    judges = audit["labels"]["judges"]
    rows = {
        name: judge["first_shown"]
        for name, judge in judges.items()
        if isinstance(judge, dict) and measured(judge["first_shown"])
    }
    if not rows:
        return False
    draw_bars(
        axes,
        rows,
        RED
        if any(not 0.4 < figure["value"] < 0.6 for figure in rows.values())
        else GREEN,
    )
    axes.axvline(0.5, color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_xlabel("chooses the answer shown first (0.5: no bias)")
    return True


def _draw_discards(axes: Axes, audit: Results, manifest: Manifest | None) -> bool:
    if manifest is None or not manifest["discards"]:
        return False
    kept = sum(manifest["counts"]["preferences"].values())
    rows = {
        "pairs": kept,
        **dict(sorted(manifest["discards"].items(), key=lambda item: -item[1])[:9]),
    }
    colours = [GREEN, *[BLUE] * (len(rows) - 1)]
    axes.barh(
        [name.replace("_", " ") for name in rows], list(rows.values()), color=colours
    )
    axes.invert_yaxis()
    axes.set_xlabel("comparisons and dialogues")
    return True


def _measure_quickly(data: AuditData) -> Results:
    manifest = data.pairs.manifest
    by = data.pairs.frame["label"].drop_nulls().value_counts(sort=True)
    return {
        "labels": {
            **labels.judges(manifest),
            "families": labels.model_families(manifest),
            "by": dict(by.iter_rows()),
        }
    }


def _measure(data: AuditData) -> Results:
    if data.pairs.manifest is None:
        quality = ("calibration", "self_preference", "between")
        return {
            "certified": {"coverage": not_measured(SIMFORGE_ONLY)},
            "verdicts": {name: not_measured(SIMFORGE_ONLY) for name in quality},
        }
    return {
        "certified": labels.certified_coverage(data.source, data.options.trusted),
        "verdicts": labels.judge_quality(data.source, data.pairs.manifest),
    }


def _findings(results: Results) -> Iterator[Finding]:
    yield from _label_findings(results["labels"])
    yield from _judge_quality(results.get("verdicts", {}))
    yield from _certified(results.get("certified", {}), results.get("consistency", {}))


SECTION = Section(
    order=3,
    quick=_measure_quickly,
    measure=_measure,
    findings=_findings,
    rows=_rows,
    charts=[
        Chart(
            "Position bias",
            "How often judges choose the answer shown first.",
            _draw_position,
            6,
        ),
        Chart(
            "Discards",
            "Pairs, and everything that was discarded, by reason.",
            _draw_discards,
            8,
        ),
    ],
)
