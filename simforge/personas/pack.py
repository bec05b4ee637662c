"""The format of a persona pack.

A pack is a JSON Schema of the traits that also defines how each trait is sampled, so one
file validates, documents and samples. This module has the pydantic models; `reading` turns a
file (and the packs that it extends) into a `Pack`, and `sampling` samples people from it.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal, cast

from pydantic import Field, field_validator, model_validator
from pydantic.fields import FieldInfo

from simforge.catalog.documents import KeyPath as KeyPath
from simforge.catalog.documents import Strict
from simforge.personas.distributions import (
    DISTRIBUTIONS,
    Distribution,
    Number,
    Weight,
    check_sum,
)
from simforge.types import JsonObject

RESERVED = ("id", "index", "text", "profile", "source", "licence")
"Columns of the personas table that are not traits."


Scalar = str | int | float | bool


class Dates(Strict):
    """A date (a string, YYYY-MM-DD): uniform between two dates, or the birthday of a person
    of a given age."""

    first: datetime.date | None = None
    last: datetime.date | None = None
    age: str | None = None
    "The trait that has the age in whole years."
    on: datetime.date | None = None
    "The date at which the person has that age."

    @model_validator(mode="after")
    def _check_form(self) -> Dates:
        between, born = (self.first, self.last), (self.age, self.on)
        if not (all(between) and not any(born)) and not (
            all(born) and not any(between)
        ):
            raise ValueError("needs either `first` and `last`, or `age` and `on`")
        if self.first and self.last and self.first > self.last:
            raise ValueError("`first` is later than `last`")
        return self


class Faker(Strict):
    """A word from a Faker provider, for a locale."""

    provider: str
    """`first_name` and `last_name` are sampled from the locale's lists with their weights.
    Any other provider that needs no arguments (`city`, `company`, `job`) is sampled from a
    pool of 2,000 of its words."""
    locale: str | dict[str, str] | None = None
    "A Faker locale, or one for each value of the trait `by`. If unset, `by` holds the locales."
    by: str | None = None
    "The trait that chooses the locale."
    sex: str | None = None
    "The trait (`female`, `male`) that selects the first names; other values use both lists."

    @model_validator(mode="after")
    def _check_locale(self) -> Faker:
        if (self.locale is None or isinstance(self.locale, dict)) and self.by is None:
            raise ValueError("needs a `locale`, or `by`: the trait that chooses it")
        return self


class Source(Strict):
    """A table: a file next to the pack, a shipped file by name, or a file of a dataset on
    the Hub."""

    file: str
    "A .csv, .jsonl or .parquet file, or a folder of .json files; on the Hub also a pattern."
    hf: str | None = None
    "The dataset on the Hub (`OWNER/NAME`) that has the file."
    revision: str | None = None
    "Branch, tag or commit on the Hub."
    sha256: str | None = None
    "Digest of the content. If set, a file with any other content is refused."


class ColumnSource(Source):
    """A column of a table."""

    name: str
    "Name of the column."
    key: dict[str, str] = {}
    "Columns that must equal traits, `{column: trait}`; only matching rows are used."
    weight: str | None = None
    "The column with the weight of each row. If unset, all rows are equally likely."


class Draw(Strict):
    """The definition of how a trait is sampled. Exactly one method must be set."""

    categories: dict[str, Weight] | None = None
    "Values and their shares; the shares sum to 1."
    one_of: Annotated[list[Scalar], Field(min_length=1)] | None = None
    "Values, all equally likely."
    file: str | None = None
    "A .txt list with one value per line; all values are equally likely."
    chance: Annotated[float, Field(ge=0, le=1)] | None = None
    "The share of people for whom the trait is true."
    date: Dates | None = None
    faker: Faker | None = None
    column: ColumnSource | None = None
    template: str | None = None
    "A template over other traits, such as `{{ first_name }} {{ last_name }}`."
    writer: str | None = None
    "A generator with the role `writer`: a model writes the trait after the others are sampled."
    given: str | list[str] | None = None
    "Another trait; `table` has the draw for each of its values. With `csv`, a list of traits."
    table: Annotated[dict[str, Draw], Field(min_length=1)] | None = None
    "Keys of a numeric trait are ranges: `18-24` (whole numbers: both ends included), `65+`."
    csv: str | None = None
    """Replaces `table`: a file with a column for each trait of `given`, plus `value` and
    `weight`. The weights of a row need not sum to 1. For a numeric trait the values are
    ranges, which become a histogram."""
    default: Draw | None = None
    "The draw for values that the table does not list."

    @model_validator(mode="after")
    def _check_method(self) -> Draw:
        known = draw_methods()
        methods = [method for method in known if getattr(self, method) is not None]
        if len(methods) != 1:
            raise ValueError(
                f"needs exactly one of {', '.join(known)}; has "
                f"{', '.join(methods) or 'none'}"
            )
        if self.given is None and (
            self.table is not None or self.csv is not None or self.default is not None
        ):
            raise ValueError(
                "`table`, `csv` and `default` can only be used with `given`"
            )
        if self.given is not None and (self.table is None) == (self.csv is None):
            raise ValueError("`given` needs a `table` or a `csv`")
        if isinstance(self.given, list) and self.csv is None:
            raise ValueError(
                "a list in `given` needs a `csv`; in a `table`, nest one `given` inside another"
            )
        if self.categories is not None:
            check_sum(self.categories.values())
        return self

    @property
    def distribution(self) -> Distribution | None:
        """The distribution that it names; `None` if it is drawn in another way."""
        given = (getattr(self, name) for name in DISTRIBUTIONS)
        return next((kind for kind in given if kind is not None), None)

    def leaves(
        self, known_values: Mapping[str, str] = MappingProxyType({})
    ) -> Iterator[Draw]:
        """Yield the unconditional draws at the ends of all branches; if values of other
        traits are known, only those that can be reached."""
        if self.table is None:
            yield self
            return
        rows = [*self.table.values(), *([self.default] if self.default else [])]
        if isinstance(self.given, str) and known_values.get(self.given) in self.table:
            rows = [self.table[known_values[self.given]]]
        for row in rows:
            yield from row.leaves(known_values)

    def values(self) -> set[str] | None:
        """Return all possible values as strings, or `None` if they are not a fixed list."""
        texts: set[str] = set()
        for leaf in self.leaves():
            if leaf.categories is None and leaf.one_of is None:
                return None
            texts |= {
                value_text(value) for value in (leaf.categories or leaf.one_of or ())
            }
        return texts


METHOD_TYPES: dict[str, tuple[str, ...]] = {
    "categories": ("string", "integer", "number"),
    "one_of": ("string", "integer", "number"),
    "file": ("string",),
    "chance": ("boolean",),
    "date": ("string",),
    "faker": ("string",),
    "column": ("string", "integer", "number", "boolean"),
    "template": ("string",),
    "writer": ("string", "integer", "number", "boolean"),
    "csv": ("string",),
}
"Types of the traits that each method can draw, besides the distributions, which draw numbers."


def draw_methods() -> list[str]:
    """The keys of a draw that say how a trait is drawn; exactly one of them is set."""
    return [*(name for name in METHOD_TYPES if name != "csv"), *DISTRIBUTIONS, "given"]


def add_distribution(name: str, kind: type[Distribution]) -> None:
    """Let packs draw traits by a distribution under a name."""
    DISTRIBUTIONS[name] = kind
    _know_distributions()


def _know_distributions() -> None:
    """Give `Draw` a key for each distribution, and let all that contains a `Draw` know."""
    for name, kind in DISTRIBUTIONS.items():
        Draw.model_fields[name] = FieldInfo(
            annotation=cast(Any, kind | None), default=None
        )
    for model in (Draw, Trait, Pack):
        model.model_rebuild(force=True)


def need_texts(need: str | Mapping[str, Sequence[str]]) -> list[str]:
    """Return the texts of a need: its phrase, and the goals behind it."""
    if isinstance(need, str):
        return [need]
    return [text for phrase, goals in need.items() for text in (phrase, *goals)]


def matches_pattern(pattern: str, text: str) -> bool:
    """Return whether a regular expression occurs in a text. It is RE2's kind, whose time grows
    only with the length of the text. Raises `ValueError` for one that is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        return bool(pc.match_substring_regex(pa.scalar(text), pattern).as_py())
    except pa.ArrowInvalid as problem:
        raise ValueError(
            f"`pattern` is not a regular expression: {str(problem).splitlines()[0]}"
        ) from None


class Trait(Strict):
    """A trait: its JSON Schema and how it is sampled."""

    type: Literal["string", "integer", "number", "boolean"]
    description: str = ""
    "The meaning of the trait; documents the column."
    minimum: Number | None = None
    maximum: Number | None = None
    pattern: str | None = None
    "A regular expression that the values match (JSON Schema's `pattern`)."
    sensitive: bool = False
    "True for sensitive data in data protection law (health, religion, politics, origin)."
    draw: Draw | None = None
    "Not part of the JSON Schema; neither are `from` and `sensitive`."
    source: Annotated[str | None, Field(alias="from")] = None
    "Replaces `draw`: a column of the pack's `people`; `a.b` addresses nested values."

    @model_validator(mode="after")
    def _check_trait(self) -> Trait:
        if (self.draw is None) == (self.source is None):
            raise ValueError("needs either `draw` or `from`")
        if (
            self.minimum is not None
            and self.maximum is not None
            and self.minimum > self.maximum
        ):
            raise ValueError(
                f"`minimum` ({self.minimum:g}) is above `maximum` ({self.maximum:g})"
            )
        if self.pattern is not None:
            matches_pattern(self.pattern, "")
        return self

    def json_schema(self) -> JsonObject:
        """Return the trait as JSON Schema (2020-12)."""
        schema: JsonObject = {"type": self.type}
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
    """Correlated numeric traits: a Gaussian copula, so that each trait keeps its own
    distribution."""

    traits: Annotated[list[str], Field(min_length=2)]
    correlations: list[list[Annotated[float, Field(ge=-1, le=1)]]]
    "Correlation matrix in the order of `traits`: full, or the lower triangle with diagonal."

    @model_validator(mode="after")
    def _check_matrix(self) -> Correlated:
        import numpy as np

        n = len(self.traits)
        lengths = [len(row) for row in self.correlations]
        if lengths not in ([n] * n, list(range(1, n + 1))):
            raise ValueError(
                f"{n} traits need {n} rows of {n} correlations, or the lower triangle "
                f"(rows of 1 to {n} values)"
            )
        matrix = np.array(self.matrix())
        if not np.allclose(matrix, matrix.T) or not np.allclose(np.diag(matrix), 1):
            raise ValueError("correlations must be symmetric with ones on the diagonal")
        if np.linalg.eigvalsh(matrix)[0] < 1e-6:
            raise ValueError(
                "the correlations are inconsistent (the matrix is not positive definite)"
            )
        return self

    def matrix(self) -> list[list[float]]:
        """Return the full matrix: n rows of n values."""
        n = range(len(self.traits))
        rows = self.correlations
        return [[rows[i][j] if j < len(rows[i]) else rows[j][i] for j in n] for i in n]


class Target(Strict):
    """Target shares of the people, for one trait or for combinations of two or three."""

    of: str | Annotated[list[str], Field(min_length=1, max_length=3)]
    "One trait, or a list of up to three."
    shares: JsonObject | None = None
    """Shares by value, nested in the order of `of`; they sum to 1 over the whole table. For
    a numeric trait the values are ranges, such as `18-24` and `65+`."""
    csv: str | None = None
    "Replaces `shares`: a file with a column for each trait of `of`, plus `weight`."
    quota: bool = False
    """If true, the sampler meets the shares exactly (to the nearest person). Candidates
    whose cell is full are rejected, so person i then depends on the number of people."""

    @property
    def traits(self) -> list[str]:
        return [self.of] if isinstance(self.of, str) else list(self.of)

    def cells(self) -> dict[tuple[str, ...], float]:
        """Return the share of each combination of values; the shares sum to 1."""
        shares = dict(_cells(self.shares or {}, ()))
        total = sum(shares.values())
        return {key: share / total for key, share in shares.items()}

    @model_validator(mode="after")
    def _check_shares(self) -> Target:
        if (self.shares is None) == (self.csv is None):
            raise ValueError("needs either `shares` or `csv`")
        if self.shares is not None:
            depths = {len(key) for key, _ in _cells(self.shares, ())}
            if depths != {len(self.traits)}:
                raise ValueError(
                    "`shares` must have one level of nesting for each trait of `of` "
                    f"({len(self.traits)})"
                )
            check_sum([share for _, share in _cells(self.shares, ())])
        return self


class People(Source):
    """Existing personas from a table, one person per row. Traits use its columns with
    `from`."""


class Pack(Strict):
    """A persona pack file."""

    description: str
    licence: str
    """Licence of the people sampled from the pack, as an SPDX id; written to the dataset
    card. People that come from a file keep the licence of that file."""
    sources: Annotated[list[str], Field(min_length=1)]
    "Sources of the facts in the pack."
    extends: str | None = None
    """Another pack, by name or path. Traits are merged by name (`name: null` removes one);
    `sources`, `where`, `correlated` and `targets` are concatenated; every other key of this
    file replaces the other pack's."""
    people: People | None = None
    traits: Annotated[dict[str, Trait], Field(min_length=1)]
    "Traits in any order; a trait may depend on any other, without cycles."
    correlated: list[Correlated] = []
    where: list[str] = []
    """Conditions that every person satisfies, such as `NOT (job = 'judge' AND age < 23)`.
    Candidates who fail one are rejected and counted."""
    targets: list[Target] = []
    text: str
    "Template over the traits: the description of the person that the simulating model reads."
    portrait: str | None = None
    """A generator with the role `writer` that describes the person instead of `text` (it
    gets the rendered `text`). Details that it adds stay in the description and are not
    stored in any column."""
    facts: list[str] = []
    """Templates over the traits, one phrase each: the facts that a person can reveal in a
    dialogue; a run counts which were revealed. Phrases that render to an empty text are
    dropped."""
    needs: list[str | dict[str, list[str]]] = []
    """Tasks that these people bring to an assistant; each opening that they write themselves
    starts from one. A need may have goals (`a tap that drips: [what it costs, ...]`):
    further things that the person wants to know, raised one per turn."""

    @field_validator("needs")
    @classmethod
    def _check_needs(
        cls, needs: list[str | dict[str, list[str]]]
    ) -> list[str | dict[str, list[str]]]:
        for need in needs:
            if not isinstance(need, str) and len(need) != 1:
                raise ValueError(
                    f"a need with goals must be one phrase with a list of goals, not {need}"
                )
        return needs

    @property
    def draws(self) -> dict[str, Draw]:
        """Return the traits that have a `draw`, with that draw."""
        return {
            name: trait.draw
            for name, trait in self.traits.items()
            if trait.draw is not None
        }

    @property
    def traits_by_writer(self) -> dict[str, list[str]]:
        """Return the names of the traits that a model writes, by generator."""
        writers: dict[str, list[str]] = {}
        for name, draw in self.draws.items():
            if draw.writer is not None:
                writers.setdefault(draw.writer, []).append(name)
        return writers

    @property
    def quotas(self) -> list[Target]:
        return [target for target in self.targets if target.quota]

    def json_schema(self) -> JsonObject:
        """Return the JSON Schema (2020-12) that every person satisfies."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "description": self.description,
            "type": "object",
            "properties": {
                name: trait.json_schema() for name, trait in self.traits.items()
            },
            "required": list(self.traits),
            "additionalProperties": False,
        }

    def content(self) -> JsonObject:
        """Return the pack as plain values, with each file identified by its digest instead
        of its path."""
        content = _digests_for_paths(
            self.model_dump(
                mode="json", by_alias=True, exclude_none=True, exclude_defaults=True
            )
        )
        return {key: value for key, value in content.items() if key != "extends"}


def value_text(value: Scalar) -> str:
    """Return a value as the string used in tables and conditions."""
    return str(value).lower() if isinstance(value, bool) else str(value)


RANGE_PATTERN = re.compile(r"(-?\d+(?:\.\d+)?)(?:(\+)|(?:-|\.\.)(-?\d+(?:\.\d+)?))?")


def parse_range(text: str, whole: bool) -> tuple[float, float] | None:
    """Return the half-open interval of a range, or `None` if it is not one.

    `18-24` is [18, 25) for whole numbers, else [18, 24). `65+` has no upper end. A single
    number is a range for whole numbers only.
    """
    match = RANGE_PATTERN.fullmatch(text.strip())
    if match is None:
        return None
    low = float(match[1])
    if match[2]:
        return low, float("inf")
    if match[3] is None:
        return (low, low + 1) if whole else None
    high = float(match[3]) + (1 if whole else 0)
    return (low, high) if low < high else None


def _cells(
    shares: JsonObject, prefix: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], float]]:
    for key, inner in shares.items():
        if isinstance(inner, dict):
            yield from _cells(inner, (*prefix, key))
        elif (
            isinstance(inner, int | float)
            and not isinstance(inner, bool)
            and inner >= 0
        ):
            yield (*prefix, key), float(inner)
        else:
            raise ValueError(
                f"the share of {key!r} must be a number of at least 0, not {inner!r}"
            )


def _digests_for_paths(value: Any) -> Any:
    if isinstance(value, dict):
        digest = (
            {"file": value["sha256"]}
            if value.get("sha256") and not value.get("hf")
            else {}
        )
        return {key: _digests_for_paths(inner) for key, inner in value.items()} | digest
    return (
        [_digests_for_paths(inner) for inner in value]
        if isinstance(value, list)
        else value
    )


def polars_schema(pack: Pack) -> JsonObject:
    """Return the polars type of each trait."""
    import polars as pl

    types = {
        "string": pl.String,
        "integer": pl.Int64,
        "number": pl.Float64,
        "boolean": pl.Boolean,
    }
    return {name: types[trait.type] for name, trait in pack.traits.items()}


_know_distributions()
