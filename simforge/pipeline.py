"""A run from the first word to the last, on one page.

    recipe -> cast -> plan -> shards -> executor -> parts -> sealed dataset version

Every mistake in the inputs is reported before a model is loaded, and a model is there before a dialogue starts. What
is finished stays finished: the same call goes on where an earlier one stopped.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from simforge import catalog, config, generators, models, personas, preferences, prompts, versions, writing
from simforge.config import Recipe
from simforge.dialogue import Script
from simforge.display import Display
from simforge.errors import Interrupted, RecipeError, RunFolderError, TooManyFailures, UsageError
from simforge.identity import digest
from simforge.ledger import Ledger
from simforge.models import ModelSpec
from simforge.personas import Cast, Pack
from simforge.plan import Plan
from simforge.records import SCHEMA_VERSION
from simforge.roles import Roles
from simforge.shards import Job, Shard, ShardDone, Tally
from simforge.types import Role, Usage
from simforge.versions import RunFolder

T = TypeVar("T")
log = logging.getLogger("simforge")

SHARD = 64
"Most scenarios in a shard."


VARIABLES: dict[str, dict[str, Any]] = {
    "user": {"persona": "x", "traits": {}, "wants": "x", "need": "x", "turn": 0},
    "assistant": {"steering": "x"},
    "judge": {"prefix": [], "persona": "x", "wants": "x", "dimension": "x", "first": "x", "second": "x"},
}
"""What each role's generator may use, with stand-ins for a rehearsal before anything is spent. Traits are the pack's,
so a template over `traits` is rehearsed with the first person's."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `simforge generate` was asked for."""

    out: Path
    personas: int | None
    "How many people; `None` is all of `cast`."
    pipeline: str = "quickstart"
    seed: int = 0
    models: tuple[str, ...] = ()
    "`REF` for all roles, or `ROLE=REF`."
    prompts: str | None = None
    cast: Path | None = None
    "People drawn before: a file of `personas sample --out`, or another run's folder."
    overrides: tuple[str, ...] = ()
    "`key=value` on the recipe."
    executor: str = "local"
    "`local` or `ray`."
    ray_address: str | None = None
    workers: int | None = None
    concurrency: int = 32
    "Dialogues in flight in one worker."
    reuse: tuple[Path, ...] = ()
    "Run folders whose ledgers answer what they can."
    max_failures: float = 0.05
    "Share of scenarios that may be lost."


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run."""

    path: Path
    manifest: dict[str, Any]


def generate(options: Options, display: Display) -> Run:
    """Make a dataset. Raises `UsageError` and `ModelError` before anything is spent, `RunStopped` when it can go on."""
    recipe = config.load(options.pipeline, options.overrides, options.models, options.prompts)
    plan, script = prepare(recipe, options.personas, options.seed, options.cast)
    roles = _roles(recipe, plan.cast)
    specs = {role: models.resolve(recipe.models[role]) for role in roles}
    reuse = tuple(_ledger_of(path) for path in options.reuse)
    folder = RunFolder.claim(options.out, _identity(recipe, plan, script, specs), _shard_size(plan))
    try:
        if folder.sealed() and not any(tally.failed for tally in folder.finished().values()):
            return Run(options.out, folder.manifest())
        for spec in specs.values():
            models.fetch(spec)
        job = Job(script, specs, folder.ledger.resolve(), reuse, options.concurrency)
        plan, usage = _written(plan, job, options, display)
        total = _play(options, plan, job, folder, display)
        total.usage |= usage
        lost = total.failed / max(1, total.dialogues)
        if lost > options.max_failures:
            raise TooManyFailures(
                f"{total.failed} of {total.dialogues} dialogues were lost ({lost:.0%}; --max-failures allows "
                f"{options.max_failures:.0%}). What was answered is kept: the same command plays the lost ones again."
            )
        about = {role: _about(spec) for role, spec in specs.items()}
        manifest = versions.seal(folder, plan, about, total)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; what was answered so far is kept in {folder.path}.") from None
    finally:
        folder.release()
    return Run(options.out, manifest)


def prepare(recipe: Recipe, people: int | None, seed: int, cast_file: Path | None = None) -> tuple[Plan, Script]:
    """Read what the recipe names and draw the cast (or read it); no model is needed."""
    cast = _cast(recipe, people, seed, cast_file)
    space = preferences.load(recipe.cast.space)
    user = generators.load(recipe.dialogue.user)
    assistant = generators.load(recipe.candidates.generator)
    judge = generators.load(recipe.judge.generator) if recipe.judge else None
    _roles_fit(user, assistant, judge)
    shared = (
        [] if recipe.prompts.source == "persona" else prompts.load(recipe.prompts.source, dict(recipe.prompts.columns))
    )
    if not shared and not cast.pack.needs:
        raise UsageError(
            f"personas of {cast.name} cannot open a dialogue: the pack has no `needs`. Add some, or give --prompts."
        )
    mistakes = []
    for one in filter(None, (user, assistant, judge)):
        variables = VARIABLES[one.front.role]
        mistakes += one.rehearse({**variables, "traits": cast.traits(0)} if "traits" in variables else variables)
    if mistakes:
        raise RecipeError(mistakes)
    profiles = preferences.draw(space, recipe.cast.space, cast, seed, recipe.cast.mirrored)
    plan = Plan(recipe, cast, space, profiles, shared, seed)
    return plan, Script(recipe, space, user, assistant, judge, seed)


def people(pack: str, n: int, seed: int, space: str | None, model: str | None, out: Path | None) -> Cast:
    """A cast by itself, with profiles where a space is named, completed by a writer where the pack asks for one."""
    cast = personas.sample(personas.load(pack), n, seed, pack)
    if writing.needed(cast.pack):
        if model is None:
            raise UsageError(
                f"a model writes {_written_parts(cast.pack)} of the people of {pack}: name it with --model REF."
            )
        spec = models.resolve(model)
        models.fetch(spec)
        ledger = (out.parent / f"{out.name}.work" if out else Path(tempfile.mkdtemp())) / "ledger"
        display = Display()
        done = asyncio.run(_asked(spec, ledger, (), seed, display, lambda roles: writing.write(cast, roles, 32)))
        for index, reason in done.left_out.items():
            display.say(f"person {index} is left out: {reason}")
        cast = done.cast
    personas.check_rows(cast, 200)
    if space is not None:
        profiles = preferences.draw(preferences.load(space), space, cast, seed, mirrored=False)
        cast = replace(cast, profiles=profiles.series())
    return cast


def grow(space: str, to: int, model: str, seed: int, out: Path) -> int:
    """Have a model add preferences to a hierarchy, and write the grown space; gives how many were added."""
    grown = preferences.load(space)
    if grown.kind != "hierarchy":
        raise UsageError(f"the space {space} is of the kind {grown.kind}; only a hierarchy grows.")
    spec = models.resolve(model)
    models.fetch(spec)
    ledger = out.parent / f"{out.name}.work" / "ledger"
    new = asyncio.run(_asked(spec, ledger, (), seed, Display(), lambda roles: writing.grow(grown, to, roles.calls())))
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


async def _asked(
    spec: ModelSpec,
    ledger: Path,
    reuse: tuple[Path, ...],
    seed: int,
    display: Display,
    work: Callable[[Roles], Awaitable[T]],
) -> T:
    """What comes of asking a writer, behind a ledger."""
    with Ledger(ledger, reuse) as opened:
        model = await models.open_model(spec)
        return await work(Roles({"writer": (spec, model)}, opened, seed, display.replied))


def _written_parts(pack: Pack) -> str:
    names = [name for written in pack.written.values() for name in written]
    return ", ".join([*names, *(["text"] if pack.portrait else [])])


def _cast(recipe: Recipe, people: int | None, seed: int, file: Path | None) -> Cast:
    """The people: drawn from the recipe's pack, or read from a file."""
    if file is not None:
        cast = personas.read_cast(file, recipe.cast.pack, people)
    elif people is None:
        raise UsageError("say how many people with --personas N, or name a file of people with --cast.")
    else:
        cast = personas.sample(personas.load(recipe.cast.pack), people, seed, recipe.cast.pack)
    if not writing.needed(cast.pack) or file is not None:
        personas.check_rows(cast, 200)
    return cast


def _roles(recipe: Recipe, cast: Cast) -> tuple[Role, ...]:
    """The roles that a run calls: the recipe's, and the writer where the people need one."""
    if cast.sha256 is not None or not writing.needed(cast.pack):
        return recipe.roles
    if "writer" not in recipe.models:
        raise UsageError(
            f"a model writes {_written_parts(cast.pack)} of the people of {cast.name}, and the recipe names none for "
            "the role 'writer': give --model writer=REF."
        )
    return (*recipe.roles, "writer")


def _written(plan: Plan, job: Job, options: Options, display: Display) -> tuple[Plan, dict[str, Usage]]:
    """The plan with its people completed by the writer, where the pack asks for one."""
    if "writer" not in job.models:
        return plan, {}

    each = len(plan.cast.pack.written) + (plan.cast.pack.portrait is not None)
    with display.writing(len(plan.cast), each * len(plan.cast)):
        done = asyncio.run(
            _asked(
                job.models["writer"],
                job.ledger,
                job.reuse,
                options.seed,
                display,
                lambda roles: writing.write(plan.cast, roles, options.concurrency),
            )
        )
    for index, reason in list(done.left_out.items())[:3]:
        display.say(f"person {index} is left out: {reason}")
    lost = len(done.left_out) / len(plan.cast)
    if lost > options.max_failures or not len(done.cast):
        number, reason = next(iter(done.left_out.items()))
        raise TooManyFailures(
            f"{len(done.left_out)} of {len(plan.cast)} people could not be written ({lost:.0%}; --max-failures allows "
            f"{options.max_failures:.0%}); person {number}: {reason}. What was answered is kept; another model "
            "(--model writer=REF) or other descriptions of the traits may help."
        )
    recipe = plan.recipe
    profiles = preferences.draw(plan.space, recipe.cast.space, done.cast, plan.seed, recipe.cast.mirrored)
    return replace(plan, cast=done.cast, profiles=profiles), done.usage


def _play(options: Options, plan: Plan, job: Job, folder: RunFolder, display: Display) -> Tally:
    """Play what is not played yet; gives the counts of the whole run."""
    kept = {number: tally for number, tally in folder.finished().items() if not tally.failed}
    total = Tally()
    for tally in kept.values():
        total.add(tally)
    shards = _shards(plan, folder.shard_size, set(kept))
    if len(kept) * folder.shard_size >= len(plan):
        return total
    folder.unseal()
    with display.running(len(plan), plan.calls, total):
        try:
            asyncio.run(
                _collect(_executed(options, job, shards, folder.shard_size, display), folder, total, options, plan)
            )
        except OSError as problem:
            raise RunFolderError(
                f"the run stopped: {problem.strerror or problem} ({problem.filename or folder.path}). What is finished "
                "is kept; mend it and run the same command again."
            ) from problem
    return total


async def _collect(
    finished: AsyncGenerator[ShardDone, None], folder: RunFolder, total: Tally, options: Options, plan: Plan
) -> None:
    async with aclosing(finished):
        async for done in finished:
            folder.keep(done)
            total.add(done.tally)
            if total.failed > options.max_failures * len(plan) and total.failed >= 8:
                raise TooManyFailures(
                    f"{total.failed} of {total.dialogues} dialogues were lost so far, more than --max-failures "
                    f"{options.max_failures:.0%} of the run; stopped. The same command plays the lost ones again."
                )


def _executed(
    options: Options, job: Job, shards: Iterator[Shard], shard_size: int, display: Display
) -> AsyncGenerator[ShardDone, None]:
    if options.executor == "ray":
        from simforge.executors import ray

        return ray.run(job, shards, shard_size, options.workers, options.ray_address, display)
    from simforge.executors import local

    return local.run(job, shards, shard_size, options.workers or 1, display)


def _shard_size(plan: Plan) -> int:
    """At least eight shards where there are people for it, and twins, who share answers, never apart."""
    pair = 2 * plan.recipe.prompts.per_persona
    return max(1, min(SHARD, len(plan) // 8) // pair) * pair


def _shards(plan: Plan, size: int, kept: set[int]) -> Iterator[Shard]:
    for number, start in enumerate(range(0, len(plan), size)):
        if number not in kept:
            yield Shard(number, plan.scenarios(start, start + size))


def _identity(recipe: Recipe, plan: Plan, script: Script, specs: dict[Role, ModelSpec]) -> dict[str, Any]:
    """What decides the content of the dataset, part by part, so that a difference can be named."""
    generators_used = [script.user, script.assistant, *([script.judge] if script.judge else [])]
    return {
        "recipe": digest(recipe.model_dump(mode="json", exclude={"models": True, "prompts": {"source"}})),
        "pack": digest(plan.cast.pack.content()),
        "cast": plan.cast.sha256,
        "space": digest(plan.space.model_dump(mode="json")),
        "generators": digest([catalog.entry("generators", one.name).text for one in generators_used]),
        "prompts": digest([prompt.id for prompt in plan.prompts]),
        "models": {role: spec.fingerprint for role, spec in specs.items()},
        "personas": len(plan.cast),
        "seed": plan.seed,
        "schema_version": SCHEMA_VERSION,
    }


def _roles_fit(user: generators.Generator, assistant: generators.Generator, judge: generators.Generator | None) -> None:
    for wanted, one in (("user", user), ("assistant", assistant), ("judge", judge)):
        if one is not None and one.front.role != wanted:
            raise UsageError(
                f"{one.label} speaks to the role {one.front.role!r}, and the recipe uses it for {wanted!r}."
            )
    if judge is not None and len(judge.front.choices) not in (2, 3):
        raise UsageError(f"{judge.label} needs two or three `choices`: for first, second and, if wanted, tie.")


def _ledger_of(path: Path) -> Path:
    ledger = path / "work" / "ledger"
    if not ledger.is_dir():
        raise UsageError(f"--reuse {path}: there is no ledger in it; give the folder of an earlier run.")
    return ledger.resolve()


def _about(spec: ModelSpec) -> dict[str, str]:
    return {"reference": spec.reference, "fingerprint": spec.fingerprint, "licence": spec.licence, "about": spec.about}
