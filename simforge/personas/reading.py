"""From a file to a `Pack`, or to all of its mistakes.

Three steps: the file and those it extends become one document that still knows where every line came from; files that
it names (lists, conditional tables) are read into it; then the shapes are checked by pydantic, and here what no single
trait can know: names of other traits, circles, conditions without a row, templates, constraints, targets. A pack that
is wrong in one trait is still checked in the others, so that all mistakes come at once.
"""

from __future__ import annotations

import copy
import importlib.util
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jinja2
import jinja2.meta
from jinja2 import TemplateError

from simforge import catalog, documents, generators
from simforge.documents import Document
from simforge.documents import Path as KeyPath
from simforge.errors import Mistake, RecipeError, SimForgeError, SourceError, nearest
from simforge.personas import tables
from simforge.personas.pack import RESERVED, Draw, Faker, Pack, Target, Trait, bounds, plain

if TYPE_CHECKING:
    import polars as pl

NUMERIC = ("integer", "number")
MANY = 5_000
"Different values up to which a table's column counts as a fixed list."
WRITER = {"person": "x", "wanted": [{"name": "x", "type": "string", "description": "x"}], "mistake": "x"}
"""What a writer's generator may use beside `traits`: the person in words, what to write, and what was wrong with the
last answer."""


def load(reference: str) -> Pack:
    """Read a pack by name or path; raises `RecipeError` with all its mistakes."""
    document, mistakes = _merged(reference, ())
    pack, found = documents.check(document, Pack) if document.value.get("traits") or not mistakes else (None, [])
    mistakes += found
    rest = pack or _without(document, found)
    if rest is not None:
        mistakes += _Check(document, rest, _broken(mistakes)).run()
    if pack is None or mistakes:
        raise RecipeError(_shortened(list(dict.fromkeys(mistakes))))
    return pack


def _shortened(mistakes: list[Mistake]) -> list[Mistake]:
    """At most three mistakes of a line, which stands for all rows of a table that was read into it."""
    found: dict[tuple[str, int | None], list[Mistake]] = {}
    for mistake in mistakes:
        found.setdefault((mistake.file, mistake.line), []).append(mistake)
    short = []
    for (file, line), here in found.items():
        short += here[:3]
        if len(here) > 3:
            short.append(Mistake(file, line, here[-1].path.split(".table")[0], f"and {len(here) - 3} more like these"))
    return short


def order(pack: Pack) -> list[str]:
    """The drawn traits, each after those that it depends on."""
    graph = {name: [used for used in uses(draw) if used in pack.traits] for name, draw in pack.drawn.items()}
    return [name for name in TopologicalSorter(graph).static_order() if name in pack.drawn]


def uses(draw: Draw) -> set[str]:
    """The traits that a draw depends on."""
    found = {draw.given} if isinstance(draw.given, str) else set()
    if draw.faker is not None:
        found |= {used for used in (draw.faker.by, draw.faker.sex) if used}
    if draw.date is not None and draw.date.age:
        found.add(draw.date.age)
    if draw.column is not None:
        found |= set(draw.column.key.values())
    if draw.template is not None:
        found |= _variables(draw.template)
    if draw.table is not None:
        for inner in [*draw.table.values(), *([draw.default] if draw.default else [])]:
            found |= uses(inner)
    return found


def condition(text: str) -> pl.Expr:
    """A constraint as an expression over columns; raises `ValueError` where it is not SQL."""
    import polars as pl

    try:
        return pl.sql_expr(text)
    except pl.exceptions.PolarsError as problem:
        raise ValueError(str(problem).splitlines()[0]) from None


def literals(text: str) -> Iterator[tuple[str, str]]:
    """The plain words that a condition compares names with, so that a misspelt one is found."""
    for name, word in re.findall(r"(\w+)\s*(?:=|!=|<>)\s*'((?:[^']|'')*)'", text):
        yield name, word.replace("''", "'")
    for name, words in re.findall(r"(\w+)\s+(?:NOT\s+)?IN\s*\(([^()]*)\)", text, re.IGNORECASE):
        for word in re.findall(r"'((?:[^']|'')*)'", words):
            yield name, word.replace("''", "'")


def _merged(reference: str, below: tuple[str, ...]) -> tuple[Document, list[Mistake]]:
    """The document of a pack with what it extends, its files read in."""
    found = catalog.entry("personas", reference)
    document = documents.read(found.text, found.label)
    shipped = catalog.root() / "personas"
    folder = Path(reference).expanduser().resolve().parent if catalog.is_path(reference) else shipped
    mistakes = _read_in(document, folder)
    parent = document.value.get("extends")
    if not isinstance(parent, str):
        return document, mistakes
    parent = str((folder / parent).resolve()) if catalog.is_path(parent) and folder != shipped else parent
    if parent in (*below, reference):
        return document, [*mistakes, document.mistake(("extends",), f"goes round in a circle: {parent}")]
    try:
        base, more = _merged(parent, (*below, reference))
    except SimForgeError as problem:
        return document, [*mistakes, document.mistake(("extends",), str(problem))]
    return _over(base, document), [*mistakes, *more]


def _over(base: Document, top: Document) -> Document:
    """`top` laid over `base`."""
    value = copy.copy(base.value)
    lines, labels = dict(base.lines), {path: base.labels.get(path, base.label) for path in base.lines}

    def take(path: KeyPath, to: KeyPath) -> None:
        for known, line in top.lines.items():
            if known[: len(path)] == path:
                lines[to + known[len(path) :]] = line
                labels[to + known[len(path) :]] = top.labels.get(known, top.label)

    for key, given in top.value.items():
        if key == "traits" and isinstance(given, dict) and isinstance(value.get("traits"), dict):
            value["traits"] = dict(value["traits"])
            for name, trait in given.items():
                if trait is None:
                    value["traits"].pop(name, None)
                    continue
                old = value["traits"].get(name)
                fresh = isinstance(trait, dict) and isinstance(old, dict)
                value["traits"][name] = {**old, **trait} if fresh else trait
                take(("traits", name), ("traits", name))
        elif key in ("sources", "where", "correlated", "targets") and isinstance(given, list):
            inherited = value[key] if isinstance(value.get(key), list) else []
            if key == "targets":
                renewed = [one.get("of") for one in given if isinstance(one, dict)]
                inherited = [one for one in inherited if isinstance(one, dict) and one.get("of") not in renewed]
            value[key] = [*inherited, *given]
            for number in range(len(given)):
                take((key, number), (key, len(inherited) + number))
        elif key != "extends":
            value[key] = given
            take((key,), (key,))
    value["extends"] = top.value["extends"]
    return Document(top.label, value, lines, labels, top.overrides)


def _read_in(document: Document, folder: Path) -> list[Mistake]:
    """Put the content of lists and conditional tables, and the places of datasets, into the document."""
    mistakes: list[Mistake] = []
    unread: list[str] = []
    traits = document.value.get("traits")
    for name, trait in traits.items() if isinstance(traits, dict) else ():
        if isinstance(trait, dict) and isinstance(trait.get("draw"), dict):
            before = len(mistakes)
            trait["draw"] = _drawn_in(document, ("traits", name, "draw"), trait, trait["draw"], folder, mistakes)
            if len(mistakes) > before:
                unread.append(name)
    for name in unread:
        del document.value["traits"][name]  # what is wrong with its file is said; nothing else is known of it
    people = document.value.get("people")
    if isinstance(people, dict) and "file" in people:
        try:
            document.value["people"] = tables.located(people, folder)
        except SourceError as problem:
            mistakes.append(document.mistake(("people", "file"), str(problem)))
    targets = document.value.get("targets")
    for number, target in enumerate(targets if isinstance(targets, list) else ()):
        if isinstance(target, dict) and isinstance(target.get("csv"), str):
            of = [target["of"]] if isinstance(target.get("of"), str) else target.get("of")
            if not isinstance(of, list) or not of or not all(isinstance(name, str) for name in of):
                continue  # refused with its shape
            try:
                shares = _shares(tables.place(target["csv"], folder, (".csv",)), of)
            except (SourceError, ValueError) as problem:
                mistakes.append(document.mistake(("targets", number, "csv"), str(problem)))
                continue
            targets[number] = {**{key: inner for key, inner in target.items() if key != "csv"}, "shares": shares}
    return mistakes


def _drawn_in(
    document: Document, path: KeyPath, trait: dict[str, Any], draw: Any, folder: Path, mistakes: list[Mistake]
) -> Any:
    """A draw with its files read in."""
    if not isinstance(draw, dict):
        return draw
    draw = dict(draw)
    try:
        if isinstance(draw.get("file"), str):
            draw["one_of"] = tables.lines(tables.place(draw["file"], folder, (".txt",)))
            del draw["file"]
        if isinstance(draw.get("column"), dict) and "file" in draw["column"]:
            draw["column"] = tables.located(draw["column"], folder)
        given = [draw["given"]] if isinstance(draw.get("given"), str) else draw.get("given")
        names = isinstance(given, list) and given and all(isinstance(name, str) for name in given)
        if isinstance(draw.get("csv"), str) and names and "table" not in draw:
            assert isinstance(given, list)
            rows = list(tables.weighted(tables.place(draw["csv"], folder, (".csv",)), given, "value"))
            draw |= _nested(given, rows, trait, draw.get("default"))
            del draw["csv"]
    except (SourceError, ValueError) as problem:
        key = next(key for key in ("csv", "column", "file") if key in draw)
        mistakes.append(document.mistake((*path, key), str(problem)))
        return draw
    if isinstance(draw.get("table"), dict):
        draw["table"] = {
            value: _drawn_in(document, (*path, "table", value), trait, row, folder, mistakes)
            for value, row in draw["table"].items()
        }
    if "default" in draw:
        draw["default"] = _drawn_in(document, (*path, "default"), trait, draw["default"], folder, mistakes)
    return draw


def _nested(
    given: list[str], rows: list[tuple[tuple[str, ...], str, float]], trait: dict[str, Any], default: Any
) -> dict[str, Any]:
    """A conditional table from a file as `given` inside `given`."""
    head, *rest = given
    grouped: dict[str, list[tuple[tuple[str, ...], str, float]]] = {}
    for condition_of, value, weight in rows:
        grouped.setdefault(condition_of[0], []).append((condition_of[1:], value, weight))
    kind, maximum = trait.get("type"), trait.get("maximum")
    most = float(maximum) if isinstance(maximum, int | float) else None
    table = {
        key: _nested(rest, inner, trait, default)
        if rest
        else tables.draw_of([one[1:] for one in inner], kind in NUMERIC, kind == "integer", most)
        for key, inner in grouped.items()
    }
    return {"given": head, "table": table, **({"default": default} if default is not None else {})}


def _shares(path: Path, of: list[str]) -> dict[str, Any]:
    rows = list(tables.weighted(path, of, None))
    total = sum(weight for _, _, weight in rows)
    shares: dict[str, Any] = {}
    for key, _, weight in rows:
        inner = shares
        for part in key[:-1]:
            inner = inner.setdefault(part, {})
        inner[key[-1]] = inner.get(key[-1], 0.0) + weight / (total or 1)
    return shares


def _broken(mistakes: list[Mistake]) -> set[str]:
    parts = [mistake.path.split(".") for mistake in mistakes]
    return {part[1] for part in parts if part[0] == "traits" and len(part) > 1}


def _without(document: Document, mistakes: list[Mistake]) -> Pack | None:
    """What is left of a pack when its wrong parts are taken out, so that the rest can be checked."""
    value = {**_STAND_IN, **copy.copy(document.value)}
    for mistake in mistakes:
        head = mistake.path.split(".")[0]
        if head == "traits" and isinstance(value["traits"], dict):
            value["traits"] = {name: one for name, one in value["traits"].items() if name not in _broken(mistakes)}
        elif head in _STAND_IN:
            value[head] = _STAND_IN[head]
        else:
            value.pop(head, None)
    return documents.check(Document(document.label, value), Pack)[0]


_STAND_IN = {"description": "x", "licence": "x", "sources": ["x"], "text": "x", "traits": {}}


class _Check:
    """What one trait cannot know alone."""

    def __init__(self, document: Document, pack: Pack, broken: set[str]) -> None:
        self.document, self.pack = document, pack
        self.known = {*pack.traits, *broken}
        self.broken = broken
        self.values = {name: _values(draw) for name, draw in pack.drawn.items()}
        self.mistakes: list[Mistake] = []

    def wrong(self, path: KeyPath, message: str) -> None:
        self.mistakes.append(self.document.mistake(path, message))

    def run(self) -> list[Mistake]:
        for name, trait in self.pack.traits.items():
            path: KeyPath = ("traits", name)
            if not name.isidentifier() or name in RESERVED:
                names = ", ".join(RESERVED)
                self.wrong(path, f"a trait is named with letters, digits and _, and not one of {names}")
            if trait.source is not None:
                self._from(path, trait)
            if trait.draw is not None:
                self._draw((*path, "draw"), name, trait, trait.draw, {})
        self._circles()
        self._correlated()
        self._where()
        for number, target in enumerate(self.pack.targets):
            self._target(("targets", number), target)
        self._template(("text",), self.pack.text)
        if self.pack.portrait is not None:
            self._writer(("portrait",), self.pack.portrait)
        return self.mistakes

    def _unknown(self, used: str, of: str) -> str | None:
        if used == of:
            return f"{of!r} depends on itself"
        if used not in self.known:
            return f"there is no trait {used!r}{nearest(used, self.known)}"
        trait = self.pack.traits.get(used)
        if trait is not None and trait.draw is not None and any(leaf.writer for leaf in trait.draw.leaves()):
            return f"{used!r} is written by a model when everything else is drawn: nothing can depend on it"
        return None

    def _from(self, path: KeyPath, trait: Trait) -> None:
        if self.pack.people is None:
            return self.wrong((*path, "from"), "needs `people`, and the pack has none")
        if not self.pack.people.hf and not Path(self.pack.people.file).is_absolute():
            return None  # it was not found, which is said already
        try:
            column = tables.read(self.pack.people, (str(trait.source),)).to_series()
        except SourceError as problem:
            return self.wrong((*path, "from"), str(problem))
        said = unfit(column, trait)
        if said:
            self.wrong((*path, "from"), f"the column {trait.source!r} {said}")
        return None

    def _draw(self, path: KeyPath, name: str, trait: Trait, draw: Draw, facts: dict[str, str]) -> None:
        """`facts` are the values that hold where the draw stands, inside the rows of tables."""
        for used in sorted(_direct(draw)):
            said = self._unknown(used, name)
            if said:
                self.wrong(path, said)
        if draw.table is not None:
            given = str(draw.given)
            self._table(path, given, draw, facts)
            for value, row in draw.table.items():
                self._draw((*path, "table", value), name, trait, row, {**facts, given: value})
            if draw.default is not None:
                self._draw((*path, "default"), name, trait, draw.default, facts)
            return
        self._fits(path, trait, draw)
        if draw.faker is not None:
            self._faker((*path, "faker"), draw.faker)
        if draw.column is not None:
            self._column((*path, "column"), trait, draw)
        if draw.template is not None:
            self._template((*path, "template"), draw.template)
        aged = self.pack.traits.get(draw.date.age or "") if draw.date is not None else None
        if aged is not None and aged.type != "integer":
            self.wrong((*path, "date", "age"), "is not a trait of whole years (type integer)")
        if draw.writer is not None:
            self._writer((*path, "writer"), draw.writer)
            if path[-1] != "draw":
                self.wrong(path, "a trait is written by a model for everybody or for nobody, not for some values")

    def _table(self, path: KeyPath, given: str, draw: Draw, facts: dict[str, str]) -> None:
        assert draw.table is not None
        other = self.pack.traits.get(given)
        if other is None:
            return None
        if other.type in NUMERIC:
            return self._ranges(path, given, other, draw)
        values = self.values.get(given)
        if other.type == "boolean":
            values = {"true", "false"}
        elif values is not None and other.draw is not None:
            values = _values(other.draw, facts)
        if values is None and draw.default is None:
            self.wrong((*path, "given"), f"{given!r} has no fixed list of values: add a default")
        if values is None:
            return None
        missing = sorted(values - set(draw.table))
        if missing and draw.default is None:
            self.wrong((*path, "table"), f"has no row for {given} = {_some(missing)} and no default")
        for value in draw.table:
            if value not in values:
                self.wrong((*path, "table", value), f"{given} is never {value!r}{nearest(value, values)}")
        return None

    def _ranges(self, path: KeyPath, given: str, other: Trait, draw: Draw) -> None:
        """Keys over a number: each a range, none overlapping, and nothing between its bounds left out."""
        found = []
        for value in draw.table or {}:
            interval = bounds(value, other.type == "integer")
            if interval is None:
                self.wrong((*path, "table", value), f"{given} is a number: write ranges such as 18-24 or 65+")
            else:
                found.append((*interval, value))
        found.sort()
        for (_, high, first), (low, _, second) in pairwise(found):
            if low < high:
                self.wrong((*path, "table", second), f"the ranges {first} and {second} overlap")
        if draw.default is None and found and len(found) == len(draw.table or {}):
            reached = found[0][0]
            gap = other.minimum is None or reached > other.minimum
            for low, high, _ in found:
                gap, reached = gap or low > reached, max(reached, high)
            end = float("inf") if other.maximum is None else other.maximum + (other.type == "integer")
            if gap or reached < end:
                between = f"{_number(other.minimum)} to {_number(other.maximum)}"
                self.wrong((*path, "table"), f"does not cover {given} from {between}, and has no default")

    def _fits(self, path: KeyPath, trait: Trait, draw: Draw) -> None:
        """Whether a draw gives values of the trait's type, within its bounds."""
        way = next(way for way in KINDS if getattr(draw, way) is not None)
        if trait.type not in KINDS[way]:
            ways = ", ".join(way for way, types in KINDS.items() if trait.type in types)
            return self.wrong(path, f"a trait of type {trait.type} is not drawn by `{way}`, but by {ways}")
        if trait.type in NUMERIC and way in ("categories", "one_of"):
            for value in draw.categories or draw.one_of or ():
                if not _is_number(value, trait.type):
                    return self.wrong(path, f"{value!r} is not a number of type {trait.type}")
        if trait.type in NUMERIC and way not in ("column", "writer"):
            low, high = _support(draw)
            end = None if trait.maximum is None else trait.maximum + (trait.type == "integer" and way in SPREAD)
            if (trait.minimum is not None and low < trait.minimum) or (end is not None and high > end):
                said = f"gives numbers from {low:g} to {high:g}, which leave the trait's bounds"
                return self.wrong(path, f"{said} ({_number(trait.minimum)} to {_number(trait.maximum)})")
        return None

    def _faker(self, path: KeyPath, faker: Faker) -> None:
        from simforge.personas.drawing import faker_words

        by = self.values.get(faker.by or "")
        if faker.locale is None:
            if by is None and faker.by in self.pack.traits:
                return self.wrong((*path, "by"), f"{faker.by!r} has no fixed list of values: they must be locales")
            locales = by or set()
        else:
            locales = {faker.locale} if isinstance(faker.locale, str) else set(faker.locale.values())
        for locale in sorted(locales):
            if not (locale.replace("_", "").isalnum() and importlib.util.find_spec(f"faker.providers.person.{locale}")):
                self.wrong((*path, "locale"), f"Faker has no locale {locale!r}")
            elif faker_words(locale, faker.provider, "", only_look=True) is None:
                self.wrong((*path, "provider"), f"Faker has no provider {faker.provider!r} that needs no arguments")
        if isinstance(faker.locale, dict):
            missing = sorted((by or set()) - set(faker.locale))
            if missing:
                self.wrong((*path, "locale"), f"has no locale for {faker.by} = {_some(missing)}")
        values = self.values.get(faker.sex or "")
        if values is not None and not values & {"female", "male"}:
            self.wrong((*path, "sex"), f"{faker.sex!r} is never `female` or `male`")
        return None

    def _column(self, path: KeyPath, trait: Trait, draw: Draw) -> None:
        assert draw.column is not None
        column = draw.column
        wanted = [column.name, *column.key, *([column.weight] if column.weight else [])]
        try:
            frame = tables.read(column, tuple(dict.fromkeys(wanted)))
        except SourceError as problem:
            return self.wrong(path, str(problem))
        said = unfit(frame[column.name], trait)
        if said:
            return self.wrong((*path, "name"), f"the column {column.name!r} {said}")
        if column.weight is not None:
            said = unfit(frame[column.weight], Trait(type="number", minimum=0, draw=Draw(chance=1)))
            if said or not frame[column.weight].cast(float).sum() > 0:
                self.wrong((*path, "weight"), f"the column {column.weight!r} {said or 'has no weight above 0'}")
        return None

    def _writer(self, path: KeyPath, reference: str) -> None:
        try:
            generator = generators.load(reference)
        except RecipeError as problem:
            self.mistakes += problem.mistakes
            return None
        except SimForgeError as problem:
            return self.wrong(path, str(problem))
        if generator.front.role != "writer":
            self.wrong(path, f"{generator.label} speaks to the role {generator.front.role!r}, not to the writer")
        self.mistakes += generator.rehearse({**WRITER, "traits": self._stand_in()})
        return None

    def _circles(self) -> None:
        graph = {name: sorted(uses(draw) & set(self.pack.drawn) - {name}) for name, draw in self.pack.drawn.items()}
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as problem:
            circle = cast(list[str], problem.args[1])
            self.wrong(("traits", circle[0]), f"goes round in a circle: {' → '.join(reversed(circle))}")

    def _correlated(self) -> None:
        seen: set[str] = set()
        for number, group in enumerate(self.pack.correlated):
            path: KeyPath = ("correlated", number, "traits")
            for name in group.traits:
                if name not in self.known:
                    self.wrong(path, f"there is no trait {name!r}{nearest(name, self.known)}")
                elif name in seen:
                    self.wrong(path, f"{name!r} stands in two groups or twice in one")
                elif name in self.pack.traits:
                    draw = self.pack.traits[name].draw
                    if draw is None or any(not _spread(leaf) for leaf in draw.leaves()):
                        self.wrong(path, f"{name!r} is not drawn by one of {', '.join(SPREAD)}")
                    above = sorted(_ancestors(name, self.pack) & set(group.traits))
                    if above:
                        self.wrong(path, f"{name!r} depends on {above[0]!r} already: give it no correlation too")
                seen.add(name)

    def _where(self) -> None:
        import polars as pl

        frame = pl.DataFrame(schema=schema(self.pack))
        for number, text in enumerate(self.pack.where):
            path: KeyPath = ("where", number)
            try:
                expression = condition(text)
                unknown = [name for name in expression.meta.root_names() if name not in self.known]
                if unknown:
                    self.wrong(path, f"there is no trait {unknown[0]!r}{nearest(unknown[0], self.known)}")
                    continue
                if set(expression.meta.root_names()) & self.broken:
                    continue
                written = sorted(
                    set(expression.meta.root_names()) & {n for ns in self.pack.written.values() for n in ns}
                )
                if written:
                    self.wrong(path, str(self._unknown(written[0], "")))
                if not _about_one(text):
                    self.wrong(path, f"{text!r} looks at more than one person: a person's place would depend on others")
                    continue
                for name, literal in literals(text):
                    values = self.values.get(name)
                    if values is not None and literal not in values:
                        self.wrong(path, f"{name} is never {literal!r}{nearest(literal, values)}")
                kind = frame.select(expression).dtypes[0]
                if kind != pl.Boolean:
                    self.wrong(path, f"{text!r} is not a condition: it gives {kind}, not true or false")
            except (ValueError, pl.exceptions.PolarsError) as problem:
                self.wrong(path, f"{text!r} is not an SQL condition: {str(problem).splitlines()[0]}")

    def _target(self, path: KeyPath, target: Target) -> None:
        for depth, name in enumerate(target.traits):
            trait = self.pack.traits.get(name)
            if name not in self.known:
                self.wrong((*path, "of"), f"there is no trait {name!r}{nearest(name, self.known)}")
                continue
            if trait is None:
                continue
            if self._unknown(name, ""):
                self.wrong((*path, "of"), str(self._unknown(name, "")))
            said = {key[depth] for key in target.cells()}
            if trait.type in NUMERIC:
                found = sorted((bounds(one, trait.type == "integer") or (float("-inf"), 0.0), one) for one in said)
                for (low, _), one in found:
                    if low == float("-inf"):
                        self.wrong((*path, "shares"), f"{name} is a number: write ranges such as 18-24, not {one!r}")
                for ((_, high), first), ((low, _), second) in pairwise(found):
                    if low < high:
                        self.wrong((*path, "shares"), f"the ranges {first} and {second} overlap")
                continue
            values = {"true", "false"} if trait.type == "boolean" else self.values.get(name)
            for one in sorted(said - values if values is not None else ()):
                self.wrong((*path, "shares"), f"{name} is never {one!r}{nearest(one, values or ())}")

    def _template(self, path: KeyPath, template: str) -> None:
        """A template over traits, rendered once with stand-ins."""
        try:
            unknown = _variables(template) - self.known
            for name in sorted(unknown):
                self.wrong(path, f"there is no trait {name!r}{nearest(name, self.known)}")
            if not unknown and not generators.compiled(template).render(self._stand_in()).strip():
                self.wrong(path, "the template is empty")
        except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError) as problem:
            self.wrong(path, f"the template does not render: {problem}")

    def _stand_in(self) -> dict[str, Any]:
        """A person made of stand-ins."""
        kinds = {"string": "x", "boolean": True}
        row = {name: kinds.get(trait.type, 1) for name, trait in self.pack.traits.items()}
        return {**dict.fromkeys(self.broken, 1), **row}


def schema(pack: Pack) -> dict[str, Any]:
    """The polars type of each trait."""
    import polars as pl

    types = {"string": pl.String, "integer": pl.Int64, "number": pl.Float64, "boolean": pl.Boolean}
    return {name: types[trait.type] for name, trait in pack.traits.items()}


SPREAD = ("uniform", "normal", "lognormal", "beta", "histogram")
"Draws of a number that has a density; an integer is its floor."
KINDS: dict[str, tuple[str, ...]] = {
    "categories": ("string", "integer", "number"),
    "one_of": ("string", "integer", "number"),
    "chance": ("boolean",),
    **dict.fromkeys(SPREAD, NUMERIC),
    "date": ("string",),
    "faker": ("string",),
    "column": ("string", "integer", "number", "boolean"),
    "template": ("string",),
    "writer": ("string", "integer", "number", "boolean"),
    "file": ("string",),
    "csv": ("string",),
}


def _values(draw: Draw, facts: dict[str, str] | None = None) -> set[str] | None:
    """All values of a draw, those of a table's column included; `None` where they are not a fixed list.

    `facts` are values of other traits that hold: rows for other values are then left out.
    """
    found: set[str] = set()
    for leaf in draw.leaves(facts or {}):
        if leaf.column is not None:
            try:
                column = tables.read(leaf.column, (leaf.column.name,)).to_series()
            except SourceError:
                return None
            if column.n_unique() > MANY:
                return None
            found |= {plain(value) for value in column.drop_nulls().unique().to_list()}
        else:
            values = leaf.values()
            if values is None:
                return None
            found |= values
    return found


def unfit(column: pl.Series, trait: Trait) -> str | None:
    """What is wrong with a column for a trait: its type, or values outside the trait's bounds."""
    import polars as pl

    if trait.type == "boolean":
        words = set(column.drop_nulls().cast(pl.String).str.to_lowercase().unique())
        strange = sorted(words - {"true", "false", "1", "0"})
        return f"holds {strange[0]!r}, not true or false" if strange else None
    if trait.type == "string":
        return None
    try:
        numbers = column.cast(pl.Float64)
        if trait.type == "integer" and not (numbers == numbers.floor()).all():
            return "holds fractions, not whole numbers"
    except pl.exceptions.PolarsError:
        return "holds texts, not numbers"
    low, high = cast("float | None", numbers.min()), cast("float | None", numbers.max())
    if low is None or high is None:
        return "is empty"
    if (trait.minimum is not None and low < trait.minimum) or (trait.maximum is not None and high > trait.maximum):
        between = f"{_number(trait.minimum)} to {_number(trait.maximum)}"
        return f"holds numbers from {low:g} to {high:g}, which leave the trait's bounds ({between})"
    return None


def _ancestors(name: str, pack: Pack) -> set[str]:
    """The traits that a trait depends on, also through others; empty inside a circle, which is told elsewhere."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop()
        parents = uses(pack.drawn[one]) if one in pack.drawn else set()
        waiting += sorted(parents - found)
        found |= parents
    return found


def _about_one(text: str) -> bool:
    """Whether a condition on a person looks at nobody else: it has no aggregate and no window."""
    return not re.search(r"\b(OVER|AVG|SUM|COUNT|MIN|MAX|MEDIAN|STDDEV|STDEV|VARIANCE|FIRST|LAST)\s*\(", text, re.I)


def _direct(draw: Draw) -> set[str]:
    """The traits that a draw names itself, without those of its rows."""
    return uses(draw.model_copy(update={"table": None, "default": None}))


def _spread(draw: Draw) -> bool:
    return any(getattr(draw, way) is not None for way in SPREAD)


def _support(draw: Draw) -> tuple[float, float]:
    """Between which numbers a draw falls."""
    if draw.categories is not None or draw.one_of is not None:
        numbers = [float(value) for value in draw.categories or draw.one_of or ()]
        return min(numbers), max(numbers)
    if draw.histogram is not None:
        return draw.histogram.edges[0], draw.histogram.edges[-1]
    spread = draw.uniform or draw.normal or draw.lognormal or draw.beta
    assert spread is not None
    least = 0.0 if draw.lognormal is not None else float("-inf")
    return (spread.low if spread.low is not None else least, spread.high if spread.high is not None else float("inf"))


def _is_number(value: Any, kind: str) -> bool:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return False
    if isinstance(value, bool) or not isfinite(number):
        return False
    return kind == "number" or number == int(number)


def _variables(template: str) -> set[str]:
    try:
        return set(jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(template)))
    except jinja2.TemplateSyntaxError:
        return set()


def _some(values: list[str]) -> str:
    shown = ", ".join(repr(value) for value in values[:3])
    return shown if len(values) <= 3 else f"{shown} and {len(values) - 3} more"


def _number(value: float | None) -> str:
    return "any number" if value is None else f"{value:g}"
