"""The audit: how much personal preference a dataset contains, in bits, and what else decides
its labels.

    audit("OUT")                                -> all results, as in `audit.json`
    audit("mine.parquet", AuditOptions({...}))  -> the same for data from elsewhere

Each figure has its sample size and a 95 % interval, or the reason why it was not measured.
docs/audit.md explains the measures and their good values.
"""

from __future__ import annotations

from pathlib import Path

from simforge.audit import pairs
from simforge.audit.figures import Results
from simforge.audit.pairs import Pairs
from simforge.audit.sections import (
    DOUBT,
    FAMILIES,
    FAULT,
    GOOD,
    AuditData,
    AuditOptions,
    ordered_sections,
)
from simforge.errors import SourceError, UsageError

__all__ = ["FAMILIES", "AuditOptions", "audit", "findings_of", "quick_audit"]


def audit(source: str, options: AuditOptions | None = None) -> Results:
    """Measure a dataset. Raises `SourceError`, `UsageError`, `HubError`."""
    options = options or AuditOptions()
    for option, path in (("--human", options.human), ("--trusted", options.trusted)):
        if path is not None and not path.is_file():
            raise SourceError(f"{option}: there is no file {path}.")
    same = options.again is not None and Path(options.again).resolve()
    if same == Path(source).resolve():
        raise UsageError(
            f"--again {options.again} is the same run: give another one of the same people."
        )
    dataset = pairs.read(source, options.columns)
    again = pairs.read(options.again, options.columns) if options.again else None
    data = AuditData(dataset, options, source, again)
    results = _quick_results(data)
    for section in ordered_sections():
        results |= section.measure(data)
    return {**results, "verdict": findings_of(results)}


def quick_audit(dataset: Pairs, options: AuditOptions | None = None) -> Results:
    """Measure all that needs no scorer: seconds for ten thousand pairs, without optional
    packages."""
    results = _quick_results(AuditData(dataset, options or AuditOptions()))
    return {**results, "verdict": findings_of(results)}


def findings_of(results: Results) -> list[dict[str, str]]:
    """Return the meaning of the figures, worst first, each with a weight: `fault`, `doubt` or
    `good`."""
    findings = [
        finding
        for section in ordered_sections()
        for finding in section.findings(results)
    ]
    weights = [FAULT, DOUBT, GOOD]
    return [
        {"weight": weight, "text": text}
        for weight, text in sorted(findings, key=lambda found: weights.index(found[0]))
    ]


def _quick_results(data: AuditData) -> Results:
    frame = data.pairs.frame
    persons = frame["persona"]
    results: Results = {
        "pairs": frame.height,
        "rows": data.pairs.rows,
        "left_out": dict(data.pairs.left_out),
        "unread_profiles": list(data.pairs.unread_profiles),
        "profile_texts": data.pairs.profile_texts,
        "people": persons.n_unique() if persons.null_count() < frame.height else None,
    }
    for section in ordered_sections():
        results |= section.quick(data)
    return results
