"""Hygiene: repeats, near-duplicates, refusals, leaks and overlaps with benchmarks."""

from __future__ import annotations

from collections.abc import Iterator

from simforge.audit import hygiene
from simforge.audit.figures import Results, measured
from simforge.audit.sections import (
    DOUBT,
    FAULT,
    GOOD,
    MIN_PAIRS,
    AuditData,
    Finding,
    Row,
    Section,
)


def _hygiene_findings(section: Results) -> Iterator[Finding]:
    figure = section["repeated"]
    if measured(figure) and figure["interval"][0] > 0.01:
        yield (
            FAULT,
            f"{figure['value']:.0%} of the rows repeat another row: there are "
            f"{section['different']} different pairs.",
        )
    figure = section["repeated_by_others"]
    if not section["is_simforge"] and measured(figure) and figure["interval"][0] > 0.1:
        yield (
            DOUBT,
            f"{figure['value']:.0%} of the pairs repeat another one under another person: there "
            f"are {section['different']} different pairs, and intervals count those.",
        )
    for name, what in (
        ("same_text", "have the same text on both sides, or a missing text"),
        ("empty", "have an empty answer"),
    ):
        figure = section[name]
        if measured(figure) and figure["interval"][0] > 0.01:
            yield FAULT, f"{figure['value']:.0%} of the pairs {what}."
    figure = section["near_duplicates"]
    if measured(figure) and figure["interval"][0] > 0.1:
        yield (
            DOUBT,
            f"{figure['value']:.0%} of the different pairs are near-duplicates of another pair.",
        )
    figure = section["refusals"]["both"]
    if measured(figure) and figure["interval"][0] > 0.01:
        yield FAULT, f"Both answers refuse in {figure['value']:.0%} of the pairs."
    for what, figure in section["leaks"].items():
        if measured(figure) and figure["value"] > 0:
            yield (
                FAULT,
                f"A leak: {figure['value']:.0%} of the held-out {what} are in train too.",
            )


def _no_hygiene_problem(section: Results) -> Finding:
    """Finding that names the problems that were looked for and are absent."""
    checks = {
        "repeated pairs": section["repeated"],
        "near-duplicates": section["near_duplicates"],
        "refusals on both sides": section["refusals"]["both"],
        **{
            f"held-out {name} in train": figure
            for name, figure in section["leaks"].items()
        },
    }
    absent = [
        name
        for name, figure in checks.items()
        if measured(figure) and figure["n"] >= 10
    ]
    if section["pairs"] < MIN_PAIRS or not absent:
        return (
            DOUBT,
            "There are too few pairs to check for duplicates, leaks and refusals.",
        )
    found = section["repeated_by_others"]
    if not section["is_simforge"] and measured(found) and found["interval"][0] > 0.1:
        absent = [name for name in absent if name != "repeated pairs"]
    words = " and ".join([", ".join(absent[:-1]), absent[-1]] if absent[1:] else absent)
    return GOOD, f"There are hardly any {words}."


def _hygiene_rows(audit: Results) -> list[Row]:
    hygiene = audit["hygiene"]
    return [
        (
            "rows that repeat another row",
            hygiene["repeated"],
            "below 0.01",
        ),
        (
            "pairs that repeat another person's",
            hygiene["repeated_by_others"],
            "",
        ),
        ("near-duplicates of another pair", hygiene["near_duplicates"], "below 0.1"),
        ("both answers refuse", hygiene["refusals"]["both"], "below 0.01"),
        ("held-out people who are in train", hygiene["leaks"]["people"], "0"),
        ("held-out prompts that are in train", hygiene["leaks"]["prompts"], "0"),
        (
            "prompts that overlap with a benchmark",
            hygiene["benchmarks"]["prompts"],
            "0",
        ),
    ]


def _measure(data: AuditData) -> Results:
    return {"hygiene": hygiene.measure(data.pairs, data.options.benchmarks)}


def _findings(results: Results) -> Iterator[Finding]:
    found = list(_hygiene_findings(results["hygiene"]))
    yield from found or [_no_hygiene_problem(results["hygiene"])]


def _rows(results: Results) -> Iterator[tuple[str, list[Row]]]:
    yield "Hygiene", _hygiene_rows(results)


SECTION = Section(order=7, quick=_measure, findings=_findings, rows=_rows)
