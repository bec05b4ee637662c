"""Licences: under which one a dataset's rows stand.

A row is made of what people, prompts and models brought, so it stands under the strictest of their licences: the one
whose conditions include those of all the others. Where there is none, where two of them each want what is made of them
for themselves, or where one is not known, it is `other`, and the card says what is asked for. This is a reading of the
conditions' names, not legal advice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONDITIONS = {
    "by": "credit",
    "use": "limits on use",
    "sa": "the same licence for what is made of it",
    "nc": "no commercial use",
    "nd": "no changed copies",
    "unknown": "terms that are not known",
}
"What a licence may ask for, as the card says it."
KNOWN: dict[str, tuple[str, ...]] = {
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
"What the licences that the Hub has a name for ask for, the later ones of those that ask for the same being for data."


def of_rows(sources: Mapping[str, str]) -> dict[str, Any]:
    """The licence of rows made of sources, by what they are: its name on the Hub (`other` where there is none that
    covers all), what it asks for, and why it is this one."""
    given = {licence.lower() for licence in sources.values()}
    wanted = {one for licence in given for one in _asks(licence)}
    own_terms = [name for name in given if {"sa", "use"} & {*_asks(name)}]  # what is made of it stands under just that
    fitting = [name for name in KNOWN if name in given and {*KNOWN[name]} == wanted]
    row = fitting[-1] if fitting and len(own_terms) < 2 and "nd" not in wanted else "other"
    deciding = [what for what, licence in sources.items() if licence.lower() == row]
    unknown = [what for what, licence in sources.items() if "unknown" in _asks(licence)]
    if deciding:
        why = f"it has every condition of the others, and is that of {_listed(deciding)}"
    elif unknown:
        why = f"the terms of {_listed(unknown)} are not known here: look them up, and name them under `licences`"
    elif "nd" in wanted:
        why = "one of its sources allows no changed copies, and this is one: it may not be passed on"
    elif len(own_terms) > 1:
        why = f"{_listed(sorted(own_terms))} each ask that what is made of them stands under themselves"
    else:
        why = "no one licence of them has every condition of the others"
    asks = [one for one in CONDITIONS if one in wanted]
    return {"row": row, "asks": asks, "why": why, "sources": dict(sources)}


def _asks(licence: str) -> tuple[str, ...]:
    return KNOWN.get(licence.lower(), ("unknown",))


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
