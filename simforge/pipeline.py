"""A run from the first word to the last, on one page.

    recipe -> cast -> plan -> shards -> executor -> parts -> sealed dataset version

Every mistake in the inputs is reported before a model is loaded, and a model is there before a dialogue starts. What
is finished stays finished: the same call goes on where an earlier one stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from simforge import (
    casting,
    catalog,
    config,
    estimating,
    ledger,
    models,
    money,
    preferences,
    prompts,
    safety,
    versions,
)
from simforge.config import Recipe
from simforge.display import Display
from simforge.errors import (
    BudgetReached,
    Interrupted,
    Mistake,
    ModelError,
    RecipeError,
    RunFolderError,
    TooManyFailures,
    UsageError,
)
from simforge.executors import Urls
from simforge.identity import canonical, digest
from simforge.ledger import compact, totals
from simforge.models import ModelSpec
from simforge.models.admission import Bounds
from simforge.money import Price, Purse
from simforge.personas import Cast
from simforge.plan import Plan
from simforge.records import SCHEMA_VERSION
from simforge.script import Script
from simforge.shards import Job, Shard, ShardDone, Tally
from simforge.types import Condition, Prompt, Role, Usage
from simforge.versions import RunFolder

log = logging.getLogger("simforge")

SHARD = 64
"Most scenarios in a shard."


_NOTES = {"turn": 0, "goal": "x", "tell": "x", "mood": "x", "words": 10}
_ALWAYS = {
    "persona": "x",
    "traits": {},
    "wants": "x",
    "need": "x",
    "goals": [],
    "guide": "x",
    "knowledge": "x",
    "language": "x",
}
_JUDGE: dict[str, Any] = {"prefix": [], "persona": "x"}
VARIABLES: dict[str, dict[str, Any]] = {
    "user": {**_ALWAYS, "disclosure": "free", "draft": "x", **_NOTES},
    "assistant": {"steering": "x"},
    "reviser": {"steering": "x", "draft": "x"},
    "infer": {"persona": "x"},
    "writer": {"wishes": "x", "prompt": "x"},
    "pairwise": {**_JUDGE, "wants": "x", "dimension": "x", "first": "x", "second": "x"},
    "batch": {**_JUDGE, "items": [{"number": 1, "wants": "x", "first": "x", "second": "x"}]},
    "ranking": {**_JUDGE, "wants": "x", "answers": {"A": "x"}},
    "rating": {**_JUDGE, "wants": "x", "answer": "x", "attributes": []},
    "survey": {"persona": "x", "wants": "x", "attributes": []},
}
"""What each generator may use, with stand-ins for a rehearsal before anything is spent. Traits are the pack's, so a
template over `traits` is rehearsed with the first person's."""


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
    executor: str | None = None
    "`local` or `ray`; by default ray where an address is given."
    ray_address: str | None = None
    runtime_env: Path | None = None
    "YAML of Ray's runtime environment for workers and servers."
    workers: int | None = None
    concurrency: int | None = None
    "Dialogues in flight in one worker; by default 32 with an embedded model, else 256."
    max_in_flight: int | None = None
    "Calls at once at each model's endpoint, over all workers."
    max_tokens_per_minute: int | None = None
    "Of each model's endpoint, over all workers."
    ledger: str | None = None
    "Folder or URL of the ledger, in place of the run folder's own."
    reuse: tuple[Path, ...] = ()
    "Run folders whose ledgers answer what they can."
    max_failures: float = 0.05
    "Share of scenarios that may be lost."
    prices: Path | None = None
    "A file of prices per model."
    budget: float | None = None
    "Most that the run may cost over all its starts, in the currency of the prices."


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run."""

    path: Path
    manifest: dict[str, Any]


def generate(options: Options, display: Display) -> Run:
    """Make a dataset. Raises `UsageError` and `ModelError` before anything is spent, `RunStopped` when it can go on."""
    recipe = config.load(options.pipeline, options.overrides, options.models, options.prompts)
    plan, script = prepare(recipe, options.personas, options.seed, options.cast)
    roles = (*recipe.roles, *casting.roles(recipe, plan.cast))
    specs = {role: _spec(recipe, role) for role in roles}
    reuse = tuple(_ledger_of(path) for path in options.reuse)
    purse = _purse(options, specs)
    if options.ledger is not None:
        ledger.check(options.ledger)
    folder = RunFolder.claim(options.out, _identity(recipe, plan, script, specs), _shard_size(plan))
    try:
        if folder.sealed() and not any(tally.failed for tally in folder.finished().values()):
            known = folder.manifest()
            if known["recipe"].get("licences") == recipe.licences:
                return Run(options.out, known)
        with _ready(options, recipe, specs, script) as power:
            folder.note("options", _plain(options))
            folder.keep_ledger_at(options.ledger)
            if purse is not None:
                purse.spent = _spent(folder.ledger, specs, purse.prices)
            bounds = Bounds(options.max_in_flight, options.max_tokens_per_minute)
            at_once = options.concurrency or _usual_concurrency(specs)
            job = Job(script, power.specs, folder.ledger, reuse, at_once, purse, bounds)
            cast, usage = casting.completed(plan.cast, job, folder.work, options.seed, options.max_failures, display)
            plan = plan if cast is plan.cast else _planned(recipe, cast, script, plan.prompts)
            total = _play(options, plan, job, folder, display, power)
            for role, used in usage.items():
                total.usage[role] = total.usage.get(role, Usage()) + used
        if folder.ledger == folder.own_ledger:  # in another place others may be writing
            compact(folder.own_ledger)
        lost = total.failed / max(1, total.dialogues)
        if lost > options.max_failures:
            raise TooManyFailures(
                f"{total.failed} of {total.dialogues} dialogues were lost ({lost:.0%}; --max-failures allows "
                f"{options.max_failures:.0%}). What was answered is kept: the same command plays the lost ones again."
            )
        about = {role: _about(spec, recipe) for role, spec in specs.items()}
        spent = _spent(folder.ledger, specs, purse.prices) if purse is not None else None
        manifest = versions.seal(folder, plan, about, total, spent)
        _look_over(options.out)
    except (UsageError, ModelError):
        folder.abandon()
        raise
    except BudgetReached:
        assert purse is not None
        spent = _spent(folder.ledger, specs, purse.prices)  # with what has come in since
        raise money.reached(purse.limit, spent) from None
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; what was answered so far is kept in {folder.path}.") from None
    finally:
        folder.release()
    return Run(options.out, manifest)


def _look_over(out: Path) -> None:
    """The part of the audit that costs seconds; `simforge audit` does the rest."""
    from simforge import audit

    manifest = versions.manifest_of(out)
    if sum(manifest["counts"]["preferences"].values()):
        versions.audited(out, audit.cheap(audit.pairs.read(str(out))))


@dataclass(frozen=True, slots=True)
class Power:
    """What plays a run: its models, ready to be asked, and Ray where it is needed."""

    specs: dict[Role, ModelSpec]
    ray: Any = None
    urls: Urls = dict
    "Where the models are that the run serves itself, and may move to."


@contextlib.contextmanager
def _ready(options: Options, recipe: Recipe, specs: dict[Role, ModelSpec], script: Script) -> Iterator[Power]:
    """Start what has to be started, and make sure that every model can be asked."""
    own = {one.reference for one in specs.values() if one.reference.startswith("vllm:")}
    served = {reference: recipe.server(reference) for reference in sorted(own)}
    if options.executor == "local" and options.ray_address and not served:
        raise UsageError("--ray-address belongs to --executor ray, and --executor local was given: drop one of them.")
    if options.runtime_env and not served and _executor(options) == "local":
        raise UsageError("--runtime-env is Ray's: give --executor ray or --ray-address with it, or drop it.")
    with contextlib.ExitStack() as stack:
        power = Power(specs)
        if served or _executor(options) == "ray":
            from simforge.executors import cluster, serving

            ray = stack.enter_context(cluster.connected(options.ray_address, options.runtime_env))
            power = Power(specs, ray)
            if served:
                urls = stack.enter_context(serving.serving(ray, served)).urls
                power = Power(serving.placed(specs, urls), ray, urls)
        chooses = (
            script.judge is not None
            and script.judge.front.form == "pairwise"
            and script.judge.front.says == ["verdict"]
        )
        choosing = {specs[role].reference for role in recipe.judge.panel} if recipe.judge and chooses else set()
        known: dict[str, ModelSpec] = {}
        for spec in power.specs.values():
            if spec.reference not in known:
                known[spec.reference] = models.fetch(spec, spec.reference in choosing)
        yield replace(power, specs={role: known[spec.reference] for role, spec in power.specs.items()})


def _executor(options: Options) -> str:
    return options.executor or ("ray" if options.ray_address or "RAY_ADDRESS" in os.environ else "local")


def _usual_concurrency(specs: dict[Role, ModelSpec]) -> int:
    """An embedded model is no faster beyond 32 requests at once; an endpoint takes what it can bear."""
    return 32 if any(spec.reference.startswith("local:") for spec in specs.values()) else 256


def _spec(recipe: Recipe, role: Role) -> ModelSpec:
    reference = recipe.models[role]
    return models.resolve(reference, recipe.access(reference), canonical(recipe.server(reference).arguments))


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take."""

    dialogues: int
    pairs: int
    "If every comparison is decided and every answer is sound."
    usage: dict[str, Usage]
    "By role."
    references: dict[str, str]
    "Model of each role."
    cost: dict[str, float | None]
    "By role; `None` where the prices name no model."


def estimate(options: Options) -> Estimate:
    """Guess calls, tokens and money of a run; no model is asked. Raises `UsageError`."""
    recipe = config.load(options.pipeline, options.overrides, options.models, options.prompts)
    plan, script = prepare(recipe, options.personas, options.seed, options.cast)
    specs = {role: _spec(recipe, role) for role in recipe.roles}
    usage, pairs = asyncio.run(estimating.estimate(plan, script, specs))
    prices = money.load(options.prices)
    cost = {}
    for role, used in usage.items():
        price = money.price_of(recipe.models[role], prices)
        cost[role] = price.of(used) if price is not None else None
    return Estimate(len(plan), pairs, usage, {role: spec.reference for role, spec in specs.items()}, cost)


def retry(path: Path, display: Display) -> tuple[Run, int]:
    """Play the lost dialogues of a run again, with the options that it was started with; gives how many there were."""
    notes = path / "work" / "options.json"
    if not notes.is_file():
        raise UsageError(f"{path} is no run of this version: there is no {notes.relative_to(path)} in it.")
    known = json.loads(notes.read_text(encoding="utf-8"))
    names = ("out", "cast", "prices", "runtime_env")
    paths = {name: Path(known[name]) if known[name] is not None else None for name in names}
    lists = {name: tuple(known[name]) for name in ("models", "overrides")}
    out, folder = path.resolve(), known.pop("folder")
    options = Options(**{**known, **paths, **lists, "reuse": tuple(map(Path, known["reuse"])), "out": out})
    lost = sum(tally.failed for tally in RunFolder(path, {}, 1).finished().values())
    if not lost and (path / "manifest.json").is_file():
        return Run(path, {}), 0
    with contextlib.chdir(folder):  # the options name files as they were named then
        return generate(options, display), max(1, lost)


def _purse(options: Options, specs: dict[Role, ModelSpec]) -> Purse | None:
    """What the run may spend; raises `UsageError` where a model has no price."""
    if options.budget is None:
        return None
    prices = money.load(options.prices)
    known = {}
    for spec in specs.values():
        price = money.price_of(spec.reference, prices)
        if price is None:
            raise UsageError(
                f"--budget needs the price of {spec.reference}: name it in a file of --prices, per million tokens "
                f'("{spec.reference}": {{prompt: 0.1, completion: 0.4}}).'
            )
        known[spec.reference] = price
    return Purse(options.budget, known)


def _spent(ledger: Path | str, specs: dict[Role, ModelSpec], prices: dict[str, Price]) -> float:
    """What the run's ledger has cost so far."""
    by_fingerprint = {spec.fingerprint: prices[spec.reference] for spec in specs.values()}
    return sum(by_fingerprint[name].of(used) for name, used in totals(ledger).items() if name in by_fingerprint)


def _plain(options: Options) -> dict[str, Any]:
    found = asdict(options)
    found["overrides"] = [one for one in options.overrides if not one.startswith("endpoints")]  # may hold a secret
    found["folder"] = str(Path.cwd())
    return {name: str(value) if isinstance(value, Path) else value for name, value in found.items()} | {
        "reuse": [str(path.resolve()) for path in options.reuse]
    }


def prepare(recipe: Recipe, people: int | None, seed: int, cast_file: Path | None = None) -> tuple[Plan, Script]:
    """Read what the recipe names and draw the cast (or read it); no model is needed."""
    cast = casting.cast_of(recipe, people, seed, cast_file)
    space = preferences.load(recipe.cast.space)
    script = Script.of(recipe, space, seed)
    shared = (
        [] if recipe.prompts.source == "persona" else prompts.load(recipe.prompts.source, dict(recipe.prompts.columns))
    )
    brings = cast.pack.needs or (
        recipe.dialogue.conversations and all(one.needs for one in recipe.dialogue.conversations.values())
    )
    if not shared and not brings:
        raise UsageError(
            f"personas of {cast.name} cannot open a dialogue: neither the pack nor every one of dialogue.conversations "
            "has `needs`. Add some, or give --prompts."
        )
    if recipe.dialogue.disclosure in ("gradually", "up_front") and not cast.pack.facts:
        raise UsageError(
            f"dialogue.disclosure is {recipe.dialogue.disclosure}, and the pack of {cast.name} has no `facts` to tell: "
            "add some (personas/README.md), or set it to free."
        )
    _rehearse(script, cast.traits(0))
    return _planned(recipe, cast, script, shared), script


def _rehearse(script: Script, traits: dict[str, Any]) -> None:
    """Raise what is wrong with the generators, before anything is spent."""
    mistakes = []
    for one, role, variables in (
        (script.user, "user", {**VARIABLES["user"], "traits": traits}),
        (script.assistant, "assistant", VARIABLES["assistant"]),
        (script.reviser, "assistant", VARIABLES["reviser"]),
        (script.infer, "assistant", VARIABLES["infer"]),
        (script.writer, "writer", VARIABLES["writer"]),
        (script.judge, "judge", VARIABLES[script.judge.front.form] if script.judge else {}),
        (script.feedback, "judge", VARIABLES["survey"]),
    ):
        if one is None:
            continue
        if one.front.role != role:
            fitting = [name for name in catalog.names("generators") if name.startswith(f"{role}/")]
            raise UsageError(
                f"{one.label} speaks to the role {one.front.role!r}, and the recipe uses it for {role!r}. There are: "
                f"{', '.join(fitting)}."
            )
        mistakes += one.rehearse(variables)
    mistakes += [
        *_unread(script),
        *_asked_in_vain(script),
        *_judged_in_vain(script),
        *_scored_in_vain(script),
        *_wished_in_vain(script),
    ]
    if mistakes:
        raise RecipeError(mistakes)


def _asked_in_vain(script: Script) -> list[Mistake]:
    """Answers for wishes that nobody lacks."""
    others = any(arm.condition == Condition.others for arm in script.recipe.candidates.everyone)
    if not others or script.space.kind in ("one_hot", "weights"):
        return []
    said = (
        f"`others` are the wishes that a person does not have, and in a space of the kind {script.space.kind} they "
        "have one on every dimension: use `stranger`"
    )
    return [Mistake("the recipe", None, "candidates.conditions", said)]


def _judged_in_vain(script: Script) -> list[Mistake]:
    """What the recipe wants of a judge whose generator cannot give it."""
    recipe, judge, found = script.recipe, script.judge, []
    form = judge.front.form if judge else ""
    if script.feedback is not None and script.feedback.front.form != "survey":
        said = f"its form is {script.feedback.front.form}, and dialogue.feedback needs a survey"
        found.append(Mistake(script.feedback.label, None, "form", said))
    if judge is None:
        return found
    patient = recipe.dialogue.patience and recipe.dialogue.continue_with == "preferred"
    wrong = {
        "a survey is filled in after a dialogue: name it in dialogue.feedback": form == "survey",
        "pairing.compare is best, which needs ratings: use judge/rating, or another of the form rating": (
            recipe.pairing.compare == "best" and form != "rating"
        ),
        "dialogue.patience is set, and nobody is disappointed who gets the answer they prefer: set "
        "dialogue.continue_with to random or both, or use a judge that rates": bool(patient) and form != "rating",
        "judge.by is dimension, which is for judges that compare (pairwise or batch)": (
            recipe.judge is not None and recipe.judge.by == "dimension" and form in ("rating", "ranking")
        ),
        "pairing.certainty is set, and it does not say `certainty`: use judge/certainty, or add it to `says`": (
            recipe.pairing.certainty > 0 and "certainty" not in judge.front.says
        ),
    }
    return found + [Mistake(judge.label, None, "", said) for said, holds in wrong.items() if holds]


def _scored_in_vain(script: Script) -> list[Mistake]:
    """Scorers that are not there, and models that score for nobody."""
    recipe, space = script.recipe, script.space
    wanted = {name: axis.scorer for name, axis in space.dimensions.items() if axis.scorer is not None}
    label, by_scorers = recipe.cast.space, recipe.labels.by == "scorers"
    found = []
    if by_scorers and recipe.candidates.contrast != "whole":
        said = "labels.by is scorers, which look at the whole person: set it to whole"
        found.append(Mistake("the recipe", None, "candidates.contrast", said))
    for name, axis in space.dimensions.items():
        if by_scorers and axis.measure is None and axis.scorer is None:
            said = "labels.by is scorers, and this has neither a `measure` nor a `scorer`"
            found.append(Mistake(label, None, f"dimensions.{name}", said))
        elif by_scorers and (axis.mean is None or axis.sd is None):
            said = (
                "labels.by is scorers, which needs its `mean` and `sd`: `scores` of a small run's candidates have them"
            )
            found.append(Mistake(label, None, f"dimensions.{name}", said))
    for name, scorer in wanted.items():
        if by_scorers and not recipe.models.get(scorer, "").startswith(config.SCORING):
            said = (
                f"names the scorer {scorer!r}, and the recipe's `models` have no such one: add {scorer}: score:NAME@URL"
            )
            found.append(Mistake(label, None, f"dimensions.{name}.scorer", said))
    idle = [name for name, reference in recipe.models.items() if reference.startswith(config.SCORING)]
    for name in sorted({*idle} - ({*wanted.values()} if by_scorers else set())):
        said = "scores, and nothing asks for it: set labels.by to scorers, with a space that names it"
        found.append(Mistake("the recipe", None, f"models.{name}", said))
    return found


def _wished_in_vain(script: Script) -> list[Mistake]:
    """Wishes for unsafe answers, unless the recipe studies them."""
    if script.recipe.filters.safety == "studied":
        return []
    label = script.recipe.cast.space
    said = "asks for unsafe answers ({!r}); a recipe that studies what people accept sets filters.safety to studied"
    return [
        Mistake(label, None, f"dimensions.{dimension}.{pole}", said.format(text))
        for dimension, pole, text in safety.asking(script.space)
    ]


def _unread(script: Script) -> list[Mistake]:
    """What the recipe sets and the user's generator never reads: it would be in the data and not in the dialogues."""
    dialogue, user = script.recipe.dialogue, script.user
    set_and_read = {
        "knowledge": (bool(dialogue.knowledge), "knowledge"),
        "writing": (script.writing is not None, "words"),
        "writing (languages)": (script.writing is not None and bool(script.writing.languages), "language"),
        "conversations": (bool(dialogue.conversations), "guide"),
        "disclosure": (dialogue.disclosure in ("gradually", "up_front"), "tell"),
    }
    return [
        Mistake(user.label, None, "", f"dialogue.{key} is set, and this generator never uses {{{{ {variable} }}}}")
        for key, (given, variable) in set_and_read.items()
        if given and not user.reads(variable)
    ]


def _planned(recipe: Recipe, cast: Cast, script: Script, shared: Sequence[Prompt]) -> Plan:
    name = catalog.label(recipe.cast.space)
    profiles = preferences.draw(script.space, name, cast, script.seed, recipe.cast.mirrored)
    form = script.judge.front.form if script.judge else "pairwise"
    return Plan(recipe, cast, script.space, profiles, shared, script.seed, form)


def _play(options: Options, plan: Plan, job: Job, folder: RunFolder, display: Display, power: Power) -> Tally:
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
            executed = _executed(options, job, shards, display, power)
            asyncio.run(_collect(executed, folder, total, options, plan))
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
    options: Options, job: Job, shards: Iterator[Shard], display: Display, power: Power
) -> AsyncGenerator[ShardDone, None]:
    if _executor(options) == "ray":
        from simforge.executors import ray

        return ray.run(power.ray, job, shards, options.workers, display, power.urls)
    from simforge.executors import local

    return local.run(job, shards, options.workers or 1, display, power.urls)


def _shard_size(plan: Plan) -> int:
    """At least eight shards where there are people for it, and groups, who share answers, never apart."""
    group = plan.recipe.prompts.people * plan.recipe.prompts.per_persona
    return max(1, min(SHARD, len(plan) // 8) // group) * group


def _shards(plan: Plan, size: int, kept: set[int]) -> Iterator[Shard]:
    for number, start in enumerate(range(0, len(plan), size)):
        if number not in kept:
            yield Shard(number, plan.scenarios(start, start + size))


def _identity(recipe: Recipe, plan: Plan, script: Script, specs: dict[Role, ModelSpec]) -> dict[str, Any]:
    """What decides the content of the dataset, part by part, so that a difference can be named."""
    return {
        "recipe": digest(
            recipe.model_dump(
                mode="json",
                exclude={"models": True, "endpoints": True, "servers": True, "licences": True, "prompts": {"source"}},
            )
        ),
        "pack": digest(plan.cast.pack.content()),
        "cast": plan.cast.sha256,
        "writers": digest(casting.writers(plan.cast)),
        "space": digest(plan.space.model_dump(mode="json")),
        "writing": digest(script.writing.model_dump(mode="json")) if script.writing else None,
        "generators": digest([catalog.entry("generators", one.name).text for one in script.generators]),
        "prompts": digest([prompt.id for prompt in plan.prompts]),
        "models": {role: spec.fingerprint for role, spec in specs.items()},
        "personas": len(plan.cast),
        "seed": plan.seed,
        "schema_version": SCHEMA_VERSION,
    }


def _ledger_of(path: Path) -> Path | str:
    ledger = versions.ledger_of(path)
    if isinstance(ledger, Path) and not ledger.is_dir():
        raise UsageError(f"--reuse {path}: there is no ledger in it; give the folder of an earlier run.")
    return ledger


def _about(spec: ModelSpec, recipe: Recipe) -> dict[str, str]:
    licence = recipe.licence(spec.reference) or spec.licence
    return {"reference": spec.reference, "fingerprint": spec.fingerprint, "licence": licence, "about": spec.about}
