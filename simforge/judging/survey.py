"""A survey that a judge fills in from the person's side after a dialogue."""

from __future__ import annotations

import json

from simforge.catalog.templates import Generator
from simforge.judging.parsing import is_integer_within, object_schema
from simforge.models.calls import Calls
from simforge.personas.spaces import Space
from simforge.types import Message, Persona

SURVEY_FIELDS = ("performance", "choice")
"Questions that the survey asks about each attribute."


async def feedback(
    prefix: tuple[Message, ...],
    persona: Persona,
    space: Space,
    generator: Generator,
    calls: Calls,
) -> dict[str, tuple[int, int]] | None:
    """Fills in a survey about an answer from the person's side. Returns for each attribute how
    well the answer did and how much the attribute had to do with the choice, each 1 to 100.
    `None` if the reply cannot be parsed."""
    names = generator.front.attributes
    number = {"type": "integer", "minimum": 1, "maximum": 100}
    schema = object_schema(
        dict.fromkeys(names, object_schema(dict.fromkeys(SURVEY_FIELDS, number)))
    )
    wants = " and ".join(space.liked(persona.profile))
    variables = {"persona": persona.text, "wants": wants, "attributes": names}
    reply = await calls.ask(
        "judge", generator.render(variables, prefix), schema=json.dumps(schema)
    )
    try:
        filled = json.loads(reply.text)
        answers = {
            name: (filled[name]["performance"], filled[name]["choice"])
            for name in names
        }
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (
        answers
        if all(
            is_integer_within(points, 1, 100)
            for pair in answers.values()
            for points in pair
        )
        else None
    )
