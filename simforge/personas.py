"""Personas: who is talking.

A pack (`personas/*.yaml`) is a JSON Schema of the traits with, beside each trait, how it is drawn. Sampling is
columnar: every trait has a random stream of its own, one number per person, so person i is the same whatever the
number of people, and a cast of a million is drawn without a Python loop over rows. Texts and ids are made only for
the people that are looked at.

    cast = sample(load("everyday"), n=1000, seed=0)
    cast.traits(0)  ->  {"name": "Ama Owusu", "age": 41, ...}
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from jinja2 import TemplateError
from jsonschema import Draft202012Validator
from pydantic import Field, model_validator

from simforge import catalog, documents
from simforge.documents import Document, Strict
from simforge.errors import Mistake, RecipeError, UsageError, nearest
from simforge.generators import compiled
from simforge.identity import cycled, derived_seed, digest

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

RESERVED = ("id", "index", "text", "profile", "source", "licence")
"Columns of the personas table that are not traits."
DRAWS = ("categories", "one_of", "histogram", "faker", "given")


class Histogram(Strict):
    """A number, uniform within bins."""

    edges: Annotated[list[float], Field(min_length=2)]
    "Bin edges, ascending, one more than weights."
    weights: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]
    "Share of each bin; they sum to 1."

    @model_validator(mode="after")
    def _bins(self) -> Histogram:
        if len(self.edges) != len(self.weights) + 1:
            raise ValueError(f"{len(self.weights)} weights need {len(self.weights) + 1} edges, not {len(self.edges)}")
        if sorted(set(self.edges)) != self.edges:
            raise ValueError("edges must ascend")
        _sum_to_one(self.weights)
        return self


class Faker(Strict):
    """A name from one of Faker's lists, in the locale of the country."""

    list: Literal["first_names", "last_names"]
    "Which list."
    locale: str | dict[str, str]
    "A Faker locale, or a locale for each value of the trait `by`."
    by: str | None = None
    "The earlier trait that chooses the locale."
    sex: str | None = None
    "The earlier trait (values `female`, `male`) that chooses between first names."


class Draw(Strict):
    """How a trait is drawn: exactly one of the ways."""

    categories: dict[str, Annotated[float, Field(ge=0)]] | None = None
    "Values and their shares, which sum to 1."
    one_of: Annotated[list[str], Field(min_length=1)] | None = None
    "Values, each as likely as the others."
    histogram: Histogram | None = None
    faker: Faker | None = None
    given: str | None = None
    "An earlier trait: `table` says how this one is drawn for each of its values."
    table: dict[str, Draw] | None = None
    default: Draw | None = None
    "For values that the table does not list."

    @model_validator(mode="after")
    def _one_way(self) -> Draw:
        ways = [way for way in DRAWS if getattr(self, way) is not None]
        if len(ways) != 1:
            raise ValueError(f"needs exactly one of {', '.join(DRAWS)}; has {', '.join(ways) or 'none'}")
        if (self.given is None) != (self.table is None) or (self.default is not None and self.given is None):
            raise ValueError("`given` and `table` belong together, and `default` only beside them")
        if self.categories is not None:
            _sum_to_one(self.categories.values())
        return self


class Trait(Strict):
    """A column: its JSON Schema, and how it is drawn."""

    type: Literal["string", "integer", "number"]
    description: str = ""
    "What it means; documents the column."
    minimum: float | None = None
    maximum: float | None = None
    draw: Draw
    "Kept out of the JSON Schema."

    def json_schema(self) -> dict[str, Any]:
        """The trait as JSON Schema (2020-12)."""
        schema: dict[str, Any] = {"type": self.type}
        for key in ("description", "minimum", "maximum"):
            value = getattr(self, key)
            if value not in (None, ""):
                schema[key] = int(value) if self.type == "integer" and key != "description" else value
        values = _closed_values(self.draw)
        if values is not None:
            schema["enum"] = sorted(values)
        return schema


class Pack(Strict):
    """A persona pack file."""

    description: str
    licence: str
    "Licence of the people made from it, as an SPDX id; reaches the dataset's card."
    sources: Annotated[list[str], Field(min_length=1)]
    "Where its facts come from."
    traits: Annotated[dict[str, Trait], Field(min_length=1)]
    "Drawn in this order; a trait may depend on earlier ones."
    text: str
    "Template over the traits: the person in words, as the model that plays them reads it."
    needs: list[str] = []
    "What such people bring to an assistant: the openings that they write themselves start from one of these."

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema (2020-12) that every sampled person satisfies."""
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "description": self.description,
            "type": "object",
            "properties": {name: trait.json_schema() for name, trait in self.traits.items()},
            "required": list(self.traits),
            "additionalProperties": False,
        }


@dataclass(frozen=True, slots=True)
class Cast:
    """The personas of a run as a table: one row a person, one typed column a trait."""

    pack: Pack
    name: str
    "The pack's reference."
    frame: pl.DataFrame

    def __len__(self) -> int:
        return self.frame.height

    def traits(self, index: int) -> dict[str, Any]:
        return self.frame.row(index, named=True)

    def text(self, index: int) -> str:
        """The person in words."""
        return " ".join(compiled(self.pack.text).render(self.traits(index)).split())

    def need(self, number: int, seed: int) -> str | None:
        """What the person of dialogue `number` of the run brings; none comes twice until all were used."""
        return cycled(self.pack.needs, number, seed, "needs") if self.pack.needs else None


def load(reference: str) -> Pack:
    """Read a pack by name or path; raises `RecipeError` with all its mistakes."""
    found = catalog.entry("personas", reference)
    document = documents.read(found.text, found.label)
    pack, mistakes = documents.check(document, Pack)
    if pack is not None:
        mistakes += _across(document, pack)
    if pack is None or mistakes:
        raise RecipeError(mistakes)
    return pack


def sample(pack: Pack, n: int, seed: int, name: str = "") -> Cast:
    """Draw `n` people. Row i depends on the pack, the seed and i alone."""
    import numpy as np
    import polars as pl

    columns: dict[str, np.ndarray] = {}
    for trait_name, trait in pack.traits.items():
        stream = np.random.Generator(np.random.Philox(derived_seed(seed, "trait", trait_name)))
        values = _drawn(trait.draw, stream.random(n), columns)
        if trait.type == "integer":
            values = np.floor(values.astype(float)).astype(np.int64)
        columns[trait_name] = values.astype(np.float64) if trait.type == "number" else values
    types = {"string": pl.String, "integer": pl.Int64, "number": pl.Float64}
    frame = pl.DataFrame(
        {k: v.tolist() if pack.traits[k].type == "string" else v for k, v in columns.items()},
        schema={k: types[t.type] for k, t in pack.traits.items()},
    )
    return Cast(pack, name, frame)


def persona_id(traits: dict[str, Any], profile: tuple[str, ...], index: int) -> str:
    """Digest of who the person is; the row is part of it, since two people may be alike in every trait."""
    return digest(["persona", traits, list(profile), index])


def check_rows(cast: Cast, rows: int) -> None:
    """Hold the first `rows` people against the pack's own JSON Schema; a difference is a mistake in the pack."""
    validator = Draft202012Validator(cast.pack.json_schema())
    for index in range(min(rows, len(cast))):
        problem = next(iter(validator.iter_errors(cast.traits(index))), None)
        if problem is not None:
            raise UsageError(f"pack {cast.name}: person {index} does not fit the pack's own schema: {problem.message}")


def _drawn(draw: Draw, uniform: np.ndarray, columns: dict[str, np.ndarray]) -> np.ndarray:
    """Values for each uniform number in [0, 1), by inverse distribution function."""
    import numpy as np

    if draw.categories is not None:
        return _pick(list(draw.categories), list(draw.categories.values()), uniform)
    if draw.one_of is not None:
        return _pick(draw.one_of, [1.0] * len(draw.one_of), uniform)
    if draw.histogram is not None:
        heights = np.concatenate([[0.0], np.cumsum(draw.histogram.weights)])
        return np.asarray(np.interp(uniform * heights[-1], heights, np.array(draw.histogram.edges)))
    if draw.faker is not None:
        return _named(draw.faker, uniform, columns)
    assert draw.given is not None and draw.table is not None
    keys = columns[draw.given]
    values = np.empty(len(uniform), dtype=object)
    for key in np.unique(keys.astype(str)):
        mask = keys.astype(str) == key
        row = draw.table.get(str(key)) or draw.default
        assert row is not None, "checked when the pack was read"
        values[mask] = _drawn(row, uniform[mask], {name: column[mask] for name, column in columns.items()})
    return values


def _named(source: Faker, uniform: np.ndarray, columns: dict[str, np.ndarray]) -> np.ndarray:
    import numpy as np

    n = len(uniform)
    countries = columns[source.by] if source.by else np.full(n, "", dtype=object)
    sexes = columns[source.sex] if source.sex else np.full(n, "", dtype=object)
    values = np.empty(n, dtype=object)
    for country in np.unique(countries.astype(str)):
        locale = source.locale if isinstance(source.locale, str) else source.locale[str(country)]
        for sex in np.unique(sexes.astype(str)):
            mask = (countries == country) & (sexes == sex)
            values[mask] = _pick(*_faker_list(locale, source.list, str(sex)), uniform[mask])
    return values


def _faker_list(locale: str, name: str, sex: str) -> tuple[list[str], list[float]]:
    """A list of Faker's with its weights; for first names the list of the sex where there is one."""
    provider = importlib.import_module(f"faker.providers.person.{locale}").Provider
    found = getattr(provider, f"{name}_{sex}", None) if sex else None
    found = found or getattr(provider, name)
    if isinstance(found, dict):
        return list(found), [float(weight) for weight in found.values()]
    values = list(dict.fromkeys(found))
    return values, [1.0] * len(values)


def _pick(values: list[str], weights: list[float], uniform: np.ndarray) -> np.ndarray:
    import numpy as np

    bounds = np.cumsum(np.array(weights, dtype=np.float64))
    index = np.searchsorted(bounds, uniform * bounds[-1], side="right")
    picked: np.ndarray = np.array(values, dtype=object)[np.minimum(index, len(values) - 1)]
    return picked


def _across(document: Document, pack: Pack) -> list[Mistake]:
    """What one trait cannot know alone: order, conditions without a row, templates over unknown traits."""
    mistakes: list[Mistake] = []
    closed: dict[str, set[str] | None] = {}
    for name, trait in pack.traits.items():
        if not name.isidentifier() or name in RESERVED:
            mistakes.append(
                document.mistake(
                    ("traits", name),
                    f"a trait is named with letters, digits and _, and not one of {', '.join(RESERVED)}",
                )
            )
        mistakes += _conditions(document, ("traits", name, "draw"), trait.draw, name, closed)
        closed[name] = _closed_values(trait.draw)
        mistakes += _fits(document, ("traits", name, "draw"), trait, trait.draw)
    row = {name: 0 if trait.type != "string" else "x" for name, trait in pack.traits.items()}
    try:
        compiled(pack.text).render(row)
    except (TemplateError, ArithmeticError, TypeError, ValueError) as problem:
        mistakes.append(document.mistake(("text",), f"the template does not render: {problem}"))
    return mistakes


def _conditions(
    document: Document, path: tuple[str | int, ...], draw: Draw, trait: str, closed: dict[str, set[str] | None]
) -> list[Mistake]:
    mistakes: list[Mistake] = []
    if draw.faker is not None:
        for used in (draw.faker.by, draw.faker.sex):
            if used is not None and used not in closed:
                mistakes.append(document.mistake((*path, "faker"), _not_earlier(used, trait, closed)))
        mistakes += _locales(document, (*path, "faker", "locale"), draw.faker, closed)
    if draw.given is None or draw.table is None:
        return mistakes
    if draw.given not in closed:
        return [*mistakes, document.mistake((*path, "given"), _not_earlier(draw.given, trait, closed))]
    values = closed[draw.given]
    for value in sorted((values or set()) - set(draw.table)):
        if draw.default is None:
            mistakes.append(
                document.mistake((*path, "table"), f"has no row for {draw.given} = {value!r} and no default")
            )
    if values is None and draw.default is None:
        mistakes.append(
            document.mistake((*path, "given"), f"{draw.given!r} has no fixed list of values: add a default")
        )
    for value, inner in draw.table.items():
        if values is not None and value not in values:
            near = nearest(value, values)
            mistakes.append(document.mistake((*path, "table", value), f"{draw.given} is never {value!r}{near}"))
        mistakes += _conditions(document, (*path, "table", value), inner, trait, closed)
    return mistakes


def _fits(document: Document, path: tuple[str | int, ...], trait: Trait, draw: Draw) -> list[Mistake]:
    """Whether a draw gives values of the trait's type, within its bounds."""
    if draw.table is not None:
        rows = [((*path, "table", value), inner) for value, inner in draw.table.items()]
        rows += [((*path, "default"), draw.default)] if draw.default else []
        return [mistake for place, inner in rows for mistake in _fits(document, place, trait, inner)]
    if (draw.histogram is None) != (trait.type == "string"):
        return [document.mistake(path, f"a trait of type {trait.type} is drawn by "
                                       f"{'words' if trait.type == 'string' else 'a histogram'}")]  # fmt: skip
    if draw.histogram is not None:
        low, high = draw.histogram.edges[0], draw.histogram.edges[-1]
        if low < (trait.minimum if trait.minimum is not None else low) or high > (
            trait.maximum + (trait.type == "integer") if trait.maximum is not None else high
        ):
            said = f"edges from {low:g} to {high:g} leave the trait's bounds {trait.minimum} to {trait.maximum}"
            return [document.mistake(path, said)]
    return []


def _locales(
    document: Document, path: tuple[str | int, ...], faker: Faker, closed: dict[str, set[str] | None]
) -> list[Mistake]:
    locales = [faker.locale] if isinstance(faker.locale, str) else list(faker.locale.values())
    mistakes = [
        document.mistake(path, f"Faker has no locale {locale!r} with names")
        for locale in locales
        if not (locale.replace("_", "").isalnum() and _has_locale(locale))
    ]
    if isinstance(faker.locale, dict) and faker.by is None:
        mistakes.append(document.mistake(path, "is a mapping: say by which earlier trait with `by`"))
    if isinstance(faker.locale, dict):
        for value in sorted((closed.get(faker.by or "") or set()) - set(faker.locale)):
            mistakes.append(document.mistake(path, f"has no locale for {faker.by} = {value!r}"))
    return mistakes


def _has_locale(locale: str) -> bool:
    return importlib.util.find_spec(f"faker.providers.person.{locale}") is not None


def _not_earlier(used: str, trait: str, closed: dict[str, set[str] | None]) -> str:
    return f"{used!r} is not a trait above {trait!r}{nearest(used, closed)}"


def _closed_values(draw: Draw) -> set[str] | None:
    """All values a draw can give, or `None` where they are not a fixed list of texts."""
    if draw.categories is not None:
        return set(draw.categories)
    if draw.one_of is not None:
        return set(draw.one_of)
    if draw.table is not None:
        found: set[str] = set()
        for inner in [*draw.table.values(), *([draw.default] if draw.default else [])]:
            values = _closed_values(inner)
            if values is None:
                return None
            found |= values
        return found
    return None


def _sum_to_one(weights: Any) -> None:
    total = sum(weights)
    if abs(total - 1) > 0.005:
        raise ValueError(f"the shares sum to {total:.4g}, not 1")
