"""Loading persona packs: turns a file into a `Pack`, or reports all of its mistakes.

There are three steps. First, the file and the packs that it extends are merged into one
document that still knows the source of every line. Second, the files that it names (lists,
conditional tables) are inlined. Third, pydantic checks the structure, and this module checks
what spans several traits: references to other traits, cycles, conditions without a row,
templates, constraints, targets. If one trait is invalid, the others are still checked, so
that all mistakes are reported at once.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from simforge import catalog
from simforge.catalog import documents
from simforge.catalog.documents import Document
from simforge.catalog.documents import KeyPath as KeyPath
from simforge.errors import Mistake, RecipeError, SimForgeError, SourceError
from simforge.personas import tables
from simforge.personas.pack import Pack
from simforge.personas.pack_checks import NUMERIC, _limit_per_line, _PackChecker
from simforge.types import JsonObject


def load_pack(reference: str) -> Pack:
    """Read a pack by name or path. Raises `RecipeError` with all its mistakes."""
    document, mistakes = _load_merged(reference, ())
    pack, shape_mistakes = (
        documents.check(document, Pack)
        if document.value.get("traits") or not mistakes
        else (None, [])
    )
    mistakes += shape_mistakes
    checkable = pack or _valid_part(document, shape_mistakes)
    if checkable is not None:
        mistakes += _PackChecker(document, checkable, _invalid_traits(mistakes)).run()
    if pack is None or mistakes:
        raise RecipeError(_limit_per_line(list(dict.fromkeys(mistakes))))
    return pack


def _load_merged(
    reference: str, descendants: tuple[str, ...]
) -> tuple[Document, list[Mistake]]:
    """Load a pack and the packs that it extends as one document, with their files inlined."""
    entry = catalog.entry("personas", reference)
    document = documents.read(entry.text, entry.label)
    shipped = catalog.root() / "personas"
    folder = (
        Path(reference).expanduser().resolve().parent
        if catalog.is_path(reference)
        else shipped
    )
    mistakes = _inline_files(document, folder)
    parent = document.value.get("extends")
    if not isinstance(parent, str):
        return document, mistakes
    parent = (
        str((folder / parent).resolve())
        if catalog.is_path(parent) and folder != shipped
        else parent
    )
    if parent in (*descendants, reference):
        return document, [
            *mistakes,
            document.mistake(
                ("extends",), f"depends on itself through a cycle: {parent}"
            ),
        ]
    try:
        base, more = _load_merged(parent, (*descendants, reference))
    except SimForgeError as problem:
        return document, [*mistakes, document.mistake(("extends",), str(problem))]
    return _merge(base, document), [*mistakes, *more]


def _merge(base: Document, top: Document) -> Document:
    """Merge `top` into `base`; `top` wins."""
    value = copy.copy(base.value)
    lines, labels = (
        dict(base.lines),
        {path: base.labels.get(path, base.label) for path in base.lines},
    )

    def take(path: KeyPath, to: KeyPath) -> None:
        for position, line in top.lines.items():
            if position[: len(path)] == path:
                lines[to + position[len(path) :]] = line
                labels[to + position[len(path) :]] = top.labels.get(position, top.label)

    for key, given in top.value.items():
        if (
            key == "traits"
            and isinstance(given, dict)
            and isinstance(value.get("traits"), dict)
        ):
            value["traits"] = dict(value["traits"])
            for name, trait in given.items():
                if trait is None:
                    value["traits"].pop(name, None)
                    continue
                old = value["traits"].get(name)
                both_dicts = isinstance(trait, dict) and isinstance(old, dict)
                value["traits"][name] = {**old, **trait} if both_dicts else trait
                take(("traits", name), ("traits", name))
        elif key in ("sources", "where", "correlated", "targets") and isinstance(
            given, list
        ):
            inherited = value[key] if isinstance(value.get(key), list) else []
            if key == "targets":
                replaced = [
                    target.get("of") for target in given if isinstance(target, dict)
                ]
                inherited = [
                    target
                    for target in inherited
                    if isinstance(target, dict) and target.get("of") not in replaced
                ]
            value[key] = [*inherited, *given]
            for number in range(len(given)):
                take((key, number), (key, len(inherited) + number))
        elif key != "extends":
            value[key] = given
            take((key,), (key,))
    value["extends"] = top.value["extends"]
    return Document(top.label, value, lines, labels, top.overrides)


def _inline_files(document: Document, folder: Path) -> list[Mistake]:
    """Inline lists and conditional tables into the document, and resolve the paths of
    datasets."""
    mistakes: list[Mistake] = []
    unreadable: list[str] = []
    traits = document.value.get("traits")
    for name, trait in traits.items() if isinstance(traits, dict) else ():
        if isinstance(trait, dict) and isinstance(trait.get("draw"), dict):
            before = len(mistakes)
            trait["draw"] = _inline_draw_files(
                document,
                ("traits", name, "draw"),
                trait,
                trait["draw"],
                folder,
                mistakes,
            )
            if len(mistakes) > before:
                unreadable.append(name)
    for name in unreadable:
        del document.value["traits"][name]  # its unreadable file is already reported
    people = document.value.get("people")
    if isinstance(people, dict) and "file" in people:
        try:
            document.value["people"] = tables.resolve_source(people, folder)
        except SourceError as problem:
            mistakes.append(document.mistake(("people", "file"), str(problem)))
    targets = document.value.get("targets")
    for number, target in enumerate(targets if isinstance(targets, list) else ()):
        if isinstance(target, dict) and isinstance(target.get("csv"), str):
            of = (
                [target["of"]]
                if isinstance(target.get("of"), str)
                else target.get("of")
            )
            if (
                not isinstance(of, list)
                or not of
                or not all(isinstance(name, str) for name in of)
            ):
                continue  # the structure check reports it
            try:
                shares = _read_shares(
                    tables.find_file(target["csv"], folder, (".csv",)), of
                )
            except (SourceError, ValueError) as problem:
                mistakes.append(
                    document.mistake(("targets", number, "csv"), str(problem))
                )
                continue
            targets[number] = {
                **{key: inner for key, inner in target.items() if key != "csv"},
                "shares": shares,
            }
    return mistakes


def _inline_draw_files(
    document: Document,
    path: KeyPath,
    trait: JsonObject,
    draw: Any,
    folder: Path,
    mistakes: list[Mistake],
) -> Any:
    """Return a draw with its files inlined."""
    if not isinstance(draw, dict):
        return draw
    draw = dict(draw)
    try:
        if isinstance(draw.get("file"), str):
            draw["one_of"] = tables.read_list(
                tables.find_file(draw["file"], folder, (".txt",))
            )
            del draw["file"]
        if isinstance(draw.get("column"), dict) and "file" in draw["column"]:
            draw["column"] = tables.resolve_source(draw["column"], folder)
        given = (
            [draw["given"]] if isinstance(draw.get("given"), str) else draw.get("given")
        )
        names = (
            isinstance(given, list)
            and given
            and all(isinstance(name, str) for name in given)
        )
        if isinstance(draw.get("csv"), str) and names and "table" not in draw:
            assert isinstance(given, list)
            rows = list(
                tables.read_weighted_rows(
                    tables.find_file(draw["csv"], folder, (".csv",)), given, "value"
                )
            )
            draw |= _nested_table(given, rows, trait, draw.get("default"))
            del draw["csv"]
    except (SourceError, ValueError) as problem:
        key = next(key for key in ("csv", "column", "file") if key in draw)
        mistakes.append(document.mistake((*path, key), str(problem)))
        return draw
    if isinstance(draw.get("table"), dict):
        draw["table"] = {
            value: _inline_draw_files(
                document, (*path, "table", value), trait, row, folder, mistakes
            )
            for value, row in draw["table"].items()
        }
    if "default" in draw:
        draw["default"] = _inline_draw_files(
            document, (*path, "default"), trait, draw["default"], folder, mistakes
        )
    return draw


def _nested_table(
    given: list[str],
    rows: list[tuple[tuple[str, ...], str, float]],
    trait: JsonObject,
    default: Any,
) -> JsonObject:
    """Turn a conditional table from a file into `given` nested inside `given`."""
    head, *rest = given
    grouped: dict[str, list[tuple[tuple[str, ...], str, float]]] = {}
    for condition_of, value, weight in rows:
        grouped.setdefault(condition_of[0], []).append(
            (condition_of[1:], value, weight)
        )
    kind, maximum = trait.get("type"), trait.get("maximum")
    upper = float(maximum) if isinstance(maximum, int | float) else None
    table = {
        key: _nested_table(rest, inner, trait, default)
        if rest
        else tables.draw_from_weights(
            [row[1:] for row in inner], kind in NUMERIC, kind == "integer", upper
        )
        for key, inner in grouped.items()
    }
    return {
        "given": head,
        "table": table,
        **({"default": default} if default is not None else {}),
    }


def _read_shares(path: Path, names: list[str]) -> JsonObject:
    rows = list(tables.read_weighted_rows(path, names, None))
    total = sum(weight for _, _, weight in rows)
    shares: JsonObject = {}
    for key, _, weight in rows:
        inner = shares
        for part in key[:-1]:
            inner = inner.setdefault(part, {})
        inner[key[-1]] = inner.get(key[-1], 0.0) + weight / (total or 1)
    return shares


def _invalid_traits(mistakes: list[Mistake]) -> set[str]:
    parts = [mistake.path.split(".") for mistake in mistakes]
    return {part[1] for part in parts if part[0] == "traits" and len(part) > 1}


def _valid_part(document: Document, mistakes: list[Mistake]) -> Pack | None:
    """Return the pack without its invalid parts, so that the rest can be checked."""
    value = {**_PLACEHOLDERS, **copy.copy(document.value)}
    for mistake in mistakes:
        head = mistake.path.split(".")[0]
        if head == "traits" and isinstance(value["traits"], dict):
            value["traits"] = {
                name: trait
                for name, trait in value["traits"].items()
                if name not in _invalid_traits(mistakes)
            }
        elif head in _PLACEHOLDERS:
            value[head] = _PLACEHOLDERS[head]
        else:
            value.pop(head, None)
    return documents.check(Document(document.label, value), Pack)[0]


_PLACEHOLDERS = {
    "description": "x",
    "licence": "x",
    "sources": ["x"],
    "text": "x",
    "traits": {},
}
