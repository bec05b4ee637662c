"""YAML that knows where everything stands.

A recipe with five mistakes reports five, each with file, line and path, before a token is paid for. So text is read
twice from one parse: into plain values (safe loader, no tags, no duplicate keys), and into a map from key paths to
lines. Validation is pydantic's; this module turns its errors into sentences.

    recipe = validated(read(text, "pipelines/mine.yaml"), Recipe)
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from simforge.errors import Mistake, RecipeError, nearest

Path = tuple[str | int, ...]
M = TypeVar("M", bound="Strict")


class Loader(yaml.SafeLoader):
    """YAML's safe loader with the plain values of YAML 1.2 (`no` and `on` are words, a date is a text) and keys that
    are always texts."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        return {str(key.value): self.construct_object(value, deep=deep) for key, value in node.value}


_NEVER = re.compile("(?!)")
_TRUTH = re.compile("^(?:true|True|TRUE|false|False|FALSE)$")
_YAML_12 = {"tag:yaml.org,2002:bool": _TRUTH, "tag:yaml.org,2002:timestamp": _NEVER}
Loader.yaml_implicit_resolvers = {
    first: [(tag, _YAML_12.get(tag, pattern)) for tag, pattern in resolvers]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Strict(BaseModel):
    """A piece of YAML: frozen, and refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


@dataclass(slots=True)
class Document:
    """A parsed file."""

    label: str
    value: Any
    lines: dict[Path, int] = field(default_factory=dict)
    "1-based line of each key path."
    labels: dict[Path, str] = field(default_factory=dict)
    "File of each key path that came from another file than `label`."
    overrides: dict[Path, str] = field(default_factory=dict)
    "Key paths that were set from outside, and by what (`--set turns=x`)."

    def mistake(self, path: Path, message: str) -> Mistake:
        """A mistake at `path`, with the line of its nearest known ancestor."""
        for known, source in self.overrides.items():
            above = path[: len(known)] == known
            if above or (known[: len(path)] == path and path not in self.lines):
                return Mistake(source, None, dotted(path), message)
        near = next((path[:n] for n in range(len(path), 0, -1) if path[:n] in self.lines), ())
        return Mistake(self.labels.get(near, self.label), self.lines.get(near), dotted(path), message)

    def override(self, assignment: str, flag: str = "--set") -> None:
        """Apply `a.b=VALUE`, the value read as YAML."""
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise RecipeError([Mistake(f"{flag} {assignment}", None, "", "write it as key=value")])
        path: Path = tuple(int(part) if part.isdigit() else part for part in key.strip().split("."))
        try:
            value = yaml.load(text, Loader=Loader)  # a SafeLoader
        except yaml.YAMLError:
            raise RecipeError([Mistake(f"{flag} {assignment}", None, key, "the value is not YAML")]) from None
        self.put(path, value, f"{flag} {assignment}")

    def put(self, path: Path, value: Any, source: str) -> None:
        """Set the value at `path`, making mappings on the way."""
        place = self.value
        for part, following in pairwise(path):
            if isinstance(place, dict):
                place = place.setdefault(part, [] if isinstance(following, int) else {})
            elif isinstance(place, list) and isinstance(part, int) and part < len(place):
                place = place[part]
            else:
                raise RecipeError([Mistake(source, None, dotted(path), f"there is nothing at {part!r} to set")])
        if isinstance(place, list) and not (isinstance(path[-1], int) and path[-1] < len(place)):
            raise RecipeError([Mistake(source, None, dotted(path), f"the list has {len(place)} items")])
        if not isinstance(place, dict | list):
            raise RecipeError([Mistake(source, None, dotted(path), "the key above it holds a plain value")])
        place[path[-1]] = value  # type: ignore[index]
        self.overrides[path] = source


def dotted(path: Iterable[str | int]) -> str:
    return ".".join(str(part) for part in path)


def read(text: str, label: str, first_line: int = 1) -> Document:
    """Parse a mapping; `first_line` is where the text starts in its file. Raises `RecipeError`."""
    mistakes: list[Mistake] = []
    lines: dict[Path, int] = {}
    try:
        node = yaml.compose(text, Loader=Loader)
        value = yaml.load(text, Loader=Loader)  # a SafeLoader
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = mark.line + first_line if mark else None
        message = f"not YAML: {_first_sentence(problem)}"
        if "mapping values" in message:
            message += "; a value that ends in a colon needs quotes, as in 'scripted:'"
        raise RecipeError([Mistake(label, line, "", message)]) from None
    if not isinstance(value, dict) or node is None:
        raise RecipeError([Mistake(label, first_line, "", "must be a mapping of keys to values")])
    _walk(node, (), first_line, lines, mistakes, label)
    if mistakes:
        raise RecipeError(mistakes)
    return Document(label, value, lines)


def validated(document: Document, model: type[M]) -> M:
    """The document as a model; raises `RecipeError` with all mistakes."""
    instance, mistakes = check(document, model)
    if instance is None:
        raise RecipeError(mistakes)
    return instance


def check(document: Document, model: type[M]) -> tuple[M | None, list[Mistake]]:
    """The document as a model, or its mistakes: for callers that collect those of several files."""
    try:
        return model.model_validate(document.value), []
    except ValidationError as problem:
        return None, _sentences(document, model, problem.errors(include_url=False))


def _walk(
    node: yaml.Node, path: Path, first_line: int, lines: dict[Path, int], mistakes: list[Mistake], label: str
) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here, line = (*path, key), key_node.start_mark.line + first_line
            if key in seen:
                mistakes.append(Mistake(label, line, dotted(here), "is given twice"))
            seen.add(key)
            lines[here] = line
            _walk(value_node, here, first_line, lines, mistakes, label)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            lines[(*path, number)] = item.start_mark.line + first_line
            _walk(item, (*path, number), first_line, lines, mistakes, label)


def _sentences(document: Document, model: type[BaseModel], errors: list[Any]) -> list[Mistake]:
    """Where a value may have several shapes, pydantic names each in the place and tells the mistakes of all: told are
    those of the shape that the value got furthest into."""
    plain: list[Any] = []
    shaped: dict[Path, list[Any]] = {}
    for error in errors:
        tag = _first_tag(document.value, error)
        if tag is None:
            plain.append(error)
        else:
            short = {**error, "loc": (*error["loc"][:tag], *error["loc"][tag + 1 :])}
            shaped.setdefault(error["loc"][:tag], []).append(short)
    for group in shaped.values():
        fitting = [error for error in group if not error["type"].endswith("_type")] or group[:1]
        deepest = max(len(error["loc"]) for error in fitting)
        plain += _together([error for error in fitting if len(error["loc"]) == deepest])
    return list(dict.fromkeys(_sentence(document, model, error) for error in plain))


def _together(errors: list[Any]) -> list[Any]:
    """Words that two shapes allow at one place are one list of choices."""
    words = [error for error in errors if error["type"] in ("enum", "literal_error")]
    if len(words) < 2:
        return errors
    expected = ", ".join(str(error["ctx"]["expected"]) for error in words)
    return [{**words[0], "ctx": {"expected": expected}}, *(error for error in errors if error not in words)]


def _first_tag(value: Any, error: Any) -> int | None:
    """The place in an error's path that names a shape (`list[str]`, `Pole`) and no key."""
    path: Path = error["loc"]
    for place, part in enumerate(path):
        if isinstance(value, dict):
            if part not in value:
                absent = place == len(path) - 1 and error["type"] in ("missing", "extra_forbidden")
                return None if absent or part == "[key]" else place
            value = value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return place if isinstance(part, str) and part != "[key]" else None
    return None


def _sentence(document: Document, model: type[BaseModel], error: Any) -> Mistake:
    path: Path = tuple(part for part in error["loc"] if part != "[key]")
    kind, given = error["type"], error.get("input")
    if kind == "extra_forbidden":
        known = _keys_at(model, path[:-1])
        return document.mistake(path, f"unknown key {path[-1]!r}{nearest(str(path[-1]), known)}")
    if kind == "missing":
        return document.mistake(path, "is missing")
    if kind in ("enum", "literal_error"):
        expected = str(error["ctx"]["expected"])
        choices = [c.strip(" '") for c in expected.replace(" or ", ",").split(",")]
        close = nearest(str(given), choices) or f"; one of {expected}"
        return document.mistake(path, f"{given!r} is not allowed{close}")
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return document.mistake(path, f"must be a mapping of keys to values, not {given!r}")
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    shown = "" if isinstance(given, dict | list) or kind == "value_error" else f", not {given!r}"
    return document.mistake(path, message + shown)


def _keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """The keys that a model knows at a path, through lists, unions and mappings."""
    current: list[type[BaseModel]] = [model]
    for part in path:
        following: list[type[BaseModel]] = []
        for one in current:
            if part in one.model_fields:
                following += _models_in(one.model_fields[str(part)].annotation)
        current = following or current
    return sorted({key for one in current for key in one.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in _models_in(inner)]


def _first_sentence(problem: yaml.YAMLError) -> str:
    return str(getattr(problem, "problem", None) or problem).split("\n")[0]
