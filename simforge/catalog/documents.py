"""YAML with the file and line of every key.

A recipe with five mistakes reports five, each with file, line and path, before a token is paid
for. For this, text is read twice: into plain values (safe loader, no tags, no duplicate keys),
and into a map from key paths to lines. Pydantic validates the values; this module turns its
errors into messages.

    recipe = validated(read(text, "pipelines/mine.yaml"), Recipe)
"""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from simforge.catalog import files
from simforge.errors import Mistake, RecipeError, suggest

KeyPath = tuple[str | int, ...]


M = TypeVar("M", bound="Strict")


MAX_VALUES = 500_000
"Maximum number of values in a file, after its aliases are expanded."


MAX_DEPTH = 64
"Maximum depth of the values of a file."


# libyaml's parser, where PyYAML was built with it, is ten times as fast; its messages differ
# a little
_SafeLoader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Loader(_SafeLoader):  # type: ignore[misc, valid-type]
    """YAML's safe loader, with the plain values of YAML 1.2 (`no` and `on` are strings, a
    date is a string) and with keys that are always strings."""

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        return {
            str(key.value): self.construct_object(value, deep=deep)
            for key, value in node.value
        }


_NO_MATCH = re.compile("(?!)")


_BOOLEAN = re.compile("^(?:true|True|TRUE|false|False|FALSE)$")


_YAML_12 = {
    "tag:yaml.org,2002:bool": _BOOLEAN,
    "tag:yaml.org,2002:timestamp": _NO_MATCH,
}


Loader.yaml_implicit_resolvers = {
    first: [(tag, _YAML_12.get(tag, pattern)) for tag, pattern in resolvers]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class Strict(BaseModel):
    """A piece of YAML: frozen, and unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True
    )


@dataclass(slots=True)
class Document:
    """A parsed file."""

    label: str
    value: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)
    "1-based line of each key path."
    labels: dict[KeyPath, str] = field(default_factory=dict)
    "File of each key path that comes from a file other than `label`."
    overrides: dict[KeyPath, str] = field(default_factory=dict)
    "Key paths that were set from outside, and their source (`--set turns=x`)."

    def mistake(self, path: KeyPath, message: str) -> Mistake:
        """A mistake at `path`, with the line of its nearest known ancestor."""
        for overridden, source in self.overrides.items():
            above = path[: len(overridden)] == overridden
            if above or (overridden[: len(path)] == path and path not in self.lines):
                return Mistake(source, None, dotted(path), message)
        ancestor = next(
            (path[:n] for n in range(len(path), 0, -1) if path[:n] in self.lines), ()
        )
        return Mistake(
            self.labels.get(ancestor, self.label),
            self.lines.get(ancestor),
            dotted(path),
            message,
        )

    def override(self, assignment: str, flag: str = "--set") -> None:
        """Apply `a.b=VALUE`; the value is parsed as YAML."""
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise RecipeError(
                [Mistake(f"{flag} {assignment}", None, "", "write it as key=value")]
            )
        path: KeyPath = tuple(
            int(part) if part.isdigit() else part for part in key.strip().split(".")
        )
        try:
            value = yaml.load(text, Loader=Loader)  # a SafeLoader
        except (yaml.YAMLError, ValueError, AttributeError, RecursionError):
            raise RecipeError(
                [Mistake(f"{flag} {assignment}", None, key, "the value is not YAML")]
            ) from None
        self.put(path, value, f"{flag} {assignment}")

    def put(self, path: KeyPath, value: Any, source: str) -> None:
        """Set the value at `path`, creating mappings on the way."""
        container = self.value
        for part, following in pairwise(path):
            if isinstance(container, dict):
                container = container.setdefault(
                    part, [] if isinstance(following, int) else {}
                )
            elif (
                isinstance(container, list)
                and isinstance(part, int)
                and part < len(container)
            ):
                container = container[part]
            else:
                raise RecipeError(
                    [
                        Mistake(
                            source,
                            None,
                            dotted(path),
                            f"there is nothing at {part!r} to set",
                        )
                    ]
                )
        if isinstance(container, list) and not (
            isinstance(path[-1], int) and path[-1] < len(container)
        ):
            raise RecipeError(
                [
                    Mistake(
                        source,
                        None,
                        dotted(path),
                        f"the list has {len(container)} items",
                    )
                ]
            )
        if not isinstance(container, dict | list):
            raise RecipeError(
                [
                    Mistake(
                        source,
                        None,
                        dotted(path),
                        "the key above it holds a plain value, not a mapping or list",
                    )
                ]
            )
        container[path[-1]] = value  # type: ignore[index]
        self.overrides[path] = source


def dotted(path: Iterable[str | int]) -> str:
    return ".".join(str(part) for part in path)


def read_file(path: Path) -> Document:
    """Read and parse a file that holds a mapping. Raises `UsageError`."""
    return read(files.read_text(path), str(path))


def read(text: str, label: str, first_line: int = 1) -> Document:
    """Parse a mapping; `first_line` is the line of its file where the text starts. Raises
    `RecipeError`, also for a text whose values are too many or too deep."""
    mistakes: list[Mistake] = []
    lines: dict[KeyPath, int] = {}
    try:
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                _check_size(node, label, first_line)
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = mark.line + first_line if mark else None
        message = f"not YAML: {_first_sentence(problem)}"
        if "mapping values" in message:
            message += "; a value that ends in a colon needs quotes, as in 'scripted:'"
        raise RecipeError([Mistake(label, line, "", message)]) from None
    except (ValueError, AttributeError, RecursionError) as problem:
        # `!!int x`, `!!timestamp x`, a number of 5,000 digits
        reason = "too deep" if isinstance(problem, RecursionError) else str(problem)
        message = f"a value cannot be read: {reason.split(';')[0]}"
        raise RecipeError([Mistake(label, None, "", message)]) from None
    if not isinstance(value, dict) or node is None:
        raise RecipeError(
            [Mistake(label, first_line, "", "must be a mapping of keys to values")]
        )
    _collect_lines(node, (), first_line, lines, mistakes, label)
    raise_if_any(mistakes)
    return Document(label, value, lines)


def _check_size(root: yaml.Node, label: str, first_line: int) -> None:
    """Raise `RecipeError` if a document is too large once its aliases are expanded: nine lines
    of aliases can stand for a billion values. Each node is visited once."""
    sizes: dict[int, int] = {}
    stack: list[tuple[yaml.Node, int, bool]] = [(root, 0, False)]
    open_nodes: set[int] = set()
    while stack:
        node, depth, children_are_done = stack.pop()
        line = node.start_mark.line + first_line
        children = _child_nodes(node)
        if children_are_done:
            open_nodes.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(child)] for child in children)
            if sizes[id(node)] > MAX_VALUES:
                raise RecipeError(
                    [Mistake(label, line, "", f"holds more than {MAX_VALUES:,} values")]
                )
            continue
        if id(node) in sizes:
            continue
        if depth > MAX_DEPTH:
            raise RecipeError(
                [Mistake(label, line, "", f"is nested over {MAX_DEPTH} levels deep")]
            )
        open_nodes.add(id(node))
        stack.append((node, depth, True))
        for child in children:
            if id(child) in open_nodes:
                message = "an alias refers to the value that it is part of"
                raise RecipeError([Mistake(label, line, "", message)])
            stack.append((child, depth + 1, False))


def _child_nodes(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def raise_if_any(mistakes: Iterable[Mistake]) -> None:
    """Raise `RecipeError` if there are mistakes."""
    mistakes = list(mistakes)
    if mistakes:
        raise RecipeError(mistakes)


def validated(document: Document, model: type[M]) -> M:
    """Validate the document as a model. Raises `RecipeError` with all mistakes."""
    instance, mistakes = check(document, model)
    if instance is None:
        raise RecipeError(mistakes)
    return instance


def check(document: Document, model: type[M]) -> tuple[M | None, list[Mistake]]:
    """Validate the document as a model, or return its mistakes, for callers that collect
    those of several files."""
    try:
        return model.model_validate(document.value), []
    except ValidationError as problem:
        return None, _to_mistakes(document, model, problem.errors(include_url=False))


def valid_part(
    document: Document, model: type[M], mistakes: Iterable[Mistake]
) -> M | None:
    """Return what is left of a document without the keys that are mistakes, so that the rest can
    be checked; `None` if that is no valid document either."""
    value = copy.deepcopy(document.value)
    paths = {tuple(mistake.path.split(".")) for mistake in mistakes if mistake.path}
    for path in sorted(paths, key=len, reverse=True):
        _remove(value, path)
    try:
        return model.model_validate(value)
    except ValidationError:
        return None


def _remove(value: Any, path: tuple[str, ...]) -> None:
    """Take the key at a path out of a mapping, or its nearest ancestor in one."""
    place, owner, key = value, value, path[0]
    for part in path:
        if isinstance(place, dict):
            owner, key = place, part
            place = place.get(part)
        elif isinstance(place, list) and part.isdigit() and int(part) < len(place):
            place = place[int(part)]
        else:
            break
    if isinstance(owner, dict):
        owner.pop(key, None)


def _collect_lines(
    node: yaml.Node,
    path: KeyPath,
    first_line: int,
    lines: dict[KeyPath, int],
    mistakes: list[Mistake],
    label: str,
) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key_node, value_node in node.value:
            key = str(key_node.value)
            key_path, line = (*path, key), key_node.start_mark.line + first_line
            if key in seen:
                mistakes.append(
                    Mistake(label, line, dotted(key_path), "is given twice")
                )
            seen.add(key)
            lines[key_path] = line
            _collect_lines(value_node, key_path, first_line, lines, mistakes, label)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            lines[(*path, number)] = item.start_mark.line + first_line
            _collect_lines(item, (*path, number), first_line, lines, mistakes, label)


def _to_mistakes(
    document: Document, model: type[BaseModel], errors: list[Any]
) -> list[Mistake]:
    """Turn pydantic's errors into mistakes. Where a value may have several types, pydantic
    adds the type to the path and reports errors for all of them; only the errors of the type
    that matched furthest are kept."""
    plain: list[Any] = []
    by_place: dict[KeyPath, list[Any]] = {}
    for error in errors:
        tag = _union_tag_index(document.value, error)
        if tag is None:
            plain.append(error)
        else:
            short = {**error, "loc": (*error["loc"][:tag], *error["loc"][tag + 1 :])}
            by_place.setdefault(error["loc"][:tag], []).append(short)
    for group in by_place.values():
        fitting = [
            error for error in group if not error["type"].endswith("_type")
        ] or group[:1]
        deepest = max(len(error["loc"]) for error in fitting)
        plain += _merge_choices(
            [error for error in fitting if len(error["loc"]) == deepest]
        )
    return list(dict.fromkeys(_to_mistake(document, model, error) for error in plain))


def _merge_choices(errors: list[Any]) -> list[Any]:
    """Merge the choices of two types that are allowed at the same place into one list."""
    words = [error for error in errors if error["type"] in ("enum", "literal_error")]
    if len(words) < 2:
        return errors
    expected = ", ".join(str(error["ctx"]["expected"]) for error in words)
    return [
        {**words[0], "ctx": {"expected": expected}},
        *(error for error in errors if error not in words),
    ]


def _union_tag_index(value: Any, error: Any) -> int | None:
    """Index of the part of an error's path that names a type (`list[str]`, `Pole`) and not a
    key."""
    path: KeyPath = error["loc"]
    for index, part in enumerate(path):
        if isinstance(value, dict):
            if part not in value:
                absent = index == len(path) - 1 and error["type"] in (
                    "missing",
                    "extra_forbidden",
                )
                return None if absent or part == "[key]" else index
            value = value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return index if isinstance(part, str) and part != "[key]" else None
    return None


def _to_mistake(document: Document, model: type[BaseModel], error: Any) -> Mistake:
    path: KeyPath = tuple(part for part in error["loc"] if part != "[key]")
    kind, value = error["type"], error.get("input")
    if kind == "extra_forbidden":
        known_keys = _keys_at(model, path[:-1])
        return document.mistake(
            path, f"unknown key {path[-1]!r}{suggest(str(path[-1]), known_keys)}"
        )
    if kind == "missing":
        return document.mistake(path, "is missing")
    if kind in ("enum", "literal_error"):
        expected = str(error["ctx"]["expected"])
        choices = [
            choice.strip(" '") for choice in expected.replace(" or ", ",").split(",")
        ]
        close = suggest(str(value), choices) or f"; one of {expected}"
        return document.mistake(path, f"{value!r} is not allowed{close}")
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return document.mistake(
            path, f"must be a mapping of keys to values, not {value!r}"
        )
    message = str(error["msg"]).removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    shown = (
        ""
        if isinstance(value, dict | list) or kind == "value_error"
        else f", not {value!r}"
    )
    return document.mistake(path, message + shown)


def _keys_at(model: type[BaseModel], path: KeyPath) -> list[str]:
    """The keys that a model knows at a path, through lists, unions and mappings."""
    current: list[type[BaseModel]] = [model]
    for part in path:
        following: list[type[BaseModel]] = []
        for submodel in current:
            if part in submodel.model_fields:
                following += _models_in(submodel.model_fields[str(part)].annotation)
        current = following or current
    return sorted({key for reached in current for key in reached.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [
        submodel
        for inner in getattr(annotation, "__args__", ())
        for submodel in _models_in(inner)
    ]


def _first_sentence(problem: yaml.YAMLError) -> str:
    return str(getattr(problem, "problem", None) or problem).split("\n")[0]
