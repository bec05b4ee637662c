"""Casting: from a pack to the people of a run.

People are drawn, or read from a file; where the pack asks for it a model completes them, behind a ledger. Completed
people are kept beside the run's ledger, so that a run that goes on has the same people, whoever could not be written
the first time.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

import yaml

from simforge import catalog, models, personas, preferences, writing
from simforge.config import Recipe
from simforge.display import Display
from simforge.errors import TooManyFailures, UsageError
from simforge.ledger import Ledger
from simforge.models import ModelSpec
from simforge.models.admission import FREE, Bounds
from simforge.money import Purse
from simforge.personas import Cast, Pack, Passed
from simforge.roles import Roles
from simforge.shards import Job
from simforge.types import Role, Usage
from simforge.writing import Written

T = TypeVar("T")
CHECKED = 200
"People that are held against their pack's JSON Schema before a run."


def cast_of(recipe: Recipe, people: int | None, seed: int, file: Path | None) -> Cast:
    """The people of a recipe: drawn from its pack, or read from a file. No model is asked yet."""
    if file is not None:
        cast = personas.read_cast(file, recipe.cast.pack, people)
    elif people is None:
        raise UsageError("say how many people with --personas N, or name a file of people with --cast.")
    else:
        cast = personas.sample(personas.load(recipe.cast.pack), people, seed, catalog.label(recipe.cast.pack))
    if not _unwritten(cast):
        personas.check_rows(cast, CHECKED)
    return cast


def roles(recipe: Recipe, cast: Cast) -> tuple[Role, ...]:
    """The writer, where the people need one. Raises `UsageError` where the recipe names no model for it."""
    if not _unwritten(cast):
        return ()
    if "writer" not in recipe.models:
        raise UsageError(
            f"a model writes {_parts(cast.pack)} of the people of {cast.name}, and the recipe names none for the role "
            "'writer': give --model writer=REF."
        )
    return ("writer",)


def writers(cast: Cast) -> list[str]:
    """The texts of the generators that write a part of the people: they decide who the people are."""
    if not _unwritten(cast):
        return []
    named = [*cast.pack.written, *([cast.pack.portrait] if cast.pack.portrait else [])]
    return [catalog.entry("generators", name).text for name in named]


def completed(
    cast: Cast, job: Job, work: Path, seed: int, max_failures: float, display: Display
) -> tuple[Cast, dict[str, Usage]]:
    """The cast with what a model writes of it, and what that took. Raises `TooManyFailures`."""
    if not _unwritten(cast):
        return cast, {}
    kept, notes = work / "people.parquet", work / "people.json"
    if kept.is_file() and notes.is_file():
        known = json.loads(notes.read_text(encoding="utf-8"))
        found = personas.read_cast(kept, cast.name, None)
        return replace(found, passed=Passed(**known["passed"])), {"writer": Usage(**known["usage"])}
    each = len(cast.pack.written) + (cast.pack.portrait is not None)
    with display.writing(len(cast), each * len(cast)):
        spec, how = job.models["writer"], (job.purse, job.bounds)
        done = _written(cast, spec, job.ledger, job.reuse, seed, job.concurrency, display, *how)
    if len(done.left_out) > max_failures * len(cast) or not len(done.cast):
        number, reason = next(iter(done.left_out.items()))
        raise TooManyFailures(
            f"{len(done.left_out)} of {len(cast)} people could not be written (--max-failures allows "
            f"{max_failures:.0%}); person {number}: {reason}. What was answered is kept; another model "
            "(--model writer=REF) or other descriptions of the traits may help."
        )
    usage = done.usage.get("writer", Usage())
    draft = kept.with_name("people.new.parquet")
    personas.write_cast(done.cast, draft)
    draft.rename(kept)
    content = {"passed": asdict(done.cast.passed), "usage": asdict(usage)}
    notes.write_text(json.dumps(content), encoding="utf-8")
    return done.cast, {"writer": usage}


def people(pack: str, n: int, seed: int, space: str | None, model: str | None, out: Path | None) -> Cast:
    """A cast by itself, with profiles where a space is named, completed by a writer where the pack asks for one."""
    cast = personas.sample(personas.load(pack), n, seed, catalog.label(pack))
    if _unwritten(cast):
        if model is None:
            raise UsageError(f"a model writes {_parts(cast.pack)} of the people of {pack}: name it with --model REF.")
        spec, display = models.resolve(model), Display()
        models.fetch(spec)
        with tempfile.TemporaryDirectory() as scratch:
            ledger = _ledger_beside(out) if out is not None else Path(scratch)
            with display.writing(n, n * (len(cast.pack.written) + (cast.pack.portrait is not None))):
                cast = _written(cast, spec, ledger, (), seed, 32, display).cast
        if not len(cast):
            raise UsageError(f"nobody of {pack} could be written by {model}: nothing was written.")
    personas.check_rows(cast, CHECKED)
    if space is not None:
        found = preferences.load(space)
        mirrored = found.tilts is None
        cast = replace(cast, profiles=preferences.draw(found, catalog.label(space), cast, seed, mirrored).series())
    return cast


def grow(space: str, to: int, model: str, seed: int, out: Path) -> int:
    """Have a model add preferences to a hierarchy, and write the grown space; gives how many were added."""
    grown = preferences.load(space)
    if grown.kind != "hierarchy":
        raise UsageError(f"the space {space} is of the kind {grown.kind}; only a hierarchy grows.")
    spec, display = models.resolve(model), Display()
    models.fetch(spec)
    new = asyncio.run(
        _asked(spec, _ledger_beside(out), (), seed, display, lambda r: writing.grow(grown, to, r.calls()))
    )
    content = grown.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    for dimension, subdimensions in new.items():
        for subdimension, added in subdimensions.items():
            content["dimensions"][dimension]["subdimensions"][subdimension] |= added
    content["source"] += f" Grown by {spec.reference}, seed {seed}."
    try:
        out.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=118), encoding="utf-8")
    except OSError as problem:
        raise UsageError(f"{out} cannot be written: {problem.strerror or problem}.") from None
    return sum(len(added) for subdimensions in new.values() for added in subdimensions.values())


def _written(
    cast: Cast,
    spec: ModelSpec,
    ledger: Path | str,
    reuse: tuple[Path | str, ...],
    seed: int,
    concurrency: int,
    display: Display,
    purse: Purse | None = None,
    bounds: Bounds = FREE,
) -> Written:
    """The cast after the writer; who is left out is said and counted."""
    done = asyncio.run(
        _asked(spec, ledger, reuse, seed, display, lambda r: writing.write(cast, r, concurrency), purse, bounds)
    )
    for index, reason in done.left_out.items():
        display.say(f"person {index} is left out: {reason}")
    passed = replace(cast.passed, unwritten=len(done.left_out))
    return replace(done, cast=replace(done.cast, passed=passed))


async def _asked(
    spec: ModelSpec,
    ledger: Path | str,
    reuse: tuple[Path | str, ...],
    seed: int,
    display: Display,
    work: Callable[[Roles], Awaitable[T]],
    purse: Purse | None = None,
    bounds: Bounds = FREE,
) -> T:
    """What comes of asking a writer, behind a ledger."""
    with Ledger(ledger, reuse) as opened:
        model = await models.open_model(spec, bounds=bounds)
        try:
            return await work(Roles({"writer": (spec, model)}, opened, seed, display.replied, purse))
        finally:
            await opened.drain()
            await model.close()


def _ledger_beside(out: Path) -> Path:
    return out.parent / f"{out.name}.work" / "ledger"


def _unwritten(cast: Cast) -> bool:
    """Whether a model has still to write a part of the people; who was read from a file is whole."""
    return cast.sha256 is None and (bool(cast.pack.written) or cast.pack.portrait is not None)


def _parts(pack: Pack) -> str:
    names = [name for written in pack.written.values() for name in written]
    return ", ".join([*names, *(["text"] if pack.portrait else [])])
