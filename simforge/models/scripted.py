"""The `scripted` provider: a model that is a plain function of the request.

It is meant for tests, examples, dry runs and overhead measurements. `scripted:` is the actor
below. Its texts make no sense, but it follows the steering of the shipped preference space, so
that a whole run can be rehearsed in a second. `scripted:module:function` calls your own
function: it takes a `simforge.types.ChatRequest` (`messages`, `choices`, `schema`, `seed`) and
returns a text or a `ChatReply`.

    simforge generate --model scripted: --personas 100 --out /tmp/rehearsal
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

from simforge.errors import UsageError
from simforge.identity import digest, rng
from simforge.models.contract import ModelSpec
from simforge.types import ChatReply, ChatRequest, Finish, JsonObject

ScriptFunction = Callable[[ChatRequest], "str | ChatReply"]


def resolve(name: str) -> ModelSpec:
    """Return the spec of `scripted:` or `scripted:module:function`; raises `UsageError` if it
    cannot be imported."""
    _load_function(name)
    about = "a plain function of the request; its texts mean nothing"
    return ModelSpec(
        f"scripted:{name}", f"scripted:{name or 'actor/1'}", "Apache-2.0", about
    )


class ScriptedModel:
    """A model that calls a function for each request."""

    def __init__(self, name: str) -> None:
        self._call = _load_function(name)

    async def chat(self, request: ChatRequest, dialogue: str = "") -> ChatReply:
        answer = self._call(request)
        return answer if isinstance(answer, ChatReply) else make_reply(request, answer)

    async def close(self) -> None:
        """Do nothing."""


def make_reply(
    request: ChatRequest, text: str, probabilities: dict[str, float] | None = None
) -> ChatReply:
    """Build a reply with this text, counting one token per word and cutting it at the request's
    `max_tokens`."""
    words = text.split(" ")
    truncated = len(words) > request.sampling.max_tokens
    return ChatReply(
        text=" ".join(words[: request.sampling.max_tokens]),
        finish=Finish.length if truncated else Finish.stop,
        prompt_tokens=sum(len(message.content.split()) for message in request.messages),
        cached_tokens=0,
        completion_tokens=min(len(words), request.sampling.max_tokens),
        choice_probabilities=probabilities or {},
    )


def actor(request: ChatRequest) -> str | ChatReply:
    """Built-in script: random words, seeded with the request's digest and shaped by its
    steering."""
    key = digest([message.as_dict() for message in request.messages])
    random_source = rng(request.seed, "actor", key)
    if request.choices:
        weights = [random_source.random() + 0.05 for _ in request.choices]
        probabilities = {
            c: w / sum(weights) for c, w in zip(request.choices, weights, strict=True)
        }
        return make_reply(
            request, max(probabilities, key=lambda c: probabilities[c]), probabilities
        )
    if request.schema is not None:
        return json.dumps(_instance(json.loads(request.schema), random_source))
    instructions = " ".join(
        message.content for message in request.messages if message.role == "system"
    ).lower()
    instructions += " " + request.messages[-1].content.lower()
    if (
        "messages that a person types" in instructions
        or "you are a user who" in instructions
    ):
        return (
            "How do I "
            + " ".join(random_source.choices(_NOUNS, k=random_source.randint(4, 12)))
            + "?"
        )
    if "you write system messages" in instructions:
        return (
            "You are an assistant. Answer as somebody who reads this would like: "
            f"{request.messages[-1].content}"
        )
    vocabulary = (
        _LONG_WORDS
        if "phd" in instructions
        else _SHORT_WORDS
        if "ten-year-old" in instructions
        else _SHORT_WORDS + _LONG_WORDS
    )
    low, high = (
        (8, 14)
        if "concise" in instructions
        else (60, 90)
        if "very informative" in instructions
        else (28, 40)
    )
    words = random_source.choices(vocabulary, k=random_source.randint(low, high))
    per_sentence = 18 if "phd" in instructions else 6
    sentences = [
        words[start : start + per_sentence]
        for start in range(0, len(words), per_sentence)
    ]
    mark = "!" if "close friend" in instructions else "."
    return " ".join(" ".join(sentence).capitalize() + mark for sentence in sentences)


def _instance(schema: JsonObject, random_source: Any) -> Any:
    """Generate a value for the basic part of JSON Schema: types, enums, properties, items,
    bounds."""
    if "enum" in schema:
        return random_source.choice(schema["enum"])
    kind = schema.get("type", "object")
    if kind == "object":
        return {
            name: _instance(inner, random_source)
            for name, inner in schema.get("properties", {}).items()
        }
    if kind == "array" and schema.get("minItems") == len(
        schema.get("items", {}).get("enum", ())
    ):  # a ranking
        return random_source.sample(schema["items"]["enum"], schema["minItems"])
    if kind == "array":
        return [
            _instance(schema.get("items", {"type": "string"}), random_source)
        ] * max(1, schema.get("minItems", 1))
    if kind in ("integer", "number"):
        low = schema.get("minimum", 0)
        return random_source.randint(int(low), int(schema.get("maximum", low + 100)))
    if kind == "boolean":
        return bool(random_source.random() < 0.5)
    words = [random_source.choice(_SHORT_WORDS)]
    while len(" ".join(words)) < schema.get("minLength", 1):
        words.append(random_source.choice(_SHORT_WORDS))
    return " ".join(words)


def _load_function(name: str) -> ScriptFunction:
    if not name:
        return actor
    module_name, colon, attribute = name.partition(":")
    try:
        function = (
            getattr(importlib.import_module(module_name), attribute) if colon else None
        )
    except (ImportError, AttributeError) as problem:
        raise UsageError(f"scripted:{name} cannot be imported: {problem}.") from None
    if not callable(function):
        raise UsageError(
            f"scripted:{name} is not a function; write scripted:module:function."
        )
    return function  # type: ignore[no-any-return]


_SHORT_WORDS = """
    a the we you can put it in on by sun rain soil seed pot tap pan bread rice bike road bus
    shop day week hand tool box plan note song dog cat tree leaf wood lamp door room cup
    milk salt soap rope wheel chain time
""".split()


_LONG_WORDS = """
    photosynthesis infrastructure thermodynamic epidemiology microbiological jurisdiction
    equilibrium differential polymerisation hydrological statistical amortisation
    cardiovascular morphological computational stoichiometric electromagnetic
    interdisciplinary biochemical algorithmic
""".split()


_NOUNS = """
    anchor apple arrow autumn balcony barrel basket beach bench bicycle blanket board boat
    bottle branch bridge broom bucket building butter button cable camera candle canvas
    carpet castle ceiling cellar chair cheese cherry chicken chimney circle cliff clock
    cloud coach coast coffee collar copper corner cotton couch cousin cradle cream crown
    curtain cushion desert dinner doctor drawer dress drum eagle engine evening fabric
    factory feather fence festival field finger flame flood floor flour flower forest
    fountain frame friend fruit garage garden garlic ginger glass glove goat grain grape
    grass guest guitar hammer harbour harvest helmet hill honey horse hospital island jacket
    jewel journey juice kettle kitchen kitten ladder lake lantern laundry leather lemon
    letter library lightning lizard machine magnet market meadow medal melon mirror monkey
    morning motor mountain museum mushroom needle nephew novel nurse ocean office olive
    onion orange orchard oven owner paint palace paper parcel parrot pasture pepper piano
    picture pillow pirate planet plate pocket poem police potato powder prison pumpkin
    puppet puzzle quilt rabbit radio railway raincoat recipe ribbon river rocket roof rubber
    saddle sailor salad sandal saucer school scissors shadow sheep shelf shoulder silver
    sister skirt sleeve slope snow sofa spider spoon spring stable station statue stone
    storm stove street sugar summer sweater table teacher temple theatre thread ticket tiger
    toast tomato tower tractor traffic train treasure tunnel turkey turtle umbrella uncle
    valley vegetable velvet village vinegar violin wagon wallet walnut water wedding whale
    wheat whistle window winter wizard wool worker yogurt
""".split()
