"""The `scripted` provider: a model that is a plain function of the request.

It is for tests, examples, dry runs and overhead measurements. `scripted:` is the actor below, which says nothing
sensible but follows the steering of the shipped preference space, so that a whole run can be rehearsed in a second.
`scripted:module:function` calls your own function: it takes a `simforge.types.ChatRequest` (`messages`, `choices`,
`schema`, `seed`) and gives a text, or a `ChatReply`.

    simforge generate --model scripted: --personas 100 --out /tmp/rehearsal
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from typing import Any

from simforge.errors import UsageError
from simforge.identity import digest, rng
from simforge.models import ModelSpec
from simforge.types import ChatReply, ChatRequest, Finish

Script = Callable[[ChatRequest], "str | ChatReply"]


def resolve(name: str) -> ModelSpec:
    """The spec of `scripted:` or `scripted:module:function`; raises `UsageError` when it cannot be imported."""
    _function(name)
    about = "a plain function of the request; its texts mean nothing"
    return ModelSpec(f"scripted:{name}", f"scripted:{name or 'actor/1'}", "Apache-2.0", about)


class ScriptedModel:
    """Calls a function for each request."""

    def __init__(self, name: str) -> None:
        self._script = _function(name)

    async def chat(self, request: ChatRequest, dialogue: str = "") -> ChatReply:
        answer = self._script(request)
        return answer if isinstance(answer, ChatReply) else spoken(request, answer)

    async def close(self) -> None:
        """Nothing to let go of."""


def spoken(request: ChatRequest, text: str, probabilities: dict[str, float] | None = None) -> ChatReply:
    """A reply with this text, counting one token a word and keeping to the request's limits."""
    words = text.split(" ")
    cut = len(words) > request.sampling.max_tokens
    return ChatReply(
        text=" ".join(words[: request.sampling.max_tokens]),
        finish=Finish.length if cut else Finish.stop,
        prompt_tokens=sum(len(message.content.split()) for message in request.messages),
        cached_tokens=0,
        completion_tokens=min(len(words), request.sampling.max_tokens),
        choice_probabilities=probabilities or {},
    )


def actor(request: ChatRequest) -> str | ChatReply:
    """The built-in script: words drawn from the request's digest, shaped by the steering it was given."""
    key = digest([message.as_dict() for message in request.messages])
    source = rng(request.seed, "actor", key)
    if request.choices:
        weights = [source.random() + 0.05 for _ in request.choices]
        probabilities = {c: w / sum(weights) for c, w in zip(request.choices, weights, strict=True)}
        return spoken(request, max(probabilities, key=lambda c: probabilities[c]), probabilities)
    if request.schema is not None:
        return json.dumps(_instance(json.loads(request.schema), source))
    told = " ".join(message.content for message in request.messages if message.role == "system").lower()
    told += " " + request.messages[-1].content.lower()
    if "messages that a person types" in told or "you are a user who" in told:
        return "How do I " + " ".join(source.choices(_THINGS, k=source.randint(4, 12))) + "?"
    if "you write system messages" in told:
        return f"You are an assistant. Answer as somebody who reads this would like: {request.messages[-1].content}"
    vocabulary = _LONG if "phd" in told else _SHORT if "ten-year-old" in told else _SHORT + _LONG
    low, high = (8, 14) if "concise" in told else (60, 90) if "very informative" in told else (28, 40)
    words = source.choices(vocabulary, k=source.randint(low, high))
    per_sentence = 18 if "phd" in told else 6
    sentences = [words[start : start + per_sentence] for start in range(0, len(words), per_sentence)]
    mark = "!" if "close friend" in told else "."
    return " ".join(" ".join(sentence).capitalize() + mark for sentence in sentences)


def _instance(schema: dict[str, Any], source: Any) -> Any:
    """A value that satisfies the plain part of JSON Schema: types, enums, properties, items, bounds."""
    if "enum" in schema:
        return source.choice(schema["enum"])
    kind = schema.get("type", "object")
    if kind == "object":
        return {name: _instance(inner, source) for name, inner in schema.get("properties", {}).items()}
    if kind == "array" and schema.get("minItems") == len(schema.get("items", {}).get("enum", ())):  # a ranking
        return source.sample(schema["items"]["enum"], schema["minItems"])
    if kind == "array":
        return [_instance(schema.get("items", {"type": "string"}), source)] * max(1, schema.get("minItems", 1))
    if kind in ("integer", "number"):
        low = schema.get("minimum", 0)
        return source.randint(int(low), int(schema.get("maximum", low + 100)))
    if kind == "boolean":
        return bool(source.random() < 0.5)
    words = [source.choice(_SHORT)]
    while len(" ".join(words)) < schema.get("minLength", 1):
        words.append(source.choice(_SHORT))
    return " ".join(words)


def _function(name: str) -> Script:
    if not name:
        return actor
    module_name, colon, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), attribute) if colon else None
    except (ImportError, AttributeError) as problem:
        raise UsageError(f"scripted:{name} cannot be imported: {problem}.") from None
    if not callable(function):
        raise UsageError(f"scripted:{name} is not a function; write scripted:module:function.")
    return function  # type: ignore[no-any-return]


_SHORT = """a the we you can put it in on by sun rain soil seed pot tap pan bread rice bike road bus shop day week
hand tool box plan note song dog cat tree leaf wood lamp door room cup milk salt soap rope wheel chain time""".split()
_LONG = """photosynthesis infrastructure thermodynamic epidemiology microbiological jurisdiction equilibrium
differential polymerisation hydrological statistical amortisation cardiovascular morphological computational
stoichiometric electromagnetic interdisciplinary biochemical algorithmic""".split()
_THINGS = """anchor apple arrow autumn balcony barrel basket beach bench bicycle blanket board boat bottle branch bridge
broom bucket building butter button cable camera candle canvas carpet castle ceiling cellar chair cheese
cherry chicken chimney circle cliff clock cloud coach coast coffee collar copper corner cotton couch cousin
cradle cream crown curtain cushion desert dinner doctor drawer dress drum eagle engine evening fabric factory
feather fence festival field finger flame flood floor flour flower forest fountain frame friend fruit garage
garden garlic ginger glass glove goat grain grape grass guest guitar hammer harbour harvest helmet hill honey
horse hospital island jacket jewel journey juice kettle kitchen kitten ladder lake lantern laundry leather
lemon letter library lightning lizard machine magnet market meadow medal melon mirror monkey morning motor
mountain museum mushroom needle nephew novel nurse ocean office olive onion orange orchard oven owner paint
palace paper parcel parrot pasture pepper piano picture pillow pirate planet plate pocket poem police potato
powder prison pumpkin puppet puzzle quilt rabbit radio railway raincoat recipe ribbon river rocket roof rubber
saddle sailor salad sandal saucer school scissors shadow sheep shelf shoulder silver sister skirt sleeve slope
snow sofa spider spoon spring stable station statue stone storm stove street sugar summer sweater table
teacher temple theatre thread ticket tiger toast tomato tower tractor traffic train treasure tunnel turkey
turtle umbrella uncle valley vegetable velvet village vinegar violin wagon wallet walnut water wedding whale
wheat whistle window winter wizard wool worker yogurt""".split()
