"""Licence of a dataset's rows, derived from the licences of its sources.

Rows contain material from people, prompts and models, so they get the strictest of those
licences: the one whose conditions include those of all the others. The result is `other`, and
the card lists the conditions, if there is no such licence, if two different licences each
require that derived works keep that licence, or if one is unknown. This is a comparison of
condition names, not legal advice.
"""

from __future__ import annotations

from collections.abc import Mapping

from simforge.dataset.manifest import LicenceEntry

CONDITIONS = {
    "by": "credit",
    "use": "limits on use",
    "sa": "the same licence for derived works",
    "nc": "no commercial use",
    "nd": "no modified copies",
    "unknown": "unknown terms",
}
"Conditions that a licence may set, in the words of the card."


CONDITIONS_BY_LICENCE: dict[str, tuple[str, ...]] = {
    "cc0-1.0": (),
    "unlicense": (),
    "pddl": (),
    "mit": ("by",),
    "isc": ("by",),
    "bsd-2-clause": ("by",),
    "bsd-3-clause": ("by",),
    "apache-2.0": ("by",),
    "odc-by": ("by",),
    "cdla-permissive-2.0": (),
    "cc-by-2.0": ("by",),
    "cc-by-3.0": ("by",),
    "cc-by-4.0": ("by",),
    "llama2": ("by", "use"),
    "llama3": ("by", "use"),
    "llama3.1": ("by", "use"),
    "llama3.2": ("by", "use"),
    "llama3.3": ("by", "use"),
    "gemma": ("by", "use"),
    "openrail": ("by", "use"),
    "odbl": ("by", "sa"),
    "cc-by-sa-3.0": ("by", "sa"),
    "cc-by-sa-4.0": ("by", "sa"),
    "gpl-3.0": ("by", "sa"),
    "cc-by-nc-3.0": ("by", "nc"),
    "cc-by-nc-4.0": ("by", "nc"),
    "cc-by-nc-sa-3.0": ("by", "nc", "sa"),
    "cc-by-nc-sa-4.0": ("by", "nc", "sa"),
    "cc-by-nd-4.0": ("by", "nd"),
    "cc-by-nc-nd-4.0": ("by", "nc", "nd"),
}
"Conditions of the licences that the Hub names; if several are equal, the last one is for data."


def licence_of_rows(sources: Mapping[str, str]) -> LicenceEntry:
    """Return the licence of rows made from `sources` (a licence by source): its Hub name
    (`other` if no licence covers all), its conditions, and the reason for the choice."""
    licences = {licence.lower() for licence in sources.values()}
    conditions = {
        condition for licence in licences for condition in _conditions(licence)
    }
    share_alike = [
        name for name in licences if {"sa", "use"} & {*_conditions(name)}
    ]  # derived works must keep this licence
    fitting = [
        name
        for name in CONDITIONS_BY_LICENCE
        if name in licences and {*CONDITIONS_BY_LICENCE[name]} == conditions
    ]
    row = (
        fitting[-1]
        if fitting and len(share_alike) < 2 and "nd" not in conditions
        else "other"
    )
    deciding = [source for source, licence in sources.items() if licence.lower() == row]
    unknown = [
        source
        for source, licence in sources.items()
        if "unknown" in _conditions(licence)
    ]
    if deciding:
        why = f"it has every condition of the others, and is the licence of {_join_names(deciding)}"
    elif unknown:
        why = (
            f"the terms of {_join_names(unknown)} are unknown: look them up, and set "
            "them under `licences` in the recipe"
        )
    elif "nd" in conditions:
        why = (
            "a source allows no modified copies, and this dataset is one: it may not "
            "be distributed"
        )
    elif len(share_alike) > 1:
        why = (
            f"{_join_names(sorted(share_alike))} each require that derived works keep "
            "the same licence"
        )
    else:
        why = "none of these licences includes every condition of the others"
    asks = [condition for condition in CONDITIONS if condition in conditions]
    return {"row": row, "conditions": asks, "why": why, "sources": dict(sources)}


def _conditions(licence: str) -> tuple[str, ...]:
    return CONDITIONS_BY_LICENCE.get(licence.lower(), ("unknown",))


def _join_names(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
