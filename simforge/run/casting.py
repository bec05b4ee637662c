"""Casting: from a pack to the people of a run.

People are drawn from the pack or read from a file. If the pack has parts that a model writes, a
writer model completes the people, behind a ledger. Completed people are saved beside the run's
ledger, so that a continued run has the same people, including who was left out the first time.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import yaml

from simforge import catalog
from simforge.catalog import files
from simforge.dataset.writing import PRIVATE, write_atomically
from simforge.errors import SourceError, TooManyFailures, UsageError
from simforge.identity import file_sha256
from simforge.models import keys, providers
from simforge.models.budget import Budget
from simforge.models.calls import Roles
from simforge.models.contract import ModelSpec
from simforge.models.ledger import Ledger
from simforge.models.rate_limits import UNLIMITED, Bounds
from simforge.personas import spaces
from simforge.personas.cast import Cast, Rejections, check_against_schema, sample_cast
from simforge.personas.files import read_cast, write_cast
from simforge.personas.loader import load_pack
from simforge.personas.pack import Pack
from simforge.personas.written import (
    WrittenCast,
    add_preferences,
    complete_written_parts,
)
from simforge.recipe.schema import Recipe
from simforge.run.progress import Display
from simforge.run.shards import Job
from simforge.types import JsonObject, Role, Usage

T = TypeVar("T")


CHECKED_PEOPLE = 200
"Number of people that are checked against the JSON Schema of their pack before a run."


def prepare_cast(
    recipe: Recipe, people: int | None, seed: int, source: str | None
) -> Cast:
    """The people of a recipe: drawn from its pack, or read from `source` (a file, a run folder
    or a published version). No model is asked yet."""
    if source is not None:
        cast = _read_source(source, recipe.cast.pack, people)
        if not recipe.cast.keep_profiles:
            cast = replace(cast, profiles=None)
    elif people is None:
        raise UsageError(
            "say how many people with --personas N, or name people to use with --cast."
        )
    else:
        cast = sample_cast(
            load_pack(recipe.cast.pack),
            people,
            seed,
            catalog.label(recipe.cast.pack),
        )
    if not _needs_writer(cast):
        check_against_schema(cast, CHECKED_PEOPLE)
    return cast


def _read_source(source: str, pack: str, people: int | None) -> Cast:
    from simforge.hub import loading

    if not loading.is_published(source):
        return read_cast(Path(source), pack, people, source)
    withheld = loading.manifest(source).get("withheld", {}).get("personas")
    if withheld:
        raise SourceError(
            f"--cast {source}: this version was published without {', '.join(withheld)} of "
            "its people, which are sensitive. Whoever has the run can push it with "
            "--publish-traits."
        )
    with loading.fetched(source, "personas") as folder:
        return read_cast(folder, pack, people, source)


def required_roles(recipe: Recipe, cast: Cast) -> tuple[Role, ...]:
    """The role `writer`, if the people need one. Raises `UsageError` if the recipe names no
    model for it."""
    if not _needs_writer(cast):
        return ()
    if "writer" not in recipe.models:
        raise UsageError(
            f"a model writes {_written_parts(cast.pack)} of the people of {cast.name}, "
            "and the recipe names none for the role 'writer': give --model writer=REF."
        )
    return ("writer",)


def writer_texts(cast: Cast) -> list[str]:
    """Texts of the generators that write parts of the people; they are part of the identity
    of the people."""
    if not _needs_writer(cast):
        return []
    generator_names = [
        *cast.pack.traits_by_writer,
        *([cast.pack.portrait] if cast.pack.portrait else []),
    ]
    return [catalog.entry("generators", name).text for name in generator_names]


def complete_cast(
    cast: Cast, job: Job, work: Path, seed: int, max_failures: float, display: Display
) -> tuple[Cast, dict[str, Usage]]:
    """Complete the cast with the parts that a model writes. Returns it with the usage by
    role. Raises `TooManyFailures`."""
    if not _needs_writer(cast):
        return cast, {}
    people_file, progress_file = work / "people.parquet", work / "people.json"
    saved_progress = _saved_progress(people_file, progress_file)
    if saved_progress is not None:
        saved_cast = read_cast(people_file, cast.name, None, str(people_file))
        return replace(
            saved_cast, rejections=Rejections(**saved_progress["rejections"])
        ), {"writer": Usage(**saved_progress["usage"])}
    calls_per_person = len(cast.pack.traits_by_writer) + (
        cast.pack.portrait is not None
    )
    with display.writing(len(cast), calls_per_person * len(cast)):
        writer = _Writer(
            job.models["writer"],
            job.ledger,
            seed,
            display,
            job.reuse,
            job.budget,
            job.bounds,
        )
        result = _complete(cast, writer, job.concurrency)
    if len(result.left_out) > max_failures * len(cast) or not len(result.cast):
        reason, count = Counter(result.left_out.values()).most_common(1)[0]
        raise TooManyFailures(
            f"{len(result.left_out)} of {len(cast)} people could not be written "
            f"(--max-failures allows {max_failures:.0%}); {count} of them: {reason}. "
            "What was answered is kept; another model (--model writer=REF) or other "
            "descriptions of the traits may help."
        )
    usage = result.usage.get("writer", Usage())
    draft = people_file.with_name("people.new.parquet")
    draft.unlink(missing_ok=True)
    write_cast(result.cast, draft)
    draft.rename(people_file)
    content = {
        "rejections": asdict(result.cast.rejections),
        "usage": asdict(usage),
        "sha256": file_sha256(people_file),
    }
    write_atomically(progress_file, json.dumps(content), PRIVATE)
    return result.cast, {"writer": usage}


def _saved_progress(people_file: Path, progress_file: Path) -> JsonObject | None:
    """Return what was recorded beside saved people; `None` if there are none, or if they are
    damaged, so that they are completed again from the ledger."""
    if not people_file.is_file() or not progress_file.is_file():
        return None
    try:
        saved = files.read_json_object(progress_file)
    except SourceError:
        return None
    is_whole = saved.get("sha256") == file_sha256(people_file)
    return saved if is_whole and {"rejections", "usage"} <= {*saved} else None


def sample_people(
    pack: str, n: int, seed: int, space: str | None, model: str | None, out: Path | None
) -> Cast:
    """Sample a cast outside a run, with profiles if a space is given, completed by a writer
    if the pack needs one."""
    cast = sample_cast(load_pack(pack), n, seed, catalog.label(pack))
    if _needs_writer(cast):
        if model is None:
            raise UsageError(
                f"a model writes {_written_parts(cast.pack)} of the people of {pack}: "
                "name it with --model REF."
            )
        spec, display = _typed_model(model), Display()
        with tempfile.TemporaryDirectory() as scratch:
            ledger = _ledger_beside(out) if out is not None else Path(scratch)
            with display.writing(
                n,
                n
                * (len(cast.pack.traits_by_writer) + (cast.pack.portrait is not None)),
            ):
                writer = _Writer(spec, ledger, seed, display)
                cast = _complete(cast, writer, concurrency=32).cast
        if not len(cast):
            raise UsageError(
                f"{model} could not write a single person of {pack}: there is nothing to save."
            )
    check_against_schema(cast, CHECKED_PEOPLE)
    if space is not None:
        loaded_space = spaces.load_space(space)
        mirrored = loaded_space.tilts is None
        cast = replace(
            cast,
            profiles=spaces.sample_profiles(
                loaded_space, catalog.label(space), cast, seed, mirrored
            ).series(),
        )
    return cast


def grow_space(space: str, to: int, model: str, seed: int, out: Path) -> int:
    """Have a model add preferences to a hierarchy, and write the grown space. Returns the
    number of added preferences."""
    grown = spaces.load_space(space)
    if grown.kind != "hierarchy":
        raise UsageError(
            f"the space {space} is of the kind {grown.kind}; only a hierarchy grows."
        )
    spec, display = _typed_model(model), Display()
    additions = asyncio.run(
        _Writer(spec, _ledger_beside(out), seed, display).run(
            lambda writer_models: add_preferences(grown, to, writer_models.calls())
        )
    )
    content = grown.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    for dimension, subdimensions in additions.items():
        for subdimension, added in subdimensions.items():
            content["dimensions"][dimension]["subdimensions"][subdimension] |= added
    content["source"] += f" Grown by {spec.reference}, seed {seed}."
    try:
        out.write_text(
            yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=118),
            encoding="utf-8",
        )
    except OSError as problem:
        raise UsageError(
            f"{out} cannot be written: {problem.strerror or problem}."
        ) from None
    return sum(
        len(added)
        for subdimensions in additions.values()
        for added in subdimensions.values()
    )


def _typed_model(reference: str) -> ModelSpec:
    """Return a model that the user typed on the command line, ready to be asked."""
    consent = keys.consent_of((), (reference,))
    spec, _ = keys.with_permitted_key(providers.resolve(reference), consent)
    return providers.ensure_available(spec)


@dataclass(frozen=True, slots=True)
class _Writer:
    """A writer model behind a ledger, outside a dialogue."""

    spec: ModelSpec
    ledger: Path | str
    seed: int
    display: Display
    reuse: tuple[Path | str, ...] = ()
    budget: Budget | None = None
    bounds: Bounds = UNLIMITED

    async def run(self, work: Callable[[Roles], Awaitable[T]]) -> T:
        """Open the model and the ledger, do the work, and return its result."""
        with Ledger(self.ledger, self.reuse) as ledger:
            model = await providers.open_model(self.spec, bounds=self.bounds)
            models = {"writer": (self.spec, model)}
            on_reply = self.display.on_reply
            try:
                return await work(
                    Roles(models, ledger, self.seed, on_reply, self.budget)
                )
            finally:
                await ledger.drain()
                await model.close()


def _complete(cast: Cast, writer: _Writer, concurrency: int) -> WrittenCast:
    """Complete the cast with the writer; report and count the people that are left out."""
    result = asyncio.run(
        writer.run(
            lambda writer_models: complete_written_parts(
                cast, writer_models, concurrency
            )
        )
    )
    for index, reason in result.left_out.items():
        writer.display.say(f"person {index} is left out: {reason}")
    rejections = replace(cast.rejections, unwritten=len(result.left_out))
    return replace(result, cast=replace(result.cast, rejections=rejections))


def _ledger_beside(out: Path) -> Path:
    return out.parent / f"{out.name}.work" / "ledger"


def _needs_writer(cast: Cast) -> bool:
    """Return true if a model still has to write parts of the people; people read from a file
    are complete."""
    return cast.sha256 is None and (
        bool(cast.pack.traits_by_writer) or cast.pack.portrait is not None
    )


def _written_parts(pack: Pack) -> str:
    names = [name for written in pack.traits_by_writer.values() for name in written]
    return ", ".join([*names, *(["text"] if pack.portrait else [])])
