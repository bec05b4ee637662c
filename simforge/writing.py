"""What a model adds to people: traits that are written, portraits in place of the text template, more preferences.

Written traits are asked for as JSON that the traits' own schema describes. The model is held to it while it writes,
where its engine can, and the answer is validated with jsonschema all the same; one that does not fit is shown its
mistake and asked for again, twice at most. A person who cannot be written is left out of the cast, and counted: nothing
is made up in their place. What a portrait adds stays in the text and enters no column.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator

from simforge import generators
from simforge.errors import CallFailed
from simforge.generators import Generator
from simforge.identity import canonical
from simforge.personas import Cast
from simforge.personas.pack import Pack
from simforge.personas.reading import schema
from simforge.preferences import Space
from simforge.roles import Calls, Roles
from simforge.types import Finish, Usage

if TYPE_CHECKING:
    import polars as pl

ATTEMPTS = 3
"Most answers that are asked for before a person is left out."


@dataclass(frozen=True, slots=True)
class Written:
    """A cast after the writer."""

    cast: Cast
    left_out: dict[int, str]
    "Row in the drawn cast of each person who could not be written, and why."
    usage: dict[str, Usage]
    "By role, as for dialogues."


async def write(cast: Cast, roles: Roles, concurrency: int) -> Written:
    """Have the writer complete the people; `concurrency` of them at once."""
    calls = roles.calls()
    pack = cast.pack
    forms = [_Form.of(pack, reference, names) for reference, names in pack.written.items()]
    portrait = generators.load(pack.portrait) if pack.portrait is not None else None
    rows: dict[int, dict[str, Any]] = {}
    texts: dict[int, str] = {}
    left_out: dict[int, str] = {}
    waiting: Iterator[int] = iter(range(len(cast)))

    async def places() -> None:
        for index in waiting:
            try:
                row = dict(cast.traits(index))
                for form in forms:
                    row |= await form.filled(row, index, calls)
                if portrait is not None:
                    texts[index] = await _portrait(portrait, pack, row, index, calls)
                rows[index] = row
            except CallFailed as problem:
                left_out[index] = str(problem)

    await asyncio.gather(*(places() for _ in range(min(concurrency, len(cast)))))
    return Written(_completed(cast, rows, texts), dict(sorted(left_out.items())), calls.usage)


@dataclass(frozen=True, slots=True)
class _Form:
    """The traits that one generator writes."""

    generator: Generator
    schema: dict[str, Any]
    wanted: list[dict[str, str]]

    @classmethod
    def of(cls, pack: Pack, reference: str, names: list[str]) -> _Form:
        properties = {name: pack.traits[name].json_schema() for name in names}
        for one in properties.values():
            if one["type"] == "string":
                one["minLength"] = 1
            elif one["type"] == "integer":
                one.setdefault("minimum", -(2**53))
                one.setdefault("maximum", 2**53)
        form = {"type": "object", "properties": properties, "required": names, "additionalProperties": False}
        wanted = [{"name": name, "type": one["type"], "description": one.get("description", name)} for name, one in
                  properties.items()]  # fmt: skip
        return cls(generators.load(reference), form, wanted)

    async def filled(self, row: dict[str, Any], index: int, calls: Calls) -> dict[str, Any]:
        """The written traits of one person; raises `CallFailed` after the last attempt."""
        known = {name: value for name, value in row.items() if value is not None}
        person = "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in known.items())
        mistake = ""
        for attempt in range(ATTEMPTS):
            variables = {"person": person, "traits": known, "wanted": self.wanted, "mistake": mistake}
            reply = await calls.ask(
                "writer", self.generator, variables, attempt=f"/{index}/{attempt}", schema=canonical(self.schema)
            )
            value, mistake = _read_json(self.schema, reply.text, reply.finish)
            if not mistake:
                return value
        raise CallFailed(f"after {ATTEMPTS} answers the writer's JSON still does not fit: {mistake}")


async def _portrait(generator: Generator, pack: Pack, row: dict[str, Any], index: int, calls: Calls) -> str:
    facts = " ".join(generators.compiled(pack.text).render(row).split())
    for attempt in range(ATTEMPTS):
        variables = {"person": facts, "traits": row, "wanted": [], "mistake": ""}
        reply = await calls.ask("writer", generator, variables, attempt=f"/{index}/portrait/{attempt}")
        if reply.finish != Finish.length and reply.text.strip():
            return " ".join(reply.text.split())
    raise CallFailed(f"after {ATTEMPTS} answers the writer's portrait is still empty or cut off")


def _completed(cast: Cast, rows: dict[int, dict[str, Any]], texts: dict[int, str]) -> Cast:
    import polars as pl

    kept = sorted(rows)
    frame = pl.DataFrame([rows[index] for index in kept], schema=schema(cast.pack))
    told: pl.Series | None = pl.Series("text", [texts[index] for index in kept]) if texts else None
    return replace(cast, frame=frame, texts=told)


PREFERENCE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 3, "maxLength": 40},
        "description": {"type": "string", "minLength": 15, "maxLength": 240},
    },
    "required": ["name", "description"],
    "additionalProperties": False,
}


async def grow(space: Space, to: int, calls: Calls) -> dict[str, dict[str, dict[str, str]]]:
    """New preferences by dimension and subdimension, until each subdimension has `to` of them.

    A subdimension for which the writer offers nothing new in three attempts stays smaller.
    """
    generator = generators.load("writer/preferences")

    async def grown(dimension: str, subdimension: str, known: dict[str, str]) -> dict[str, str]:
        added: dict[str, str] = {}
        while len(known) + len(added) < to:
            one = await _preference(generator, dimension, subdimension, {**known, **added}, calls)
            if one is None:
                break
            added[one[0]] = one[1]
        return added

    places = [
        (name, sub, {one: pole if isinstance(pole, str) else pole.steer for one, pole in preferences.items()})
        for name, dimension in space.dimensions.items()
        for sub, preferences in (dimension.subdimensions or {}).items()
    ]
    found = await asyncio.gather(*(grown(*place) for place in places))
    new: dict[str, dict[str, dict[str, str]]] = {}
    for (dimension, subdimension, _), added in zip(places, found, strict=True):
        new.setdefault(dimension, {})[subdimension] = added
    return new


async def _preference(
    generator: Generator, dimension: str, subdimension: str, known: dict[str, str], calls: Calls
) -> tuple[str, str] | None:
    mistake = ""
    for attempt in range(ATTEMPTS):
        variables = {"dimension": dimension, "subdimension": subdimension, "known": known, "mistake": mistake}
        reply = await calls.ask(
            "writer", generator, variables, attempt=f"/grow/{attempt}", schema=canonical(PREFERENCE)
        )
        value, mistake = _read_json(PREFERENCE, reply.text, reply.finish)
        if mistake:
            continue
        name = re.sub(r"[^a-z0-9]+", "_", value["name"].lower()).strip("_")
        like = next((one for one, text in known.items() if _alike(text, value["description"])), None)
        if not name or name in known:
            mistake = f"the name {value['name']!r} is taken or empty"
        elif like is not None:
            mistake = f"it says the same as {like!r}"
        else:
            return name, value["description"].strip()
    return None


def _alike(first: str, second: str) -> bool:
    """Whether two sentences share most of their words (Jaccard similarity of at least 0.7)."""
    one, other = (set(re.findall(r"\w+", text.lower())) for text in (first, second))
    return len(one & other) >= 0.7 * len(one | other)


def _read_json(schema_: dict[str, Any], text: str, finish: Finish) -> tuple[dict[str, Any], str]:
    """The value of a JSON answer, or what is wrong with it."""
    if finish == Finish.length:
        return {}, "it was too long"
    try:
        value = json.loads(text, parse_constant=_no_number)
        canonical(value).encode()  # half of a surrogate pair is JSON, and no text
    except (ValueError, RecursionError) as problem:
        return {}, f"it is not JSON ({problem})"
    if isinstance(value, dict):
        value = {name: one.strip() if isinstance(one, str) else one for name, one in value.items()}
    wrong = next(iter(Draft202012Validator(schema_).iter_errors(value)), None)
    return ({}, wrong.message) if wrong is not None else (value, "")


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")
