"""Drawing people, a column at a time.

Every trait has a random stream of its own and takes one number in [0, 1) per candidate, which its distribution turns
into a value (inverse distribution function). So candidate i is the same whatever the number of people or the size of a
batch; people are the candidates that satisfy the pack's constraints, in order, and the first thousand of a million are
the people of a run of a thousand. Only quotas, which must know how many are wanted, give that up.

Words are drawn as codes into a vocabulary, conditions are routed by code, and a whole conditional table is one search,
so that nothing loops over rows. Correlated traits share a Gaussian copula: their numbers are made dependent before each
goes through its own distribution (Sklar 1959).
"""

from __future__ import annotations

import datetime
import importlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jinja2
import jinja2.meta
import numpy as np
from jinja2 import nodes
from scipy import special

from simforge.errors import UsageError
from simforge.generators import compiled
from simforge.identity import derived_seed
from simforge.personas import tables
from simforge.personas.pack import Column as ColumnDraw
from simforge.personas.pack import Draw, Faker, Pack, Trait, bounds, plain
from simforge.personas.reading import MANY, NUMERIC, order, schema

if TYPE_CHECKING:
    import polars as pl

    Array = np.ndarray[Any, Any]

BATCH = 1 << 17
"Most candidates that are drawn at once."
GROUP, VALUE, WEIGHT = " group", " value", " weight"
"Columns beside traits, which cannot have such names."
POOL = 2_000
"Words drawn from a Faker provider that has no list of its own."


class Vocabulary:
    """The words of a trait, numbered."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._numbers: dict[str, int] = {}

    def codes(self, words: list[str]) -> Array:
        """The number of each word; new ones are added."""
        for word in words:
            if word not in self._numbers:
                self._numbers[word] = len(self.words)
                self.words.append(word)
        return np.array([self._numbers[word] for word in words], dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A drawn column: numbers, or codes into a vocabulary."""

    data: Array
    vocabulary: Vocabulary | None = None

    def series(self, name: str, kind: Any) -> pl.Series:
        import polars as pl

        if self.vocabulary is None:
            return pl.Series(name, self.data, dtype=kind)
        return pl.Series(name, self.vocabulary.words, dtype=pl.String).gather(self.data)

    def of(self, rows: Array | None) -> Array:
        return self.data if rows is None else self.data[rows]


Columns = dict[str, Drawn]


class Flat:
    """Several choices laid end to end, so that one search answers every row, whichever choice it is for."""

    def __init__(self, choices: list[Words]) -> None:
        self._codes = np.concatenate([one.codes for one in choices])
        self._ends = np.concatenate([number + np.cumsum(one.shares) for number, one in enumerate(choices)])
        self._starts = np.cumsum([0, *(len(one.codes) for one in choices)])

    def draw(self, which: Array, uniform: Array) -> Array:
        """For each row a code out of its choice."""
        place = np.searchsorted(self._ends, which + uniform, side="right")
        found: Array = self._codes[np.clip(place, self._starts[which], self._starts[which + 1] - 1)]
        return found


class Lacking:
    """The candidates of a batch for whom something cannot be drawn, and why: a mistake unless they are passed over."""

    def __init__(self) -> None:
        self.reasons: list[tuple[Array, str]] = []

    def note(self, here: Array, rows: Array | None, why: str) -> None:
        """`here` marks them among `rows` (among all, where `None`)."""
        self.reasons.append((np.flatnonzero(here) if rows is None else rows[here], why))


@dataclass(frozen=True)
class Words:
    """A choice among values, by weight."""

    values: tuple[str, ...]
    codes: Array
    shares: Array
    "Parallel to `codes`; they sum to 1."
    about: str = ""
    "For choices from long lists: which list."

    def fill(self, uniform: Array, rows: Array | None, columns: Columns) -> Array:
        place = np.searchsorted(np.cumsum(self.shares), uniform, side="right")
        found: Array = self.codes[np.minimum(place, len(self.codes) - 1)]
        return found


@dataclass(frozen=True)
class Numbers:
    """A number with a density."""

    quantile: Callable[[Array], Array]
    below: Callable[[Array], Array]
    "The share of people below a number."

    def fill(self, uniform: Array, rows: Array | None, columns: Columns) -> Array:
        return self.quantile(np.maximum(uniform, 2.0**-54))


@dataclass(frozen=True)
class Chance:
    """True or false."""

    share: float

    def fill(self, uniform: Array, rows: Array | None, columns: Columns) -> Array:
        return uniform < self.share


@dataclass(frozen=True)
class Born:
    """The birthday of somebody whose age on a day is known."""

    age: str
    on: datetime.date
    vocabulary: Vocabulary

    def fill(self, uniform: Array, rows: Array | None, columns: Columns) -> Array:
        ages = columns[self.age].of(rows).astype(np.int64)
        on = np.datetime64(self.on, "D")
        latest, earliest = _years_before(on, ages), _years_before(on, ages + 1) + np.timedelta64(1, "D")
        span = (latest - earliest).astype(np.int64) + 1
        days = earliest + np.floor(uniform * span).astype(np.int64)
        found, place = np.unique(days, return_inverse=True)
        codes: Array = self.vocabulary.codes([str(day) for day in found])[place]
        return codes


def _years_before(day: np.datetime64, years: Array) -> Array:
    """The same day so many years before; 28 February for 29 February in other years."""
    month = day.astype("datetime64[M]")
    within = day - month.astype("datetime64[D]")
    then = month - years * 12
    last = (then + 1).astype("datetime64[D]") - np.timedelta64(1, "D")
    return np.asarray(np.minimum(then.astype("datetime64[D]") + within, last))


@dataclass(frozen=True)
class Pieces:
    """A text over other traits."""

    template: str
    names: list[str]
    "The traits that it uses."
    vocabulary: Vocabulary

    def fill(self, uniform: Array, rows: Array | None, columns: Columns) -> Array:
        import polars as pl

        frame = pl.DataFrame([_series(name, columns[name]) for name in self.names])
        frame = frame if rows is None else frame[rows]
        parts = _plain_parts(self.template, frame)
        if parts is not None:
            texts = frame.select(pl.concat_str(parts).alias("text"))["text"]
        else:
            template, distinct = compiled(self.template), frame.unique(maintain_order=True)
            said = pl.Series("text", [_rendered(template, row) for row in distinct.iter_rows(named=True)])
            texts = frame.join(distinct.with_columns(said), on=frame.columns, nulls_equal=True, maintain_order="left")[
                "text"
            ]
        words = texts.unique(maintain_order=True)
        codes = self.vocabulary.codes(words.to_list())
        places = texts.replace_strict(words, pl.Series(codes), return_dtype=pl.Int32)
        return places.to_numpy()


@dataclass(frozen=True)
class Rows:
    """A column of a table, from the rows whose keys equal traits."""

    groups: pl.DataFrame
    "Key columns (named as traits) and the number of their group."
    children: list[Words]
    "The choice of each group."
    flat: Flat
    about: str
    lacking: Lacking

    def route(self, columns: Columns, rows: Array | None) -> Array:
        """The group of each row."""
        import polars as pl

        keys = [name for name in self.groups.columns if name != GROUP]
        frame = pl.DataFrame([_series(name, columns[name]).cast(pl.String) for name in keys])
        frame = frame if rows is None else frame[rows]
        found = frame.join(self.groups, on=keys, how="left", maintain_order="left")[GROUP]
        if found.null_count():
            lacking = frame.filter(found.is_null()).row(0, named=True)
            said = ", ".join(f"{name} = {value!r}" for name, value in lacking.items())
            self.lacking.note(found.is_null().to_numpy(), rows, f"{self.about} has no row for {said}")
        return found.fill_null(0).to_numpy()

    def fill(self, uniform: Array, rows: Array | None, columns: Columns) -> Array:
        return self.flat.draw(self.route(columns, rows), uniform)


@dataclass(frozen=True)
class Branch:
    """A way of drawing for each value of another trait."""

    given: str
    labels: list[str]
    children: list[Node]
    route: Callable[[Drawn, Array | None], Array]
    "The child of each row."
    flat: Flat | None
    "All children together, where each is a choice among values."
    lacking: Lacking

    def child(self, columns: Columns, rows: Array | None) -> Array:
        """The number of the child of each row."""
        column = columns[self.given]
        found = self.route(column, rows)
        outside = found >= len(self.children)
        if outside.any():
            value = column.of(rows)[int(outside.argmax())]
            shown = column.vocabulary.words[value] if column.vocabulary is not None else value
            self.lacking.note(outside, rows, f"nothing says how to draw for {self.given} = {shown!r}")
            found = np.where(outside, 0, found)
        return found

    def fill(self, uniform: Array, rows: Array | None, columns: Columns) -> Array:
        child = self.child(columns, rows)
        if self.flat is not None:
            return self.flat.draw(child, uniform)
        by_child = np.argsort(child, kind="stable")
        starts = np.searchsorted(child[by_child], np.arange(len(self.children) + 1))
        out: Array | None = None
        for number, one in enumerate(self.children):
            here = by_child[starts[number] : starts[number + 1]]
            if len(here):
                values = one.fill(uniform[here], here if rows is None else rows[here], columns)
                out = np.empty(len(uniform), dtype=values.dtype) if out is None else out
                out[here] = values
        return np.empty(0) if out is None else out


Node = Words | Numbers | Chance | Born | Pieces | Rows | Branch


class Sampler:
    """Draws candidates of a pack, batch after batch; what comes out does not depend on the size of the batches."""

    def __init__(self, pack: Pack, seed: int) -> None:
        self.pack, self.seed = pack, seed
        self.vocabularies: dict[str, Vocabulary] = {name: Vocabulary() for name in pack.traits}
        self.nodes: dict[str, Node] = {}
        self.drawn = 0
        "Candidates so far."
        self.incomplete = 0
        "Rows of other people's personas that lack a value, and are left out."
        self.lacking = Lacking()
        "Who of the last batch could not be drawn whole."
        self._order = [name for name in order(pack) if pack.drawn[name].writer is None]
        self._people = self._read_people()
        for name in self._order:
            self.nodes[name] = self._node(pack.traits[name], pack.drawn[name], self.vocabularies[name])
        self._streams = {
            name: np.random.Generator(np.random.Philox(derived_seed(seed, "trait", name))) for name in self._order
        }
        self._mixing = [(group.traits, np.linalg.cholesky(np.array(group.matrix()))) for group in pack.correlated]

    def batch(self, size: int) -> Columns:
        """The next `size` candidates: every trait that is not written by a model."""
        self.lacking.reasons.clear()
        uniform = {name: stream.random(size) for name, stream in self._streams.items()}
        for names, mixing in self._mixing:
            normal = special.ndtri(np.maximum([uniform[name] for name in names], 2.0**-54))
            uniform |= dict(zip(names, special.ndtr(mixing @ normal), strict=True))
        columns = self._of_people(size)
        for name in self._order:
            data = self.nodes[name].fill(uniform[name], None, columns)
            columns[name] = self._column(name, data)
        self.drawn += size
        return columns

    def frame(self, columns: Columns) -> pl.DataFrame:
        """Columns as a table, in the pack's order; what a model writes is null."""
        import polars as pl

        kinds = schema(self.pack)
        size = len(next(iter(columns.values())).data)
        return pl.DataFrame(
            [
                columns[name].series(name, kinds[name])
                if name in columns
                else pl.Series(name, [None] * size, dtype=kinds[name])
                for name in self.pack.traits
            ]
        )

    def _column(self, name: str, data: Array) -> Drawn:
        kind = self.pack.traits[name].type
        if kind == "string":
            return Drawn(data, self.vocabularies[name])
        if kind == "boolean" or data.dtype.kind == "b":
            return Drawn(data.astype(bool))
        if kind == "integer":
            return Drawn(np.floor(np.clip(data, -(2.0**62), 2.0**62)).astype(np.int64))
        return Drawn(data.astype(np.float64))

    def _node(self, trait: Trait, draw: Draw, vocabulary: Vocabulary) -> Node:
        """A draw, made ready."""
        if draw.table is not None:
            return self._branch(trait, draw, vocabulary)
        if draw.categories is not None or draw.one_of is not None:
            shares = draw.categories or Counter(plain(value) for value in draw.one_of or ())
            return self._words(trait, list(shares), list(shares.values()), vocabulary)
        if draw.chance is not None:
            return Chance(draw.chance)
        if draw.faker is not None:
            return self._faker(draw.faker, vocabulary)
        if draw.date is not None:
            if draw.date.age is not None and draw.date.on is not None:
                return Born(draw.date.age, draw.date.on, vocabulary)
            assert draw.date.first is not None and draw.date.last is not None
            span = (draw.date.last - draw.date.first).days + 1
            days = [str(draw.date.first + datetime.timedelta(days=number)) for number in range(span)]
            return self._words(trait, days, [1.0] * span, vocabulary)
        if draw.template is not None:
            names = sorted(jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(draw.template)))
            if not names:
                return self._words(trait, [compiled(draw.template).render()], [1.0], vocabulary)
            return Pieces(draw.template, names, vocabulary)
        if draw.column is not None:
            return self._rows(trait, draw.column, vocabulary)
        return numbers(draw)

    def _words(
        self, trait: Trait | None, values: list[str], weights: list[float], vocabulary: Vocabulary, about: str = ""
    ) -> Words:
        shares = np.array(weights, dtype=np.float64) / sum(weights)
        if trait is not None and trait.type == "boolean":
            codes = np.array([value.lower() in ("true", "1") for value in values])
        elif trait is not None and trait.type in NUMERIC:
            codes = np.array([float(value) for value in values])
        else:
            codes = vocabulary.codes(values)
        return Words(tuple(values), codes, shares, about)

    def _branch(self, trait: Trait, draw: Draw, vocabulary: Vocabulary) -> Branch:
        assert draw.table is not None and isinstance(draw.given, str)
        labels = [*draw.table, *(["otherwise"] if draw.default else [])]
        children = [self._node(trait, row, vocabulary) for row in draw.table.values()]
        children += [self._node(trait, draw.default, vocabulary)] if draw.default else []
        return self._routed(draw.given, labels, children, draw.default is not None)

    def _routed(self, given: str, labels: list[str], children: list[Node], default: bool) -> Branch:
        words = [one for one in children if isinstance(one, Words)]
        flat = Flat(words) if len(words) == len(children) else None
        keys = labels[:-1] if default else labels
        kind = self.pack.traits[given].type
        route = _by_range(keys, kind == "integer") if kind in NUMERIC else _by_word(keys)
        return Branch(given, labels, children, route, flat, self.lacking)

    def _faker(self, faker: Faker, vocabulary: Vocabulary) -> Node:
        """A locale's words; chosen by the trait `by`, and first names also by sex."""

        def of(locale: str, sex: str) -> Words:
            found = faker_words(locale, faker.provider, sex)
            assert found is not None, "checked when the pack was read"
            return self._words(None, *found, vocabulary, f"Faker's {faker.provider}, {locale}")

        made: dict[tuple[str, str], Words] = {}

        def once(locale: str, sex: str) -> Words:
            if (locale, sex) not in made:
                made[locale, sex] = of(locale, sex)
            return made[locale, sex]

        def by_sex(locale: str) -> Node:
            if faker.sex is None or faker.provider != "first_name":
                return once(locale, "")
            both = [once(locale, "female"), once(locale, "male"), once(locale, "")]
            return self._routed(faker.sex, ["female", "male", "otherwise"], list(both), True)

        if isinstance(faker.locale, str):
            return by_sex(faker.locale)
        assert faker.by is not None
        words = self.vocabularies[faker.by].words  # the trait was made ready before
        locales = faker.locale if faker.locale is not None else dict(zip(words, words, strict=True))
        return self._routed(faker.by, list(locales), [by_sex(one) for one in locales.values()], False)

    def _rows(self, trait: Trait, column: ColumnDraw, vocabulary: Vocabulary) -> Node:
        import polars as pl

        wanted = dict.fromkeys([column.name, *column.key, *([column.weight] if column.weight else [])])
        frame = tables.read(column, tuple(wanted)).drop_nulls()
        weight = pl.col(column.weight).cast(pl.Float64) if column.weight else pl.lit(1.0)
        value = pl.col(column.name).cast(pl.String).alias(VALUE)
        keys = [pl.col(name).cast(pl.String).alias(used) for name, used in column.key.items()]
        grouped = (
            frame.select(*keys, value, weight.alias(WEIGHT))
            .group_by([*column.key.values(), VALUE], maintain_order=True)
            .agg(pl.col(WEIGHT).sum())
            .filter(pl.col(WEIGHT) > 0)
        )
        about = f"the column {column.name!r} of {column.hf or column.file.rpartition('/')[2]}"
        if not column.key:
            long = about if grouped.height > MANY else ""
            return self._words(trait, grouped[VALUE].to_list(), grouped[WEIGHT].to_list(), vocabulary, long)
        by_key = grouped.group_by(list(column.key.values()), maintain_order=True).agg(VALUE, WEIGHT)
        choices = [
            self._words(trait, values, weights, vocabulary)
            for values, weights in zip(by_key[VALUE].to_list(), by_key[WEIGHT].to_list(), strict=True)
        ]
        groups = by_key.select(*column.key.values()).with_row_index(GROUP)
        return Rows(groups, choices, Flat(choices), about, self.lacking)

    def _read_people(self) -> pl.DataFrame | None:
        """The columns of other people's personas, as codes or numbers."""
        named = {name: trait for name, trait in self.pack.traits.items() if trait.source is not None}
        if self.pack.people is None or not named:
            return None
        kinds = schema(self.pack)
        read = tables.read(self.pack.people, tuple(dict.fromkeys(str(trait.source) for trait in named.values())))
        import polars as pl

        try:
            frame = read.select(
                pl.col(str(trait.source)).cast(kinds[name]).alias(name) for name, trait in named.items()
            )
        except pl.exceptions.PolarsError as problem:
            raise UsageError(f"the people's file does not fit the traits: {str(problem).splitlines()[0]}.") from None
        whole = frame.drop_nulls()
        self.incomplete = frame.height - whole.height
        if not whole.height:
            raise UsageError("the people's file has no row in which every named column has a value.")
        return whole

    def _of_people(self, size: int) -> Columns:
        """The next rows of the people, in a shuffled order in which nobody comes twice before everybody came once."""
        if self._people is None:
            return {}
        count = self._people.height
        numbers_ = np.arange(self.drawn, self.drawn + size)
        rows = np.empty(size, dtype=np.int64)
        for around in np.unique(numbers_ // count):
            shuffle = np.random.Generator(np.random.Philox(derived_seed(self.seed, "people", str(around))))
            here = numbers_ // count == around
            rows[here] = shuffle.permutation(count)[numbers_[here] % count]
        found: Columns = {}
        for name in self._people.columns:
            column = self._people[name][rows]
            if self.pack.traits[name].type == "string":
                words = column.unique(maintain_order=True)
                codes = self.vocabularies[name].codes(words.to_list())
                found[name] = Drawn(_recoded(column, words, codes), self.vocabularies[name])
            else:
                found[name] = Drawn(column.to_numpy())
        return found


def numbers(draw: Draw) -> Numbers:
    """The distribution of a draw with a density."""
    if draw.uniform is not None:
        low, span = draw.uniform.low, draw.uniform.high - draw.uniform.low
        return Numbers(lambda u: low + u * span, lambda x: np.clip((x - low) / span, 0, 1))
    if draw.histogram is not None:
        edges = np.array(draw.histogram.edges)
        heights = np.concatenate([[0.0], np.cumsum(draw.histogram.weights)])
        heights /= heights[-1]
        return Numbers(lambda u: np.interp(u, heights, edges), lambda x: np.interp(x, edges, heights))
    if draw.beta is not None:
        a, b, least, wide = draw.beta.a, draw.beta.b, draw.beta.low, draw.beta.high - draw.beta.low
        return Numbers(
            lambda u: np.minimum(least + wide * special.betaincinv(a, b, u), np.nextafter(least + wide, -np.inf)),
            lambda x: special.betainc(a, b, np.clip((x - least) / wide, 0, 1)),
        )
    if draw.normal is not None:
        one = draw.normal
        return _truncated(one.mean, one.sd, one.low, one.high, np.asarray, np.asarray)
    assert draw.lognormal is not None
    two = draw.lognormal
    low_log = None if not two.low else float(np.log(two.low))
    high_log = None if two.high is None else float(np.log(two.high))
    return _truncated(float(np.log(two.median)), two.sigma, low_log, high_log, np.exp, _log)


def _truncated(
    mean: float, sd: float, low: float | None, high: float | None, to: Callable[..., Array], of: Callable[..., Array]
) -> Numbers:
    """A normal distribution between two bounds, seen through `to` (and back through `of`)."""
    if low is not None and low > mean:  # in the upper tail shares near 1 have no digits left: mirror
        mirrored = _truncated(-mean, sd, None if high is None else -high, -low, np.asarray, np.asarray)
        return Numbers(lambda u: to(-mirrored.quantile(1 - u)), lambda x: 1 - mirrored.below(-of(x)))
    least = 0.0 if low is None else float(special.ndtr((low - mean) / sd))
    most = 1.0 if high is None else float(special.ndtr((high - mean) / sd))

    def quantile(u: Array) -> Array:
        found = mean + sd * special.ndtri(least + u * (most - least))
        return np.asarray(to(np.clip(found, low, None if high is None else np.nextafter(high, -np.inf))))

    def below(x: Array) -> Array:
        return np.asarray(np.clip((special.ndtr((of(x) - mean) / sd) - least) / (most - least), 0, 1))

    return Numbers(quantile, below)


def _log(x: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(x, 0))


@lru_cache(maxsize=512)
def faker_words(locale: str, provider: str, sex: str, only_look: bool = False) -> tuple[list[str], list[float]] | None:
    """A Faker provider's words in a locale with their weights, or `None` where there is none that needs no arguments.

    First and last names come from the locale's own lists (in Latin letters where the locale has such a list), for
    first names that of the sex; anything else from a pool that Faker draws once, the same in every process.
    """
    names = importlib.import_module(f"faker.providers.person.{locale}").Provider
    if provider in ("first_name", "last_name"):
        return _listed(names, provider, sex)
    from faker import Faker as RealFaker
    from faker.exceptions import BaseFakerException
    from faker.providers.date_time import Provider as Clock

    if hasattr(Clock, provider):  # depends on the day it is asked
        return None
    real = RealFaker(locale)
    real.seed_instance(0)
    try:
        words = [getattr(real, provider)() for _ in range(1 if only_look else POOL)]
    except (AttributeError, TypeError, BaseFakerException):
        return None
    if not all(isinstance(word, str | int | float | Decimal) for word in words):
        return None  # a set or an object has no text that is the same in every process
    pool = Counter(map(str, words))
    return list(pool), [float(weight) for weight in pool.values()]


def _listed(names: Any, provider: str, sex: str) -> tuple[list[str], list[float]] | None:
    kind, romanised = f"{provider}s", f"{provider.replace('_', '_romanized_')}s"
    ways = [[f"{romanised}_{sex}"], [romanised], [f"{kind}_{sex}"]] if sex else [[romanised]]
    for attributes in [*ways, [kind], [f"unisex_{kind}"], [f"{kind}_female", f"{kind}_male"]]:
        weights: dict[str, float] = {}
        for attribute in attributes:
            weights |= _own_list(names, attribute)
        if weights:
            return [word.title() if word.isupper() else word for word in weights], list(weights.values())
    return None


def _own_list(names: Any, attribute: str) -> dict[str, float]:
    """A list of a locale with its weights; empty where the locale only inherits Faker's stand-ins (John Doe)."""
    from faker.providers.person import Provider as Anywhere

    found = getattr(names, attribute, None)
    if isinstance(found, property) and found.fget is not None:  # a locale whose lists are made by an instance
        found = found.fget(names(None))
    if not found or found is getattr(Anywhere, attribute, None):
        return {}
    return {word: float(found[word]) for word in found} if isinstance(found, dict) else dict.fromkeys(found, 1.0)


def _rendered(template: jinja2.Template, row: dict[str, Any]) -> str:
    try:
        return template.render(row)
    except (jinja2.TemplateError, ArithmeticError, TypeError, ValueError, LookupError) as problem:
        raise UsageError(f"a template does not render for {row}: {problem}.") from None


def _by_word(keys: list[str]) -> Callable[[Drawn, Array | None], Array]:
    """Routes a word to the number of its key; other words to the number after the last."""
    numbers_ = {key: number for number, key in enumerate(keys)}

    def route(column: Drawn, rows: Array | None) -> Array:
        words = column.vocabulary.words if column.vocabulary is not None else ["false", "true"]
        table = np.array([numbers_.get(word, len(keys)) for word in words], dtype=np.int64)
        return table[column.of(rows).astype(np.int64)]

    return route


def _by_range(keys: list[str], whole: bool) -> Callable[[Drawn, Array | None], Array]:
    """Routes a number to the number of its range; others to the number after the last."""
    found = [(*(bounds(key, whole) or (0.0, 0.0)), number) for number, key in enumerate(keys)]
    found.sort()
    lows = np.array([low for low, _, _ in found])
    highs = np.array([high for _, high, _ in found])
    which = np.array([number for _, _, number in found])

    def route(column: Drawn, rows: Array | None) -> Array:
        values = column.of(rows)
        place = np.searchsorted(lows, values, side="right") - 1
        inside = (place >= 0) & ((values < highs[place]) | (not whole and values == highs[-1]))
        return np.where(inside, which[place], len(keys))

    return route


def _series(name: str, column: Drawn) -> pl.Series:
    import polars as pl

    kind = pl.String if column.vocabulary is not None else None
    return column.series(name, kind)


def _recoded(column: pl.Series, words: pl.Series, codes: Array) -> Array:
    import polars as pl

    return column.replace_strict(words, pl.Series(codes), return_dtype=pl.Int32).to_numpy()


def _plain_parts(template: str, frame: pl.DataFrame) -> list[pl.Expr] | None:
    """The template as texts and columns, where it is nothing else (and every column is text or whole numbers)."""
    import polars as pl

    parts: list[pl.Expr] = []
    for node in jinja2.Environment().parse(template).body:
        if not isinstance(node, nodes.Output):
            return None
        for piece in node.nodes:
            expression = _plain_part(piece)
            if expression is None or any(
                frame.schema[n] in (pl.Float64, pl.Boolean) for n in expression.meta.root_names()
            ):
                return None
            parts.append(expression)
    return parts


def _plain_part(piece: nodes.Expr) -> pl.Expr | None:
    import polars as pl

    if isinstance(piece, nodes.TemplateData):
        return pl.lit(piece.data)
    if isinstance(piece, nodes.Name):
        return pl.col(piece.name).cast(pl.String)
    if isinstance(piece, nodes.Filter) and piece.name in ("lower", "upper") and piece.node is not None:
        inner = _plain_part(piece.node)
        if inner is None or piece.args or piece.kwargs:
            return None
        return inner.str.to_lowercase() if piece.name == "lower" else inner.str.to_uppercase()
    return None
