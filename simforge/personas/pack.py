"""What a persona pack may say.

A pack is a JSON Schema of the traits with, beside each trait, how it is drawn. One file validates, documents and
samples. These are the shapes; `reading` turns a file (and the packs that it extends) into a `Pack`, `drawing` draws.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from simforge.documents import Strict

RESERVED = ("id", "index", "text", "profile", "source", "licence")
"Columns of the personas table that are not traits."

Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
Weight = Annotated[Number, Field(ge=0)]
Scalar = str | int | float | bool


class Bounded(Strict):
    """Between two bounds, where they are given."""

    low: Number | None = None
    high: Number | None = None

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self


class Interval(Bounded):
    """A number, uniform between two bounds."""

    low: Number
    high: Number


class Normal(Bounded):
    """A normally distributed number; with bounds, truncated there."""

    mean: Number
    sd: Positive


class Lognormal(Bounded):
    """A number whose logarithm is normally distributed; with bounds, truncated there."""

    median: Positive
    sigma: Positive
    "Standard deviation of the natural logarithm."
    low: Weight | None = None
    high: Positive | None = None


class Beta(Bounded):
    """A beta-distributed number, stretched from 0..1 to low..high."""

    a: Positive
    b: Positive
    low: Number = 0.0
    high: Number = 1.0


class Histogram(Strict):
    """A number, uniform within bins."""

    edges: Annotated[list[Number], Field(min_length=2)]
    "Bin edges, ascending, one more than weights."
    weights: Annotated[list[Weight], Field(min_length=1)]
    "Share of each bin; they sum to 1."

    @model_validator(mode="after")
    def _bins(self) -> Histogram:
        if len(self.edges) != len(self.weights) + 1:
            raise ValueError(f"{len(self.weights)} weights need {len(self.weights) + 1} edges, not {len(self.edges)}")
        if sorted(set(self.edges)) != self.edges:
            raise ValueError("edges must ascend")
        _sum_to_one(self.weights)
        return self


class Dates(Strict):
    """A day (a text, YYYY-MM-DD): uniform between two days, or the birthday of somebody of a given age."""

    first: datetime.date | None = None
    last: datetime.date | None = None
    age: str | None = None
    "The trait that holds the age in whole years."
    on: datetime.date | None = None
    "The day on which that age was meant."

    @model_validator(mode="after")
    def _one_form(self) -> Dates:
        between, born = (self.first, self.last), (self.age, self.on)
        if not (all(between) and not any(born)) and not (all(born) and not any(between)):
            raise ValueError("needs `first` and `last`, or `age` and `on`")
        if self.first and self.last and self.first > self.last:
            raise ValueError("`first` is later than `last`")
        return self


class Faker(Strict):
    """A word from one of Faker's providers, in a locale."""

    provider: str
    """`first_name` and `last_name` are drawn from the locale's lists with their weights; any other provider without
    arguments (`city`, `company`, `job`) from a pool of 2,000 of its words."""
    locale: str | dict[str, str] | None = None
    "A Faker locale, or a locale for each value of the trait `by`. Without it, the values of `by` are locales."
    by: str | None = None
    "The trait that chooses the locale."
    sex: str | None = None
    "The trait (values `female`, `male`) that chooses between first names; other values draw from both."

    @model_validator(mode="after")
    def _has_locale(self) -> Faker:
        if (self.locale is None or isinstance(self.locale, dict)) and self.by is None:
            raise ValueError("needs a `locale`, or `by`: the trait that chooses it")
        return self


class Source(Strict):
    """A table: a file beside the pack, a shipped one by name, or a file of a dataset on the Hub."""

    file: str
    "A .csv, .jsonl or .parquet file; a folder of .json files, one each. On the Hub also a pattern, `data/*.parquet`."
    hf: str | None = None
    "The Hub's dataset, `OWNER/NAME`, that holds the file."
    revision: str | None = None
    "Branch, tag or commit on the Hub."
    sha256: str | None = None
    "Digest of the content. Written, it pins the file: another content is refused."


class Column(Source):
    """A column of a table."""

    name: str
    "The column."
    key: dict[str, str] = {}
    "Columns that must equal traits, `{column: trait}`: only such rows are drawn from."
    weight: str | None = None
    "The column that holds each row's weight; without it, rows are equally likely."


class Draw(Strict):
    """How a trait is drawn: exactly one of the ways."""

    categories: dict[str, Weight] | None = None
    "Values and their shares, which sum to 1."
    one_of: Annotated[list[Scalar], Field(min_length=1)] | None = None
    "Values, each as likely as the others."
    file: str | None = None
    "A .txt list, one value a line, each as likely as the others."
    chance: Annotated[float, Field(ge=0, le=1)] | None = None
    "The share of people for whom it is true."
    uniform: Interval | None = None
    normal: Normal | None = None
    lognormal: Lognormal | None = None
    beta: Beta | None = None
    histogram: Histogram | None = None
    date: Dates | None = None
    faker: Faker | None = None
    column: Column | None = None
    template: str | None = None
    "A text over other traits, as `{{ first_name }} {{ last_name }}`."
    writer: str | None = None
    "A generator with the role `writer`: a model writes the trait when the others are drawn."
    given: str | list[str] | None = None
    "Another trait: `table` says how this one is drawn for each of its values. A list of traits with `csv`."
    table: Annotated[dict[str, Draw], Field(min_length=1)] | None = None
    "Values of a numeric trait are ranges: `18-24` (whole numbers: both ends included), `65+`."
    csv: str | None = None
    """In place of `table`: a file with a column for each trait of `given`, and `value` and `weight`. Weights need not
    sum to 1 within a row. For a numeric trait the values are ranges, which become a histogram."""
    default: Draw | None = None
    "For values that the table does not list."

    @model_validator(mode="after")
    def _one_way(self) -> Draw:
        ways = [way for way in WAYS if getattr(self, way) is not None]
        if len(ways) != 1:
            raise ValueError(f"needs exactly one of {', '.join(WAYS)}; has {', '.join(ways) or 'none'}")
        if self.given is None and (self.table is not None or self.csv is not None or self.default is not None):
            raise ValueError("`table`, `csv` and `default` belong beside `given`")
        if self.given is not None and (self.table is None) == (self.csv is None):
            raise ValueError("`given` needs a `table` or a `csv`")
        if isinstance(self.given, list) and self.csv is None:
            raise ValueError("`given` with a list needs a `csv`; in a `table`, put one `given` inside the other")
        if self.categories is not None:
            _sum_to_one(self.categories.values())
        return self

    def leaves(self, facts: Mapping[str, str] = MappingProxyType({})) -> Iterator[Draw]:
        """The draws without a condition that it ends in; only those that can be reached where `facts` hold."""
        if self.table is None:
            yield self
            return
        rows = [*self.table.values(), *([self.default] if self.default else [])]
        if isinstance(self.given, str) and facts.get(self.given) in self.table:
            rows = [self.table[facts[self.given]]]
        for row in rows:
            yield from row.leaves(facts)

    def values(self) -> set[str] | None:
        """All values, as texts, where they are a fixed list; else `None`."""
        found: set[str] = set()
        for leaf in self.leaves():
            if leaf.categories is None and leaf.one_of is None:
                return None
            found |= {plain(value) for value in (leaf.categories or leaf.one_of or ())}
        return found


WAYS = ("categories", "one_of", "file", "chance", "uniform", "normal", "lognormal", "beta", "histogram", "date",
        "faker", "column", "template", "writer", "given")  # fmt: skip


class Trait(Strict):
    """A column: its JSON Schema, and how it is drawn."""

    type: Literal["string", "integer", "number", "boolean"]
    description: str = ""
    "What it means; documents the column."
    minimum: Number | None = None
    maximum: Number | None = None
    pattern: str | None = None
    "A regular expression that its texts match (JSON Schema's `pattern`)."
    sensitive: bool = False
    "Whether it is personal in the sense of data protection law (health, religion, politics, origin)."
    draw: Draw | None = None
    "Kept out of the JSON Schema, as are `from` and `sensitive`."
    source: Annotated[str | None, Field(alias="from")] = None
    "In place of `draw`: a column of the pack's `people`; `a.b` reaches into nested values."

    @model_validator(mode="after")
    def _has_a_way(self) -> Trait:
        if (self.draw is None) == (self.source is None):
            raise ValueError("needs either `draw` or `from`")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"`minimum` ({self.minimum:g}) is above `maximum` ({self.maximum:g})")
        if self.pattern is not None:
            try:
                re.compile(self.pattern)
            except re.error as problem:
                raise ValueError(f"`pattern` is not a regular expression: {problem}") from None
        return self

    def json_schema(self) -> dict[str, Any]:
        """The trait as JSON Schema (2020-12)."""
        schema: dict[str, Any] = {"type": self.type}
        if self.description:
            schema["description"] = self.description
        for key in ("minimum", "maximum"):
            bound = getattr(self, key)
            if bound is not None:
                schema[key] = int(bound) if self.type == "integer" else bound
        if self.pattern is not None:
            schema["pattern"] = self.pattern
        values = self.draw.values() if self.draw else None
        if values is not None and self.type == "string":
            schema["enum"] = sorted(values)
        if self.draw and all(leaf.date for leaf in self.draw.leaves()):
            schema["format"] = "date"
        return schema


class Correlated(Strict):
    """Numeric traits that vary together: a Gaussian copula, so that each keeps the distribution of its own draw."""

    traits: Annotated[list[str], Field(min_length=2)]
    correlations: list[list[Annotated[float, Field(ge=-1, le=1)]]]
    "Rows of the correlation matrix in the order of `traits`: whole, or the lower triangle with its ones."

    @model_validator(mode="after")
    def _matrix(self) -> Correlated:
        import numpy as np

        n = len(self.traits)
        lengths = [len(row) for row in self.correlations]
        if lengths not in ([n] * n, list(range(1, n + 1))):
            raise ValueError(f"{n} traits need {n} rows of {n} correlations, or the lower triangle 1 to {n}")
        matrix = np.array(self.matrix())
        if not np.allclose(matrix, matrix.T) or not np.allclose(np.diag(matrix), 1):
            raise ValueError("correlations must be symmetric with ones on the diagonal")
        if np.linalg.eigvalsh(matrix)[0] < 1e-6:
            raise ValueError("correlations contradict each other (the matrix is not positive definite)")
        return self

    def matrix(self) -> list[list[float]]:
        """All n rows of n."""
        n = range(len(self.traits))
        rows = self.correlations
        return [[rows[i][j] if j < len(rows[i]) else rows[j][i] for j in n] for i in n]


class Target(Strict):
    """Shares that the people shall have: of one trait, or of several together."""

    of: str | Annotated[list[str], Field(min_length=1, max_length=3)]
    "A trait, or two or three."
    shares: dict[str, Any] | None = None
    """Value and share, nested in the order of `of`; they sum to 1 over the whole table. For a number the values are
    ranges, such as `18-24` and `65+`."""
    csv: str | None = None
    "In place of `shares`: a file with a column for each trait of `of`, and `weight`."
    quota: bool = False
    """Whether the sampler meets the shares exactly (to the nearest person). People of full cells are passed over, so
    who person i is then depends on the number of people."""

    @property
    def traits(self) -> list[str]:
        return [self.of] if isinstance(self.of, str) else list(self.of)

    def cells(self) -> dict[tuple[str, ...], float]:
        """The share of each combination of values; they sum to 1."""
        found = dict(_cells(self.shares or {}, ()))
        total = sum(found.values())
        return {key: share / total for key, share in found.items()}

    @model_validator(mode="after")
    def _table(self) -> Target:
        if (self.shares is None) == (self.csv is None):
            raise ValueError("needs either `shares` or `csv`")
        if self.shares is not None:
            depths = {len(key) for key, _ in _cells(self.shares, ())}
            if depths != {len(self.traits)}:
                raise ValueError(f"`shares` must be nested as deep as `of` is long ({len(self.traits)})")
            _sum_to_one([share for _, share in _cells(self.shares, ())])
        return self


class People(Source):
    """Somebody else's personas: each row is a person. Traits take its columns with `from`."""


class Pack(Strict):
    """A persona pack file."""

    description: str
    licence: str
    """Licence of the people made from it, as an SPDX id; reaches the dataset's card. People that come from a file keep
    the licence of that file."""
    sources: Annotated[list[str], Field(min_length=1)]
    "Where its facts come from."
    extends: str | None = None
    """Another pack, by name or path. Traits are merged by name (`name: null` leaves one out), `sources`, `where`,
    `correlated` and `targets` are joined, everything else that this file says stands in place of the other's."""
    people: People | None = None
    traits: Annotated[dict[str, Trait], Field(min_length=1)]
    "In any order; a trait may depend on any other as long as no circle arises."
    correlated: list[Correlated] = []
    where: list[str] = []
    """Conditions that every person satisfies, as SQL expressions over traits. People who do not are passed over, and
    counted."""
    targets: list[Target] = []
    text: str
    "Template over the traits: the person in words, as the model that plays them reads it."
    portrait: str | None = None
    """A generator with the role `writer` that puts the person into words in place of `text`, which it is given. What it
    adds stays in the text and enters no column."""
    facts: list[str] = []
    """Templates over the traits, a phrase each: what there is to tell about the person, and what a run counts as told.
    One that renders to nothing is left out."""
    needs: list[str | dict[str, list[str]]] = []
    """What such people bring to an assistant: the openings that they write themselves start from one of these. A need
    may have goals (`a tap that drips: [what it costs, ...]`): what the person wants to know beyond it, which they bring
    up one a turn."""

    @field_validator("needs")
    @classmethod
    def _one_need_each(cls, needs: list[str | dict[str, list[str]]]) -> list[str | dict[str, list[str]]]:
        for need in needs:
            if not isinstance(need, str) and len(need) != 1:
                raise ValueError(f"a need with goals is one phrase and a list, not {need}")
        return needs

    @property
    def drawn(self) -> dict[str, Draw]:
        """The traits that are drawn, with how."""
        return {name: trait.draw for name, trait in self.traits.items() if trait.draw is not None}

    @property
    def written(self) -> dict[str, list[str]]:
        """The traits that a model writes, by generator."""
        found: dict[str, list[str]] = {}
        for name, draw in self.drawn.items():
            if draw.writer is not None:
                found.setdefault(draw.writer, []).append(name)
        return found

    @property
    def quotas(self) -> list[Target]:
        return [target for target in self.targets if target.quota]

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema (2020-12) that every person satisfies."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "description": self.description,
            "type": "object",
            "properties": {name: trait.json_schema() for name, trait in self.traits.items()},
            "required": list(self.traits),
            "additionalProperties": False,
        }

    def content(self) -> dict[str, Any]:
        """The pack as plain values, in which files are told by their digest and not by where they lie."""
        found = _placeless(self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True))
        return {key: value for key, value in found.items() if key != "extends"}


def plain(value: Scalar) -> str:
    """A value as the texts of tables and conditions write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


RANGE = re.compile(r"(-?\d+(?:\.\d+)?)(?:(\+)|(?:-|\.\.)(-?\d+(?:\.\d+)?))?")


def bounds(text: str, whole: bool) -> tuple[float, float] | None:
    """The half-open interval of a range: `18-24` is [18, 25) for whole numbers, else [18, 24); `65+`; a number."""
    match = RANGE.fullmatch(text.strip())
    if match is None:
        return None
    low = float(match[1])
    if match[2]:
        return low, float("inf")
    if match[3] is None:
        return (low, low + 1) if whole else None
    high = float(match[3]) + (1 if whole else 0)
    return (low, high) if low < high else None


def _cells(shares: dict[str, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], float]]:
    for key, inner in shares.items():
        if isinstance(inner, dict):
            yield from _cells(inner, (*above, key))
        elif isinstance(inner, int | float) and not isinstance(inner, bool) and inner >= 0:
            yield (*above, key), float(inner)
        else:
            raise ValueError(f"the share of {key!r} must be a number of at least 0, not {inner!r}")


def _placeless(value: Any) -> Any:
    if isinstance(value, dict):
        here = {"file": value["sha256"]} if value.get("sha256") and not value.get("hf") else {}
        return {key: _placeless(inner) for key, inner in value.items()} | here
    return [_placeless(inner) for inner in value] if isinstance(value, list) else value


def _sum_to_one(weights: Any) -> None:
    total = sum(weights)
    if abs(total - 1) > 0.005:
        raise ValueError(f"the shares sum to {total:.4g}, not 1")
