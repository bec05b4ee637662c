"""Additions to personas that a model writes: traits, portraits (in place of the text template),
more preferences.

Written traits are requested as JSON with the schema of the traits. Engines that support it
constrain the generation to the schema, and every answer is validated with jsonschema. An
answer that does not fit is returned to the model with its mistake, at most twice. A person
who cannot be written is left out of the cast and counted; nothing is invented instead.
Details that a portrait adds stay in the text and are not stored in any column.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from jsonschema import Draft202012Validator

from simforge.catalog import sandbox, templates
from simforge.catalog.templates import Generator
from simforge.errors import CallFailed
from simforge.identity import canonical
from simforge.models.calls import Calls, Roles
from simforge.personas.cast import Cast
from simforge.personas.pack import Pack, polars_schema
from simforge.personas.spaces import Space
from simforge.types import Finish, JsonObject, Usage

if TYPE_CHECKING:
    import polars as pl


MAX_ATTEMPTS = 3
"Number of answers after which a person is left out."


@dataclass(frozen=True, slots=True)
class WrittenCast:
    """A cast that the writer has completed."""

    cast: Cast
    left_out: dict[int, str]
    "Row in the sampled cast of each person who could not be written, with the reason."
    usage: dict[str, Usage]
    "Usage by role, as for dialogues."


async def complete_written_parts(
    cast: Cast, roles: Roles, concurrency: int
) -> WrittenCast:
    """Complete the people with the writer, at most `concurrency` at a time."""
    calls = roles.calls()
    pack = cast.pack
    trait_writers = [
        _TraitWriter.create(pack, reference, names)
        for reference, names in pack.traits_by_writer.items()
    ]
    portrait = templates.load(pack.portrait) if pack.portrait is not None else None
    rows: dict[int, JsonObject] = {}
    texts: dict[int, str] = {}
    left_out: dict[int, str] = {}
    waiting: Iterator[int] = iter(range(len(cast)))

    async def places() -> None:
        for index in waiting:
            try:
                row = dict(cast.traits(index))
                for trait_writer in trait_writers:
                    row |= await trait_writer.write(row, index, calls)
                if portrait is not None:
                    texts[index] = await _write_portrait(
                        portrait, pack, row, index, calls
                    )
                rows[index] = row
            except CallFailed as problem:
                left_out[index] = str(problem)

    await asyncio.gather(*(places() for _ in range(min(concurrency, len(cast)))))
    return WrittenCast(
        _replace_people(cast, rows, texts), dict(sorted(left_out.items())), calls.usage
    )


@dataclass(frozen=True, slots=True)
class _TraitWriter:
    """The traits that one generator writes, and their schema."""

    generator: Generator
    schema: JsonObject
    wanted: list[dict[str, str]]

    @classmethod
    def create(cls, pack: Pack, reference: str, names: list[str]) -> _TraitWriter:
        properties = {name: pack.traits[name].json_schema() for name in names}
        for property_schema in properties.values():
            if property_schema["type"] == "string":
                property_schema["minLength"] = 1
            elif property_schema["type"] == "integer":
                property_schema.setdefault("minimum", -(2**53))
                property_schema.setdefault("maximum", 2**53)
        form = {
            "type": "object",
            "properties": properties,
            "required": names,
            "additionalProperties": False,
        }
        wanted = [
            {
                "name": name,
                "type": property_schema["type"],
                "description": property_schema.get("description", name),
            }
            for name, property_schema in properties.items()
        ]
        return cls(templates.load(reference), form, wanted)

    async def write(self, row: JsonObject, index: int, calls: Calls) -> JsonObject:
        """Return the written traits of one person. Raises `CallFailed` after the last
        attempt."""
        traits = {name: value for name, value in row.items() if value is not None}
        person = "\n".join(
            f"{name.replace('_', ' ')}: {value}" for name, value in traits.items()
        )
        mistake = ""
        for attempt in range(MAX_ATTEMPTS):
            variables = {
                "person": person,
                "traits": traits,
                "wanted": self.wanted,
                "mistake": mistake,
            }
            reply = await calls.ask(
                "writer",
                self.generator.render(variables),
                attempt=f"/{index}/{attempt}",
                schema=canonical(self.schema),
            )
            value, mistake = _parse_json(self.schema, reply.text, reply.finish)
            if not mistake:
                return value
        raise CallFailed(
            f"after {MAX_ATTEMPTS} answers the writer's JSON still does not fit: {mistake}"
        )


async def _write_portrait(
    generator: Generator, pack: Pack, row: JsonObject, index: int, calls: Calls
) -> str:
    facts = " ".join(sandbox.compile_template(pack.text).render(row).split())
    for attempt in range(MAX_ATTEMPTS):
        variables = {"person": facts, "traits": row, "wanted": [], "mistake": ""}
        reply = await calls.ask(
            "writer",
            generator.render(variables),
            attempt=f"/{index}/portrait/{attempt}",
        )
        if reply.finish == Finish.stop and reply.text.strip():
            return " ".join(reply.text.split())
    raise CallFailed(
        f"after {MAX_ATTEMPTS} answers the writer's portrait is still empty or cut off"
    )


def _replace_people(
    cast: Cast, rows: dict[int, JsonObject], texts: dict[int, str]
) -> Cast:
    import polars as pl

    kept = sorted(rows)
    frame = pl.DataFrame(
        [rows[index] for index in kept], schema=polars_schema(cast.pack)
    )
    new_texts: pl.Series | None = (
        pl.Series("text", [texts[index] for index in kept]) if texts else None
    )
    return replace(cast, frame=frame, texts=new_texts)


PREFERENCE_SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3, "maxLength": 40},
        "description": {"type": "string", "minLength": 15, "maxLength": 240},
    },
    "required": ["name", "description"],
    "additionalProperties": False,
}


async def add_preferences(
    space: Space, size: int, calls: Calls
) -> dict[str, dict[str, dict[str, str]]]:
    """Write new preferences, by dimension and subdimension, until each subdimension has the
    wanted number.

    A subdimension stays smaller if the writer offers nothing new in three attempts.
    """
    generator = templates.load("writer/preferences")

    async def grown(
        dimension: str, subdimension: str, existing: dict[str, str]
    ) -> dict[str, str]:
        added: dict[str, str] = {}
        while len(existing) + len(added) < size:
            preference = await _ask_preference(
                generator, dimension, subdimension, {**existing, **added}, calls
            )
            if preference is None:
                break
            added[preference[0]] = preference[1]
        return added

    subdimensions = [
        (
            name,
            sub,
            {
                key: pole if isinstance(pole, str) else pole.steer
                for key, pole in preferences.items()
            },
        )
        for name, dimension in space.dimensions.items()
        for sub, preferences in (dimension.subdimensions or {}).items()
    ]
    additions = await asyncio.gather(
        *(grown(*arguments) for arguments in subdimensions)
    )
    new: dict[str, dict[str, dict[str, str]]] = {}
    for (dimension, subdimension, _), added in zip(
        subdimensions, additions, strict=True
    ):
        new.setdefault(dimension, {})[subdimension] = added
    return new


async def _ask_preference(
    generator: Generator,
    dimension: str,
    subdimension: str,
    existing: dict[str, str],
    calls: Calls,
) -> tuple[str, str] | None:
    mistake = ""
    for attempt in range(MAX_ATTEMPTS):
        variables = {
            "dimension": dimension,
            "subdimension": subdimension,
            "known": existing,
            "mistake": mistake,
        }
        reply = await calls.ask(
            "writer",
            generator.render(variables),
            attempt=f"/grow/{attempt}",
            schema=canonical(PREFERENCE_SCHEMA),
        )
        value, mistake = _parse_json(PREFERENCE_SCHEMA, reply.text, reply.finish)
        if mistake:
            continue
        name = re.sub(r"[^a-z0-9]+", "_", value["name"].lower()).strip("_")
        similar_name = next(
            (
                other_name
                for other_name, text in existing.items()
                if _similar(text, value["description"])
            ),
            None,
        )
        if not name or name in existing:
            mistake = f"the name {value['name']!r} is already used or empty"
        elif similar_name is not None:
            mistake = f"it says the same as {similar_name!r}"
        else:
            return name, value["description"].strip()
    return None


def _similar(first: str, second: str) -> bool:
    """Return whether two sentences share most of their words (Jaccard similarity of at least
    0.7)."""
    first_words, second_words = (
        set(re.findall(r"\w+", text.lower())) for text in (first, second)
    )
    return len(first_words & second_words) >= 0.7 * len(first_words | second_words)


def _parse_json(
    schema_: JsonObject, text: str, finish: Finish
) -> tuple[JsonObject, str]:
    """Return the value of a JSON answer and an empty string, or an empty value and the
    mistake in it."""
    if finish != Finish.stop:
        return {}, "it was cut off"
    try:
        value = json.loads(text, parse_constant=_reject_constant)
        canonical(
            value
        ).encode()  # an unpaired surrogate is valid JSON but cannot be encoded
    except (ValueError, RecursionError) as problem:
        return {}, f"it is not JSON ({problem})"
    if isinstance(value, dict):
        value = {
            name: item.strip() if isinstance(item, str) else item
            for name, item in value.items()
        }
    error = next(iter(Draft202012Validator(schema_).iter_errors(value)), None)
    return ({}, error.message) if error is not None else (value, "")


def _reject_constant(word: str) -> None:
    raise ValueError(f"{word} is not a number")
