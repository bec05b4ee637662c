"""Dimensions: whether every dimension of the preferences is still in the data after filtering.

A dimension whose comparisons were nearly all discarded is missing from the pairs, and the other
figures do not show it: they are of the dimensions that are left.
"""

from __future__ import annotations

from collections.abc import Iterator

from simforge.audit import figures
from simforge.audit.figures import Results
from simforge.audit.sections import DOUBT, FAULT, AuditData, Finding, Row, Section
from simforge.dataset.manifest import lost_dimensions, unchecked_dimensions


def _measure(data: AuditData) -> Results:
    manifest = data.pairs.manifest
    if manifest is None:
        return {"dimensions": {}}
    return {
        "dimensions": {
            "kept": {
                name: figures.share(counts["pairs"], counts["comparisons"])
                for name, counts in manifest.get("dimensions", {}).items()
            },
            "lost": lost_dimensions(manifest),
            "unchecked": unchecked_dimensions(manifest),
        }
    }


def _findings(results: Results) -> Iterator[Finding]:
    dimensions = results.get("dimensions", {})
    for sentence in dimensions.get("lost", ()):
        yield FAULT, sentence
    unchecked = dimensions.get("unchecked", ())
    if unchecked:
        yield (
            DOUBT,
            f"Labels on {', '.join(unchecked)} are unchecked: there is no measure that could "
            "show whether the answers follow their steering.",
        )


def _rows(results: Results) -> Iterator[tuple[str, list[Row]]]:
    kept = results.get("dimensions", {}).get("kept", {})
    if kept:
        yield (
            "Dimensions",
            [
                (
                    f"comparisons on {name.replace('_', ' ')} that became pairs",
                    figure,
                    "",
                )
                for name, figure in kept.items()
            ],
        )


SECTION = Section(order=0, quick=_measure, findings=_findings, rows=_rows)
