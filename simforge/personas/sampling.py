"""Sampling people, one column at a time.

Every trait has its own random stream and uses one number in [0, 1) per candidate, which the
inverse distribution function of the trait turns into a value. So candidate i does not depend on
the number of people or on the batch size. People are the candidates that satisfy the pack's
constraints, in order: the first thousand people of a million are the people of a run with a
thousand. Only quotas, which must know how many people are wanted, break this property.

Words are sampled as codes into a vocabulary, conditions are resolved by code, and a whole
conditional table is one search, so no Python loop runs over rows. Correlated traits share a
Gaussian copula: their uniform numbers are made dependent before each goes through its own
distribution (Sklar 1959).
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from jinja2 import nodes

from simforge.catalog.sandbox import (
    Template,
    compile_template,
    parse_template,
    variables_of,
)
from simforge.errors import UsageError
from simforge.identity import derived_seed
from simforge.personas import tables
from simforge.personas.dependencies import sampling_order
from simforge.personas.distributions import Distribution
from simforge.personas.faker_words import faker_words
from simforge.personas.pack import ColumnSource as ColumnDraw
from simforge.personas.pack import (
    Draw,
    Faker,
    Pack,
    Trait,
    parse_range,
    polars_schema,
    value_text,
)
from simforge.personas.pack_checks import MAX_LISTED_VALUES, NUMERIC
from simforge.types import JsonObject

if TYPE_CHECKING:
    import polars as pl

    Array = np.ndarray[Any, Any]


MAX_BATCH = 1 << 17
"Maximum number of candidates that are sampled at once."


GROUP_COLUMN, VALUE_COLUMN, WEIGHT_COLUMN = " group", " value", " weight"
"Names of internal columns; no trait can have such a name."


class Vocabulary:
    """The words of a trait, each with a number (its code)."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._numbers: dict[str, int] = {}

    def codes(self, words: list[str]) -> Array:
        """Return the code of each word; new words are added."""
        for word in words:
            if word not in self._numbers:
                self._numbers[word] = len(self.words)
                self.words.append(word)
        return np.array([self._numbers[word] for word in words], dtype=np.int32)


@dataclass(frozen=True, slots=True)
class SampledColumn:
    """A sampled column: numbers, or codes into a vocabulary."""

    data: Array
    vocabulary: Vocabulary | None = None

    def series(self, name: str, kind: Any) -> pl.Series:
        import polars as pl

        if self.vocabulary is None:
            return pl.Series(name, self.data, dtype=kind)
        return pl.Series(name, self.vocabulary.words, dtype=pl.String).gather(self.data)

    def at(self, rows: Array | None) -> Array:
        return self.data if rows is None else self.data[rows]


Columns = dict[str, SampledColumn]


class StackedChoices:
    """Several weighted choices in one array, so that a single search serves every row,
    whatever its choice."""

    def __init__(self, choices: list[WeightedChoice]) -> None:
        self._codes = np.concatenate([choice.codes for choice in choices])
        self._ends = np.concatenate(
            [number + np.cumsum(choice.shares) for number, choice in enumerate(choices)]
        )
        self._starts = np.cumsum([0, *(len(choice.codes) for choice in choices)])

    def sample(self, choice_numbers: Array, uniform: Array) -> Array:
        """Sample a code for each row from that row's choice."""
        positions = np.searchsorted(self._ends, choice_numbers + uniform, side="right")
        codes: Array = self._codes[
            np.clip(
                positions,
                self._starts[choice_numbers],
                self._starts[choice_numbers + 1] - 1,
            )
        ]
        return codes


class Undrawable:
    """The candidates of a batch for whom a value cannot be sampled, with the reason. This is
    an error unless they are rejected by a condition."""

    def __init__(self) -> None:
        self.entries: list[tuple[Array, str]] = []

    def add(self, mask: Array, rows: Array | None, reason: str) -> None:
        """Add the candidates that the mask selects among `rows` (among all candidates if
        `None`)."""
        self.entries.append(
            (np.flatnonzero(mask) if rows is None else rows[mask], reason)
        )


@dataclass(frozen=True)
class WeightedChoice:
    """A weighted choice among values."""

    values: tuple[str, ...]
    codes: Array
    shares: Array
    "Parallel to `codes`; the shares sum to 1."
    long_list: str = ""
    "Description of the list, for choices from long lists; else empty."

    def sample(self, uniform: Array, rows: Array | None, columns: Columns) -> Array:
        positions = np.searchsorted(np.cumsum(self.shares), uniform, side="right")
        codes: Array = self.codes[np.minimum(positions, len(self.codes) - 1)]
        return codes


@dataclass(frozen=True)
class ContinuousDistribution:
    """A number with a probability density."""

    distribution: Distribution

    def sample(self, uniform: Array, rows: Array | None, columns: Columns) -> Array:
        return self.distribution.quantile(np.maximum(uniform, 2.0**-54))


@dataclass(frozen=True)
class Bernoulli:
    """True with a fixed probability, else false."""

    share: float

    def sample(self, uniform: Array, rows: Array | None, columns: Columns) -> Array:
        return uniform < self.share


@dataclass(frozen=True)
class Birthday:
    """The birthday of a person whose age on a given date is known."""

    age: str
    on: datetime.date
    vocabulary: Vocabulary

    def sample(self, uniform: Array, rows: Array | None, columns: Columns) -> Array:
        ages = columns[self.age].at(rows).astype(np.int64)
        on = np.datetime64(self.on, "D")
        latest, earliest = (
            _years_before(on, ages),
            _years_before(on, ages + 1) + np.timedelta64(1, "D"),
        )
        span = (latest - earliest).astype(np.int64) + 1
        days = earliest + np.floor(uniform * span).astype(np.int64)
        distinct, inverse = np.unique(days, return_inverse=True)
        codes: Array = self.vocabulary.codes([str(day) for day in distinct])[inverse]
        return codes


def _years_before(day: np.datetime64, years: Array) -> Array:
    """Return the same day that many years before; 28 February for 29 February in non-leap
    years."""
    month = day.astype("datetime64[M]")
    day_of_month = day - month.astype("datetime64[D]")
    target_month = month - years * 12
    last_day = (target_month + 1).astype("datetime64[D]") - np.timedelta64(1, "D")
    return np.asarray(
        np.minimum(target_month.astype("datetime64[D]") + day_of_month, last_day)
    )


@dataclass(frozen=True)
class TemplateText:
    """A text rendered from a template over other traits."""

    template: str
    names: list[str]
    "The traits that the template uses."
    vocabulary: Vocabulary

    def sample(self, uniform: Array, rows: Array | None, columns: Columns) -> Array:
        import polars as pl

        frame = pl.DataFrame([_series(name, columns[name]) for name in self.names])
        frame = frame if rows is None else frame[rows]
        parts = _template_parts(self.template, frame)
        if parts is not None:
            texts = frame.select(pl.concat_str(parts).alias("text"))["text"]
        else:
            template, distinct = (
                compile_template(self.template),
                frame.unique(maintain_order=True),
            )
            rendered = pl.Series(
                "text",
                [_render(template, row) for row in distinct.iter_rows(named=True)],
            )
            texts = frame.join(
                distinct.with_columns(rendered),
                on=frame.columns,
                nulls_equal=True,
                maintain_order="left",
            )["text"]
        words = texts.unique(maintain_order=True)
        codes = self.vocabulary.codes(words.to_list())
        text_codes = texts.replace_strict(
            words, pl.Series(codes), return_dtype=pl.Int32
        )
        return text_codes.to_numpy()


@dataclass(frozen=True)
class TableColumn:
    """A column of a table, sampled from the rows whose key columns equal the person's
    traits."""

    groups: pl.DataFrame
    "Key columns (named after the traits) and the number of their group."
    children: list[WeightedChoice]
    "The weighted choice of each group."
    flat: StackedChoices
    description: str
    undrawable: Undrawable

    def group_numbers(self, columns: Columns, rows: Array | None) -> Array:
        """Return the group of each row."""
        import polars as pl

        keys = [name for name in self.groups.columns if name != GROUP_COLUMN]
        frame = pl.DataFrame(
            [_series(name, columns[name]).cast(pl.String) for name in keys]
        )
        frame = frame if rows is None else frame[rows]
        groups = frame.join(self.groups, on=keys, how="left", maintain_order="left")[
            GROUP_COLUMN
        ]
        if groups.null_count():
            example = frame.filter(groups.is_null()).row(0, named=True)
            keys_text = ", ".join(
                f"{name} = {value!r}" for name, value in example.items()
            )
            self.undrawable.add(
                groups.is_null().to_numpy(),
                rows,
                f"{self.description} has no row for {keys_text}",
            )
        return groups.fill_null(0).to_numpy()

    def sample(self, uniform: Array, rows: Array | None, columns: Columns) -> Array:
        return self.flat.sample(self.group_numbers(columns, rows), uniform)


@dataclass(frozen=True)
class Conditional:
    """A separate draw for each value of another trait."""

    given: str
    labels: list[str]
    children: list[Node]
    route: Callable[[SampledColumn, Array | None], Array]
    "Returns the number of the child for each row."
    flat: StackedChoices | None
    "All children in one array, if each is a weighted choice."
    undrawable: Undrawable

    def child_numbers(self, columns: Columns, rows: Array | None) -> Array:
        """Return the number of the child for each row."""
        column = columns[self.given]
        children = self.route(column, rows)
        outside = children >= len(self.children)
        if outside.any():
            value = column.at(rows)[int(outside.argmax())]
            shown = (
                column.vocabulary.words[value]
                if column.vocabulary is not None
                else value
            )
            self.undrawable.add(
                outside, rows, f"there is no draw for {self.given} = {shown!r}"
            )
            children = np.where(outside, 0, children)
        return children

    def sample(self, uniform: Array, rows: Array | None, columns: Columns) -> Array:
        child = self.child_numbers(columns, rows)
        if self.flat is not None:
            return self.flat.sample(child, uniform)
        by_child = np.argsort(child, kind="stable")
        starts = np.searchsorted(child[by_child], np.arange(len(self.children) + 1))
        out: Array | None = None
        for number, node in enumerate(self.children):
            child_rows = by_child[starts[number] : starts[number + 1]]
            if len(child_rows):
                values = node.sample(
                    uniform[child_rows],
                    child_rows if rows is None else rows[child_rows],
                    columns,
                )
                out = np.empty(len(uniform), dtype=values.dtype) if out is None else out
                out[child_rows] = values
        return np.empty(0) if out is None else out


Node = (
    WeightedChoice
    | ContinuousDistribution
    | Bernoulli
    | Birthday
    | TemplateText
    | TableColumn
    | Conditional
)


class Sampler:
    """Samples candidates of a pack in batches; the result does not depend on the batch size."""

    def __init__(self, pack: Pack, seed: int) -> None:
        self.pack, self.seed = pack, seed
        self.vocabularies: dict[str, Vocabulary] = {
            name: Vocabulary() for name in pack.traits
        }
        self.nodes: dict[str, Node] = {}
        self.candidate_count = 0
        "Number of candidates sampled so far."
        self.incomplete = 0
        "Number of rows of the `people` table that miss a value and are left out."
        self.undrawable = Undrawable()
        "The candidates of the last batch for whom a value could not be sampled."
        self._order = [
            name for name in sampling_order(pack) if pack.draws[name].writer is None
        ]
        self._people = self._read_people()
        for name in self._order:
            self.nodes[name] = self._build_node(
                pack.traits[name], pack.draws[name], self.vocabularies[name]
            )
        self._streams = {
            name: np.random.Generator(
                np.random.Philox(derived_seed(seed, "trait", name))
            )
            for name in self._order
        }
        self._mixing = [
            (group.traits, np.linalg.cholesky(np.array(group.matrix())))
            for group in pack.correlated
        ]

    def batch(self, size: int) -> Columns:
        """Sample the next `size` candidates: every trait that is not written by a model."""
        self.undrawable.entries.clear()
        uniform = {name: stream.random(size) for name, stream in self._streams.items()}
        for names, mixing in self._mixing:
            from scipy import special  # slow to import, and needed by few packs

            normal = special.ndtri(
                np.maximum([uniform[name] for name in names], 2.0**-54)
            )
            uniform |= dict(zip(names, special.ndtr(mixing @ normal), strict=True))
        columns = self._next_people(size)
        for name in self._order:
            data = self.nodes[name].sample(uniform[name], None, columns)
            columns[name] = self._typed_column(name, data)
        self.candidate_count += size
        return columns

    def frame(self, columns: Columns) -> pl.DataFrame:
        """Return columns as a table in the pack's order; traits that a model writes are
        null."""
        import polars as pl

        kinds = polars_schema(self.pack)
        size = len(next(iter(columns.values())).data)
        return pl.DataFrame(
            [
                columns[name].series(name, kinds[name])
                if name in columns
                else pl.Series(name, [None] * size, dtype=kinds[name])
                for name in self.pack.traits
            ]
        )

    def _typed_column(self, name: str, data: Array) -> SampledColumn:
        kind = self.pack.traits[name].type
        if kind == "string":
            return SampledColumn(data, self.vocabularies[name])
        if kind == "boolean" or data.dtype.kind == "b":
            return SampledColumn(data.astype(bool))
        if kind == "integer":
            return SampledColumn(
                np.floor(np.clip(data, -(2.0**62), 2.0**62)).astype(np.int64)
            )
        return SampledColumn(data.astype(np.float64))

    def _build_node(self, trait: Trait, draw: Draw, vocabulary: Vocabulary) -> Node:
        """Build the sampler of one draw."""
        if draw.table is not None:
            return self._build_conditional(trait, draw, vocabulary)
        if draw.categories is not None or draw.one_of is not None:
            shares = draw.categories or Counter(
                value_text(value) for value in draw.one_of or ()
            )
            return self._build_choice(
                trait, list(shares), list(shares.values()), vocabulary
            )
        if draw.chance is not None:
            return Bernoulli(draw.chance)
        if draw.faker is not None:
            return self._build_faker(draw.faker, vocabulary)
        if draw.date is not None:
            if draw.date.age is not None and draw.date.on is not None:
                return Birthday(draw.date.age, draw.date.on, vocabulary)
            assert draw.date.first is not None and draw.date.last is not None
            span = (draw.date.last - draw.date.first).days + 1
            days = [
                str(draw.date.first + datetime.timedelta(days=number))
                for number in range(span)
            ]
            return self._build_choice(trait, days, [1.0] * span, vocabulary)
        if draw.template is not None:
            names = sorted(variables_of(draw.template))
            if not names:
                return self._build_choice(
                    trait, [compile_template(draw.template).render()], [1.0], vocabulary
                )
            return TemplateText(draw.template, names, vocabulary)
        if draw.column is not None:
            return self._build_table_column(trait, draw.column, vocabulary)
        assert draw.distribution is not None
        return ContinuousDistribution(draw.distribution)

    def _build_choice(
        self,
        trait: Trait | None,
        values: list[str],
        weights: list[float],
        vocabulary: Vocabulary,
        long_list: str = "",
    ) -> WeightedChoice:
        shares = np.array(weights, dtype=np.float64) / sum(weights)
        if trait is not None and trait.type == "boolean":
            codes = np.array([value.lower() in ("true", "1") for value in values])
        elif trait is not None and trait.type in NUMERIC:
            codes = np.array([float(value) for value in values])
        else:
            codes = vocabulary.codes(values)
        return WeightedChoice(tuple(values), codes, shares, long_list)

    def _build_conditional(
        self, trait: Trait, draw: Draw, vocabulary: Vocabulary
    ) -> Conditional:
        assert draw.table is not None and isinstance(draw.given, str)
        labels = [*draw.table, *(["otherwise"] if draw.default else [])]
        children = [
            self._build_node(trait, row, vocabulary) for row in draw.table.values()
        ]
        children += (
            [self._build_node(trait, draw.default, vocabulary)] if draw.default else []
        )
        return self._conditional(draw.given, labels, children, draw.default is not None)

    def _conditional(
        self, given: str, labels: list[str], children: list[Node], has_default: bool
    ) -> Conditional:
        words = [child for child in children if isinstance(child, WeightedChoice)]
        flat = StackedChoices(words) if len(words) == len(children) else None
        keys = labels[:-1] if has_default else labels
        kind = self.pack.traits[given].type
        route = (
            _range_router(keys, kind == "integer")
            if kind in NUMERIC
            else _word_router(keys)
        )
        return Conditional(given, labels, children, route, flat, self.undrawable)

    def _build_faker(self, faker: Faker, vocabulary: Vocabulary) -> Node:
        """Build the choice among a locale's words: the trait `by` selects the locale, `sex`
        the first names."""

        def of(locale: str, sex: str) -> WeightedChoice:
            words = faker_words(locale, faker.provider, sex)
            assert words is not None, "checked when the pack was read"
            return self._build_choice(
                None, *words, vocabulary, f"Faker's {faker.provider}, {locale}"
            )

        cache: dict[tuple[str, str], WeightedChoice] = {}

        def once(locale: str, sex: str) -> WeightedChoice:
            if (locale, sex) not in cache:
                cache[locale, sex] = of(locale, sex)
            return cache[locale, sex]

        def by_sex(locale: str) -> Node:
            if faker.sex is None or faker.provider != "first_name":
                return once(locale, "")
            both = [once(locale, "female"), once(locale, "male"), once(locale, "")]
            return self._conditional(
                faker.sex, ["female", "male", "otherwise"], list(both), True
            )

        if isinstance(faker.locale, str):
            return by_sex(faker.locale)
        assert faker.by is not None
        words = self.vocabularies[faker.by].words  # its sampler was built before
        locales = (
            faker.locale
            if faker.locale is not None
            else dict(zip(words, words, strict=True))
        )
        return self._conditional(
            faker.by,
            list(locales),
            [by_sex(locale) for locale in locales.values()],
            False,
        )

    def _build_table_column(
        self, trait: Trait, column: ColumnDraw, vocabulary: Vocabulary
    ) -> Node:
        import polars as pl

        wanted = dict.fromkeys(
            [column.name, *column.key, *([column.weight] if column.weight else [])]
        )
        frame = tables.read_columns(column, tuple(wanted)).drop_nulls()
        weight = (
            pl.col(column.weight).cast(pl.Float64) if column.weight else pl.lit(1.0)
        )
        value = pl.col(column.name).cast(pl.String).alias(VALUE_COLUMN)
        keys = [
            pl.col(name).cast(pl.String).alias(used)
            for name, used in column.key.items()
        ]
        grouped = (
            frame.select(*keys, value, weight.alias(WEIGHT_COLUMN))
            .group_by([*column.key.values(), VALUE_COLUMN], maintain_order=True)
            .agg(pl.col(WEIGHT_COLUMN).sum())
            .filter(pl.col(WEIGHT_COLUMN) > 0)
        )
        about = f"the column {column.name!r} of {column.hf or column.file.rpartition('/')[2]}"
        if not column.key:
            long_list = about if grouped.height > MAX_LISTED_VALUES else ""
            return self._build_choice(
                trait,
                grouped[VALUE_COLUMN].to_list(),
                grouped[WEIGHT_COLUMN].to_list(),
                vocabulary,
                long_list,
            )
        by_key = grouped.group_by(list(column.key.values()), maintain_order=True).agg(
            VALUE_COLUMN, WEIGHT_COLUMN
        )
        choices = [
            self._build_choice(trait, values, weights, vocabulary)
            for values, weights in zip(
                by_key[VALUE_COLUMN].to_list(),
                by_key[WEIGHT_COLUMN].to_list(),
                strict=True,
            )
        ]
        groups = by_key.select(*column.key.values()).with_row_index(GROUP_COLUMN)
        return TableColumn(
            groups, choices, StackedChoices(choices), about, self.undrawable
        )

    def _read_people(self) -> pl.DataFrame | None:
        """Read the columns of the `people` table as the types of their traits."""
        named = {
            name: trait
            for name, trait in self.pack.traits.items()
            if trait.source is not None
        }
        if self.pack.people is None or not named:
            return None
        kinds = polars_schema(self.pack)
        read = tables.read_columns(
            self.pack.people,
            tuple(dict.fromkeys(str(trait.source) for trait in named.values())),
        )
        import polars as pl

        try:
            frame = read.select(
                pl.col(str(trait.source)).cast(kinds[name]).alias(name)
                for name, trait in named.items()
            )
        except pl.exceptions.PolarsError as problem:
            raise UsageError(
                f"the people's file does not fit the traits: {str(problem).splitlines()[0]}."
            ) from None
        whole = frame.drop_nulls()
        self.incomplete = frame.height - whole.height
        if not whole.height:
            raise UsageError(
                "the people's file has no row in which every named column has a value."
            )
        return whole

    def _next_people(self, size: int) -> Columns:
        """Return the next rows of the `people` table in shuffled order; every row is used
        once before any is used again."""
        if self._people is None:
            return {}
        count = self._people.height
        positions = np.arange(self.candidate_count, self.candidate_count + size)
        rows = np.empty(size, dtype=np.int64)
        for cycle in np.unique(positions // count):
            shuffle = np.random.Generator(
                np.random.Philox(derived_seed(self.seed, "people", str(cycle)))
            )
            in_cycle = positions // count == cycle
            rows[in_cycle] = shuffle.permutation(count)[positions[in_cycle] % count]
        columns: Columns = {}
        for name in self._people.columns:
            column = self._people[name][rows]
            if self.pack.traits[name].type == "string":
                words = column.unique(maintain_order=True)
                codes = self.vocabularies[name].codes(words.to_list())
                columns[name] = SampledColumn(
                    _to_codes(column, words, codes), self.vocabularies[name]
                )
            else:
                columns[name] = SampledColumn(column.to_numpy())
        return columns


def _render(template: Template, row: JsonObject) -> str:
    try:
        return template.render(row)
    except jinja2.TemplateError as problem:
        raise UsageError(f"a template does not render for {row}: {problem}.") from None


def _word_router(keys: list[str]) -> Callable[[SampledColumn, Array | None], Array]:
    """Return a function that maps each word to the number of its key, other words to
    `len(keys)`."""
    key_numbers = {key: number for number, key in enumerate(keys)}

    def route(column: SampledColumn, rows: Array | None) -> Array:
        words = (
            column.vocabulary.words
            if column.vocabulary is not None
            else ["false", "true"]
        )
        table = np.array(
            [key_numbers.get(word, len(keys)) for word in words], dtype=np.int64
        )
        return table[column.at(rows).astype(np.int64)]

    return route


def _range_router(
    keys: list[str], integer: bool
) -> Callable[[SampledColumn, Array | None], Array]:
    """Return a function that maps each number to the number of its range, others to
    `len(keys)`."""
    intervals = [
        (*(parse_range(key, integer) or (0.0, 0.0)), number)
        for number, key in enumerate(keys)
    ]
    intervals.sort()
    lows = np.array([low for low, _, _ in intervals])
    highs = np.array([high for _, high, _ in intervals])
    key_numbers = np.array([number for _, _, number in intervals])

    def route(column: SampledColumn, rows: Array | None) -> Array:
        values = column.at(rows)
        positions = np.searchsorted(lows, values, side="right") - 1
        inside = (positions >= 0) & (
            (values < highs[positions]) | (not integer and values == highs[-1])
        )
        return np.where(inside, key_numbers[positions], len(keys))

    return route


def _series(name: str, column: SampledColumn) -> pl.Series:
    import polars as pl

    kind = pl.String if column.vocabulary is not None else None
    return column.series(name, kind)


def _to_codes(column: pl.Series, words: pl.Series, codes: Array) -> Array:
    import polars as pl

    return column.replace_strict(
        words, pl.Series(codes), return_dtype=pl.Int32
    ).to_numpy()


def _template_parts(template: str, frame: pl.DataFrame) -> list[pl.Expr] | None:
    """Return the template as literal texts and columns, or `None` if it has anything else
    (or if a column is neither text nor whole numbers)."""
    import polars as pl

    parts: list[pl.Expr] = []
    for node in parse_template(template).body:
        if not isinstance(node, nodes.Output):
            return None
        for piece in node.nodes:
            expression = _template_part(piece)
            if expression is None or any(
                frame.schema[n] in (pl.Float64, pl.Boolean)
                for n in expression.meta.root_names()
            ):
                return None
            parts.append(expression)
    return parts


def _template_part(piece: nodes.Expr) -> pl.Expr | None:
    import polars as pl

    if isinstance(piece, nodes.TemplateData):
        return pl.lit(piece.data)
    if isinstance(piece, nodes.Name):
        return pl.col(piece.name).cast(pl.String)
    if (
        isinstance(piece, nodes.Filter)
        and piece.name in ("lower", "upper")
        and piece.node is not None
    ):
        inner = _template_part(piece.node)
        if inner is None or piece.args or piece.kwargs:
            return None
        return (
            inner.str.to_lowercase()
            if piece.name == "lower"
            else inner.str.to_uppercase()
        )
    return None
