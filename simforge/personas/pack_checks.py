"""The checks of a persona pack that need more than one key: all mistakes at once, with file and
line."""

from __future__ import annotations

import importlib.util
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jinja2 import TemplateError

from simforge.catalog import sandbox, templates
from simforge.catalog.documents import Document
from simforge.catalog.documents import KeyPath as KeyPath
from simforge.errors import Mistake, RecipeError, SimForgeError, SourceError, suggest
from simforge.personas import tables
from simforge.personas.distributions import DISTRIBUTIONS
from simforge.personas.pack import (
    METHOD_TYPES,
    RESERVED,
    Draw,
    Faker,
    Pack,
    Target,
    Trait,
    need_texts,
    parse_range,
    value_text,
)
from simforge.text.conditions import parse_condition
from simforge.types import JsonObject

if TYPE_CHECKING:
    import polars as pl
from simforge.personas.dependencies import (
    ancestors,
    dependencies,
    direct_dependencies,
    template_variables,
)
from simforge.personas.pack import polars_schema

NUMERIC = ("integer", "number")


MAX_LISTED_VALUES = 5_000
"A table column with at most this many distinct values counts as a fixed list."


WRITER_VARIABLES = {
    "person": "x",
    "wanted": [{"name": "x", "type": "string", "description": "x"}],
    "mistake": "x",
}
"""Variables of a writer's generator besides `traits`, with placeholders: the description of
the person, the traits to write, and the mistake in the last answer."""


def _limit_per_line(mistakes: list[Mistake]) -> list[Mistake]:
    """Keep at most three mistakes per line, since one line can stand for all rows of a table
    that was read into it."""
    by_line: dict[tuple[str, int | None], list[Mistake]] = {}
    for mistake in mistakes:
        by_line.setdefault((mistake.file, mistake.line), []).append(mistake)
    short = []
    for (file, line), line_mistakes in by_line.items():
        short += line_mistakes[:3]
        if len(line_mistakes) > 3:
            short.append(
                Mistake(
                    file,
                    line,
                    line_mistakes[-1].path.split(".table")[0],
                    f"and {len(line_mistakes) - 3} more like these",
                )
            )
    return short


class _PackChecker:
    """The checks that involve more than one trait, or a file."""

    def __init__(self, document: Document, pack: Pack, invalid: set[str]) -> None:
        self.document, self.pack = document, pack
        self.trait_names = {*pack.traits, *invalid}
        self.invalid = invalid
        self.values = {
            name: _possible_values(draw) for name, draw in pack.draws.items()
        }
        self.mistakes: list[Mistake] = []

    def add_mistake(self, path: KeyPath, message: str) -> None:
        self.mistakes.append(self.document.mistake(path, message))

    def run(self) -> list[Mistake]:
        for name, trait in self.pack.traits.items():
            path: KeyPath = ("traits", name)
            if not name.isidentifier() or name in RESERVED:
                names = ", ".join(RESERVED)
                self.add_mistake(
                    path,
                    f"a trait name has only letters, digits and _, and cannot be one of {names}",
                )
            if trait.source is not None:
                self._check_source_column(path, trait)
            if trait.draw is not None:
                self._check_draw((*path, "draw"), name, trait, trait.draw, {})
                self._check_upper_end((*path, "draw"), trait, trait.draw)
        self._check_cycles()
        self._check_correlated()
        self._check_conditions()
        for number, target in enumerate(self.pack.targets):
            self._check_target(("targets", number), target)
        self._check_template(("text",), self.pack.text)
        for number, fact in enumerate(self.pack.facts):
            self._check_template(("facts", number), fact, may_be_empty=True)
        for number, need in enumerate(self.pack.needs):
            for text in need_texts(need):
                self._check_template(("needs", number), text)
        if self.pack.portrait is not None:
            self._check_writer(("portrait",), self.pack.portrait)
        return self.mistakes

    def _check_upper_end(self, path: KeyPath, trait: Trait, draw: Draw) -> None:
        """Refuse an integer whose largest value is never drawn: the drawn number is rounded
        down, so a distribution's upper end is excluded."""
        ends = [
            None if leaf.distribution is None else leaf.distribution.support[1]
            for leaf in draw.leaves({})
        ]
        known = [end for end in ends if end is not None]
        if trait.type != "integer" or trait.maximum is None or len(known) < len(ends):
            return
        if known and max(known) == trait.maximum:
            self.add_mistake(
                path,
                f"{trait.maximum:g} is never drawn: a whole number is the drawn number rounded "
                f"down, so the upper end is excluded. Write {trait.maximum + 1:g} as the upper "
                f"end (or {trait.maximum - 1:g} as `maximum`)",
            )

    def _reference_problem(self, used: str, owner: str) -> str | None:
        if used == owner:
            return f"{owner!r} depends on itself"
        if used not in self.trait_names:
            return f"there is no trait {used!r}{suggest(used, self.trait_names)}"
        trait = self.pack.traits.get(used)
        if (
            trait is not None
            and trait.draw is not None
            and any(leaf.writer for leaf in trait.draw.leaves())
        ):
            return (
                f"{used!r} is written by a model after everything else is drawn: no "
                "trait, condition or target can depend on it"
            )
        return None

    def _check_source_column(self, path: KeyPath, trait: Trait) -> None:
        if self.pack.people is None:
            return self.add_mistake(
                (*path, "from"), "needs `people`, and the pack has none"
            )
        if not self.pack.people.hf and not Path(self.pack.people.file).is_absolute():
            return None  # already reported as not found
        try:
            column = tables.read_columns(
                self.pack.people, (str(trait.source),)
            ).to_series()
        except SourceError as problem:
            return self.add_mistake((*path, "from"), str(problem))
        mismatch = column_problem(column, trait)
        if mismatch:
            self.add_mistake((*path, "from"), f"the column {trait.source!r} {mismatch}")
        return None

    def _check_draw(
        self,
        path: KeyPath,
        name: str,
        trait: Trait,
        draw: Draw,
        known_values: dict[str, str],
    ) -> None:
        """Check a draw. Inside nested tables, the values of the conditioning traits are
        known."""
        for used in sorted(direct_dependencies(draw)):
            problem = self._reference_problem(used, name)
            if problem:
                self.add_mistake(path, problem)
        if draw.table is not None:
            given = str(draw.given)
            self._check_table(path, given, draw, known_values)
            for value, row in draw.table.items():
                self._check_draw(
                    (*path, "table", value),
                    name,
                    trait,
                    row,
                    {**known_values, given: value},
                )
            if draw.default is not None:
                self._check_draw(
                    (*path, "default"), name, trait, draw.default, known_values
                )
            return
        self._check_type(path, trait, draw)
        if draw.faker is not None:
            self._check_faker((*path, "faker"), draw.faker)
        if draw.column is not None:
            self._check_column((*path, "column"), trait, draw)
        if draw.template is not None:
            self._check_template((*path, "template"), draw.template)
        age_trait = (
            self.pack.traits.get(draw.date.age or "") if draw.date is not None else None
        )
        if age_trait is not None and age_trait.type != "integer":
            self.add_mistake(
                (*path, "date", "age"), "is not a trait of whole years (type integer)"
            )
        if draw.writer is not None:
            self._check_writer((*path, "writer"), draw.writer)
            if path[-1] != "draw":
                self.add_mistake(
                    path,
                    "a model must write a trait for everybody or for nobody; `writer` "
                    "cannot be used for some values only",
                )

    def _check_table(
        self, path: KeyPath, given: str, draw: Draw, known_values: dict[str, str]
    ) -> None:
        assert draw.table is not None
        given_trait = self.pack.traits.get(given)
        if given_trait is None:
            return None
        if given_trait.type in NUMERIC:
            return self._check_ranges(path, given, given_trait, draw)
        values = self.values.get(given)
        if given_trait.type == "boolean":
            values = {"true", "false"}
        elif values is not None and given_trait.draw is not None:
            values = _possible_values(given_trait.draw, known_values)
        if values is None and draw.default is None:
            self.add_mistake(
                (*path, "given"),
                f"the values of {given!r} are not a fixed list: add a default",
            )
        if values is None:
            return None
        missing = sorted(values - set(draw.table))
        if missing and draw.default is None:
            self.add_mistake(
                (*path, "table"),
                f"has no row for {given} = {_first_values(missing)} and no default",
            )
        for value in draw.table:
            if value not in values:
                self.add_mistake(
                    (*path, "table", value),
                    f"{given} is never {value!r}{suggest(value, values)}",
                )
        return None

    def _check_ranges(
        self, path: KeyPath, given: str, given_trait: Trait, draw: Draw
    ) -> None:
        """Check the keys of a table over a number: all are ranges, without overlaps or gaps."""
        intervals = []
        for value in draw.table or {}:
            interval = parse_range(value, given_trait.type == "integer")
            if interval is None:
                self.add_mistake(
                    (*path, "table", value),
                    f"{given} is a number: write ranges such as 18-24 or 65+",
                )
            else:
                intervals.append((*interval, value))
        intervals.sort()
        for (_, high, first), (low, _, second) in pairwise(intervals):
            if low < high:
                self.add_mistake(
                    (*path, "table", second), f"the ranges {first} and {second} overlap"
                )
        if (
            draw.default is None
            and intervals
            and len(intervals) == len(draw.table or {})
        ):
            reached = intervals[0][0]
            gap = given_trait.minimum is None or reached > given_trait.minimum
            for low, high, _ in intervals:
                gap, reached = gap or low > reached, max(reached, high)
            end = (
                float("inf")
                if given_trait.maximum is None
                else given_trait.maximum + (given_trait.type == "integer")
            )
            if gap or reached < end:
                between = (
                    f"{_bound_text(given_trait.minimum)} to "
                    f"{_bound_text(given_trait.maximum)}"
                )
                self.add_mistake(
                    (*path, "table"),
                    f"does not cover {given} from {between}, and has no default",
                )

    def _check_type(self, path: KeyPath, trait: Trait, draw: Draw) -> None:
        """Check that a draw gives values of the trait's type, within its bounds."""
        types_by_method = {**METHOD_TYPES, **dict.fromkeys(DISTRIBUTIONS, NUMERIC)}
        method = next(
            name for name in types_by_method if getattr(draw, name) is not None
        )
        if trait.type not in types_by_method[method]:
            alternatives = ", ".join(
                alternative
                for alternative, types in types_by_method.items()
                if trait.type in types
            )
            return self.add_mistake(
                path,
                f"a trait of type {trait.type} cannot be drawn by `{method}`; use one "
                f"of {alternatives}",
            )
        if trait.type in NUMERIC and method in ("categories", "one_of"):
            for value in draw.categories or draw.one_of or ():
                if not _is_number(value, trait.type):
                    return self.add_mistake(
                        path, f"{value!r} is not a number of type {trait.type}"
                    )
        if trait.type in NUMERIC and method not in ("column", "writer"):
            low, high = _support(draw)
            end = (
                None
                if trait.maximum is None
                else trait.maximum
                + (trait.type == "integer" and draw.distribution is not None)
            )
            if (trait.minimum is not None and low < trait.minimum) or (
                end is not None and high > end
            ):
                problem = f"gives numbers from {low:g} to {high:g}, which leave the trait's bounds"
                return self.add_mistake(
                    path,
                    f"{problem} ({_bound_text(trait.minimum)} to {_bound_text(trait.maximum)})",
                )
        return None

    def _check_faker(self, path: KeyPath, faker: Faker) -> None:
        from simforge.personas.faker_words import faker_words

        by = self.values.get(faker.by or "")
        if faker.locale is None:
            if by is None and faker.by in self.pack.traits:
                return self.add_mistake(
                    (*path, "by"),
                    f"the values of {faker.by!r} are not a fixed list: they must be locales",
                )
            locales = by or set()
        else:
            locales = (
                {faker.locale}
                if isinstance(faker.locale, str)
                else set(faker.locale.values())
            )
        for locale in sorted(locales):
            if not (
                locale.replace("_", "").isalnum()
                and importlib.util.find_spec(f"faker.providers.person.{locale}")
            ):
                self.add_mistake((*path, "locale"), f"Faker has no locale {locale!r}")
            elif faker_words(locale, faker.provider, "", probe_only=True) is None:
                self.add_mistake(
                    (*path, "provider"),
                    f"Faker has no provider {faker.provider!r} that needs no arguments",
                )
        if isinstance(faker.locale, dict):
            missing = sorted((by or set()) - set(faker.locale))
            if missing:
                self.add_mistake(
                    (*path, "locale"),
                    f"has no locale for {faker.by} = {_first_values(missing)}",
                )
        values = self.values.get(faker.sex or "")
        if values is not None and not values & {"female", "male"}:
            self.add_mistake(
                (*path, "sex"), f"{faker.sex!r} is never `female` or `male`"
            )
        return None

    def _check_column(self, path: KeyPath, trait: Trait, draw: Draw) -> None:
        assert draw.column is not None
        column = draw.column
        wanted = [column.name, *column.key, *([column.weight] if column.weight else [])]
        try:
            frame = tables.read_columns(column, tuple(dict.fromkeys(wanted)))
        except SourceError as problem:
            return self.add_mistake(path, str(problem))
        mismatch = column_problem(frame[column.name], trait)
        if mismatch:
            return self.add_mistake(
                (*path, "name"), f"the column {column.name!r} {mismatch}"
            )
        if column.weight is not None:
            mismatch = column_problem(
                frame[column.weight],
                Trait(type="number", minimum=0, draw=Draw(chance=1)),
            )
            if mismatch or not frame[column.weight].cast(float).sum() > 0:
                self.add_mistake(
                    (*path, "weight"),
                    f"the column {column.weight!r} {mismatch or 'has no weight above 0'}",
                )
        return None

    def _check_writer(self, path: KeyPath, reference: str) -> None:
        try:
            generator = templates.load(reference)
        except RecipeError as problem:
            self.mistakes += problem.mistakes
            return None
        except SimForgeError as problem:
            return self.add_mistake(path, str(problem))
        if generator.front.role != "writer":
            self.add_mistake(
                path,
                f"{generator.label} has the role {generator.front.role!r}, not `writer`",
            )
        self.mistakes += generator.check_templates(
            {**WRITER_VARIABLES, "traits": self._placeholder_person()}
        )
        return None

    def _check_cycles(self) -> None:
        graph = {
            name: sorted(dependencies(draw) & set(self.pack.draws) - {name})
            for name, draw in self.pack.draws.items()
        }
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as problem:
            circle = cast(list[str], problem.args[1])
            self.add_mistake(
                ("traits", circle[0]),
                f"depends on itself through a cycle: {' → '.join(reversed(circle))}",
            )

    def _check_correlated(self) -> None:
        seen: set[str] = set()
        for number, group in enumerate(self.pack.correlated):
            path: KeyPath = ("correlated", number, "traits")
            for name in group.traits:
                if name not in self.trait_names:
                    self.add_mistake(
                        path,
                        f"there is no trait {name!r}{suggest(name, self.trait_names)}",
                    )
                elif name in seen:
                    self.add_mistake(
                        path, f"{name!r} occurs more than once in the correlated groups"
                    )
                elif name in self.pack.traits:
                    draw = self.pack.traits[name].draw
                    if draw is None or any(
                        not _is_continuous(leaf) for leaf in draw.leaves()
                    ):
                        self.add_mistake(
                            path,
                            f"{name!r} must be drawn by one of {', '.join(DISTRIBUTIONS)}",
                        )
                    above = sorted(ancestors(name, self.pack) & set(group.traits))
                    if above:
                        self.add_mistake(
                            path,
                            f"{name!r} already depends on {above[0]!r}: do not "
                            "correlate them as well",
                        )
                seen.add(name)

    def _check_conditions(self) -> None:
        import polars as pl

        frame = pl.DataFrame(schema=polars_schema(self.pack))
        for number, text in enumerate(self.pack.where):
            path: KeyPath = ("where", number)
            try:
                condition = parse_condition(text)
                unknown = [
                    name for name in condition.columns if name not in self.trait_names
                ]
                if unknown:
                    self.add_mistake(
                        path,
                        f"there is no trait {unknown[0]!r}{suggest(unknown[0], self.trait_names)}",
                    )
                    continue
                if self.invalid & {*condition.columns}:
                    continue
                written = sorted(
                    {*condition.columns}
                    & {n for ns in self.pack.traits_by_writer.values() for n in ns}
                )
                if written:
                    self.add_mistake(path, str(self._reference_problem(written[0], "")))
                for name, literal in condition.compared:
                    values = self.values.get(name)
                    if values is not None and literal not in values:
                        self.add_mistake(
                            path,
                            f"{name} is never {literal!r}{suggest(literal, values)}",
                        )
                kind = frame.select(condition.expression).dtypes[0]
                if kind != pl.Boolean:
                    self.add_mistake(
                        path,
                        f"{text!r} is not a condition: it returns {kind}, not true or false",
                    )
            except (ValueError, pl.exceptions.PolarsError) as problem:
                self.add_mistake(
                    path,
                    f"{text!r} is not a condition: {str(problem).splitlines()[0]}",
                )

    def _check_target(self, path: KeyPath, target: Target) -> None:
        for depth, name in enumerate(target.traits):
            trait = self.pack.traits.get(name)
            if name not in self.trait_names:
                self.add_mistake(
                    (*path, "of"),
                    f"there is no trait {name!r}{suggest(name, self.trait_names)}",
                )
                continue
            if trait is None:
                continue
            if self._reference_problem(name, ""):
                self.add_mistake((*path, "of"), str(self._reference_problem(name, "")))
            values_in_target = {key[depth] for key in target.cells()}
            if trait.type in NUMERIC:
                intervals = sorted(
                    (
                        parse_range(value, trait.type == "integer")
                        or (float("-inf"), 0.0),
                        value,
                    )
                    for value in values_in_target
                )
                for (low, _), text in intervals:
                    if low == float("-inf"):
                        self.add_mistake(
                            (*path, "shares"),
                            f"{name} is a number: write ranges such as 18-24, not {text!r}",
                        )
                for ((_, high), first), ((low, _), second) in pairwise(intervals):
                    if low < high:
                        self.add_mistake(
                            (*path, "shares"),
                            f"the ranges {first} and {second} overlap",
                        )
                continue
            values = (
                {"true", "false"} if trait.type == "boolean" else self.values.get(name)
            )
            for text in sorted(values_in_target - values if values is not None else ()):
                self.add_mistake(
                    (*path, "shares"),
                    f"{name} is never {text!r}{suggest(text, values or ())}",
                )

    def _check_template(
        self, path: KeyPath, template: str, may_be_empty: bool = False
    ) -> None:
        """Check a template over traits by rendering it once with placeholder values."""
        try:
            unknown = template_variables(template) - self.trait_names
            for name in sorted(unknown):
                self.add_mistake(
                    path, f"there is no trait {name!r}{suggest(name, self.trait_names)}"
                )
            if (
                not unknown
                and not may_be_empty
                and not sandbox.compile_template(template)
                .render(self._placeholder_person())
                .strip()
            ):
                self.add_mistake(path, "the template is empty")
        except TemplateError as problem:
            self.add_mistake(path, f"the template does not render: {problem}")

    def _placeholder_person(self) -> JsonObject:
        """Return a person whose traits are all placeholders."""
        kinds = {"string": "x", "boolean": True}
        row = {
            name: kinds.get(trait.type, 1) for name, trait in self.pack.traits.items()
        }
        return {**dict.fromkeys(self.invalid, 1), **row}


def _possible_values(
    draw: Draw, known_values: dict[str, str] | None = None
) -> set[str] | None:
    """Return all values of a draw, including those of a table column; `None` if they are not a
    fixed list.

    If values of other traits are known, rows for other values are ignored.
    """
    texts: set[str] = set()
    for leaf in draw.leaves(known_values or {}):
        if leaf.column is not None:
            try:
                column = tables.read_columns(
                    leaf.column, (leaf.column.name,)
                ).to_series()
            except SourceError:
                return None
            if column.n_unique() > MAX_LISTED_VALUES:
                return None
            texts |= {
                value_text(value) for value in column.drop_nulls().unique().to_list()
            }
        else:
            values = leaf.values()
            if values is None:
                return None
            texts |= values
    return texts


def column_problem(column: pl.Series, trait: Trait) -> str | None:
    """Describe why a column does not fit a trait (wrong type, or values outside the trait's
    bounds), or return `None`."""
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
    if (trait.minimum is not None and low < trait.minimum) or (
        trait.maximum is not None and high > trait.maximum
    ):
        between = f"{_bound_text(trait.minimum)} to {_bound_text(trait.maximum)}"
        return f"holds numbers from {low:g} to {high:g}, which leave the trait's bounds ({between})"
    return None


def _is_continuous(draw: Draw) -> bool:
    return draw.distribution is not None


def _support(draw: Draw) -> tuple[float, float]:
    """Return the smallest and largest number that a draw can give."""
    if draw.categories is not None or draw.one_of is not None:
        numbers = [float(value) for value in draw.categories or draw.one_of or ()]
        return min(numbers), max(numbers)
    assert draw.distribution is not None
    return draw.distribution.support


def _is_number(value: Any, kind: str) -> bool:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return False
    if isinstance(value, bool) or not isfinite(number):
        return False
    return kind == "number" or number == int(number)


def _first_values(values: list[str]) -> str:
    shown = ", ".join(repr(value) for value in values[:3])
    return shown if len(values) <= 3 else f"{shown} and {len(values) - 3} more"


def _bound_text(value: float | None) -> str:
    return "any number" if value is None else f"{value:g}"
