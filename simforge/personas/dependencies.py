"""Which traits a trait depends on, and the order in which traits can be sampled."""

from __future__ import annotations

from graphlib import TopologicalSorter

import jinja2

from simforge.catalog.documents import KeyPath as KeyPath
from simforge.catalog.sandbox import variables_of
from simforge.personas.pack import Draw, Pack


def sampling_order(pack: Pack) -> list[str]:
    """Return the sampled traits, each after the traits that it depends on."""
    graph = {
        name: [used for used in dependencies(draw) if used in pack.traits]
        for name, draw in pack.draws.items()
    }
    return [
        name for name in TopologicalSorter(graph).static_order() if name in pack.draws
    ]


def dependencies(draw: Draw) -> set[str]:
    """Return the names of the traits that a draw depends on."""
    names = {draw.given} if isinstance(draw.given, str) else set()
    if draw.faker is not None:
        names |= {used for used in (draw.faker.by, draw.faker.sex) if used}
    if draw.date is not None and draw.date.age:
        names.add(draw.date.age)
    if draw.column is not None:
        names |= set(draw.column.key.values())
    if draw.template is not None:
        names |= template_variables(draw.template)
    if draw.table is not None:
        for inner in [*draw.table.values(), *([draw.default] if draw.default else [])]:
            names |= dependencies(inner)
    return names


def ancestors(name: str, pack: Pack) -> set[str]:
    """Return the traits that a trait depends on, directly or indirectly. Cycles are reported
    elsewhere."""
    found: set[str] = set()
    pending = [name]
    while pending:
        current = pending.pop()
        parents = dependencies(pack.draws[current]) if current in pack.draws else set()
        pending += sorted(parents - found)
        found |= parents
    return found


def direct_dependencies(draw: Draw) -> set[str]:
    """Return the dependencies of a draw itself, without those of its table rows."""
    return dependencies(draw.model_copy(update={"table": None, "default": None}))


def template_variables(template: str) -> set[str]:
    try:
        return set(variables_of(template))
    except jinja2.TemplateSyntaxError:
        return set()
