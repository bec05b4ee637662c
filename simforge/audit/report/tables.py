"""Tables of the report: the figures of an audit by topic, each with its good value."""

from __future__ import annotations

from simforge.audit.figures import Results
from simforge.audit.sections import SIMFORGE_ONLY, ordered_sections


def all_of(audit: Results) -> list[Results]:
    """Build every table that has figures: its `name` and its `rows`, ready for the page."""
    tables = []
    for section in ordered_sections():
        for name, rows in section.rows(audit):
            shown = [
                {"what": what, "good": good, **figure}
                for what, figure, good in rows
                if figure.get("not_measured") != SIMFORGE_ONLY
            ]
            if shown:
                tables.append({"name": name, "rows": shown})
    return tables
