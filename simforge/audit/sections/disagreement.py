"""Disagreement: whether people want different answers at all, and whether they stay with their
choice."""

from __future__ import annotations

from collections.abc import Iterator

from simforge.audit import disagreement
from simforge.audit.figures import Results, measured, not_measured
from simforge.audit.sections import DOUBT, FAULT, GOOD, AuditData, Finding, Row, Section


def _finding(section: Results) -> Finding:
    conflict = section["conflict"]
    if not measured(conflict):
        return (
            DOUBT,
            f"Disagreement between people was not measured: {conflict['not_measured']}.",
        )
    text = (
        f"on the same two answers (conflict {conflict['value']:.2f}, {conflict['n']} "
        "pairs of answers)"
    )
    if conflict["interval"][1] < 0.05:
        return FAULT, f"People hardly disagree {text}: who asks makes no difference."
    ceiling = section["ceiling"]["value"]
    return (
        GOOD,
        f"People disagree {text}; a model that does not know the person is right in "
        f"{ceiling:.0%} at best.",
    )


def _disagreement_rows(audit: Results) -> list[Row]:
    disagreement, consistency = audit["disagreement"], audit.get("consistency", {})
    rows = [
        (
            "two people disagree on the same two answers",
            disagreement["conflict"],
            "above 0.05",
        ),
        (
            "best accuracy without knowing who asks",
            disagreement["ceiling"],
            "well below 1",
        ),
        ("share of judgments in the minority", disagreement["minority"], "above 0"),
    ]
    if "same" in consistency:
        rows.append(
            ("a person chooses the same in another run", consistency["same"], "near 1")
        )
    return (
        [*rows, ("consistency between runs (ICC)", consistency["icc"], "above 0.5")]
        if "icc" in consistency
        else rows
    )


def _measure_quickly(data: AuditData) -> Results:
    return {"disagreement": disagreement.measure(data.pairs.frame)}


def _measure(data: AuditData) -> Results:
    again = data.again
    if again is None:
        return {
            "consistency": {
                "same": not_measured("no other run was given (--again RUN)")
            }
        }
    return {"consistency": disagreement.consistency(data.pairs.frame, again.frame)}


def _findings(results: Results) -> Iterator[Finding]:
    yield _finding(results["disagreement"])


def _rows(results: Results) -> Iterator[tuple[str, list[Row]]]:
    yield "Disagreement", _disagreement_rows(results)


SECTION = Section(
    order=4, quick=_measure_quickly, measure=_measure, findings=_findings, rows=_rows
)
