"""A run from start to end, on one page.

    recipe -> cast -> plan -> shards -> executor -> parts -> sealed dataset version

Every mistake in the inputs is reported before a model is loaded, and every model is ready before a
dialogue starts. Finished work stays finished: the same call continues where an earlier one
stopped.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path

from simforge.dataset.audit_files import add_audit
from simforge.dataset.manifest import Manifest, read_manifest
from simforge.errors import (
    BudgetReached,
    Interrupted,
    ModelError,
    UsageError,
)
from simforge.models import ledger
from simforge.models.budget import budget_reached
from simforge.models.rate_limits import Bounds
from simforge.recipe.schema import Recipe
from simforge.recipe.setup import Setup
from simforge.run import casting
from simforge.run.backend import (
    default_concurrency,
    open_backend,
)
from simforge.run.checks import inputs_of, load_inputs
from simforge.run.content import content_identity
from simforge.run.dispatch import check_failures, play_remaining, shard_size
from simforge.run.folder import RunFolder, ledger_of_earlier_run
from simforge.run.models import model_specs
from simforge.run.options import Options, as_json, read_options
from simforge.run.plan import Plan, make_plan
from simforge.run.progress import Display
from simforge.run.sealing import model_summaries, seal
from simforge.run.shards import Job
from simforge.run.spending import budget_of, paid_usage, spent_so_far


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run."""

    path: Path
    manifest: Manifest


def generate(options: Options, display: Display) -> Run:
    """Make a dataset. Raises `UsageError` and `ModelError` before anything is spent, and
    `RunStopped` if the run can be continued."""
    inputs = load_inputs(
        options.pipeline,
        options.overrides,
        options.models,
        options.prompts,
        options.personas,
        options.seed,
        options.cast,
    )
    recipe, setup, plan = inputs.recipe, inputs.setup, make_plan(inputs)
    roles = (*recipe.roles, *casting.required_roles(recipe, plan.cast))
    specs, key_notes = model_specs(recipe, roles, options)
    reuse = tuple(ledger_of_earlier_run(path) for path in options.reuse)
    budget = budget_of(options, specs)
    if options.ledger is not None:
        ledger.check_url(options.ledger)
    identity = content_identity(recipe, plan, setup, specs)
    folder = RunFolder.claim(options.out, identity, shard_size(plan))
    try:
        if (
            folder.is_complete()
            and folder.manifest()["recipe"].get("licences") == recipe.licences
        ):
            return Run(options.out, folder.manifest())
        for note in key_notes:
            display.say(note)
        with open_backend(options, recipe, specs, setup) as backend:
            folder.write_note("options", as_json(options))
            folder.record_ledger_location(options.ledger)
            if budget is not None:
                display.set_budget(budget.limit)
                budget.spent = spent_so_far(folder.ledger, specs, budget.prices)
            job = Job(
                setup,
                backend.specs,
                folder.ledger,
                reuse,
                options.concurrency or default_concurrency(specs),
                budget,
                Bounds(options.max_in_flight, options.max_tokens_per_minute),
            )
            cast, usage = casting.complete_cast(
                plan.cast, job, folder.work, options.seed, options.max_failures, display
            )
            if cast is not plan.cast:
                plan = make_plan(replace(inputs, cast=cast))
            total = play_remaining(options, plan, job, folder, display, backend)
            total.add_usage(usage)
        # other runs may be writing to a shared ledger
        if folder.ledger == folder.default_ledger:
            ledger.compact(folder.default_ledger)
        check_failures(total, options.max_failures)
        spent = spent_so_far(folder.ledger, specs, budget.prices) if budget else None
        paid = paid_usage(folder.ledger, specs)
        manifest = seal(
            folder, plan, model_summaries(specs, recipe), total, paid, spent
        )
        _quick_audit(options.out)
    except (UsageError, ModelError):
        folder.abandon()
        raise
    except BudgetReached:
        assert budget is not None
        # with the replies that arrived since
        spent = spent_so_far(folder.ledger, specs, budget.prices)
        raise budget_reached(budget.limit, spent) from None
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped; what was answered so far is kept in {folder.path}."
        ) from None
    finally:
        folder.release()
    return Run(options.out, manifest)


def retry(path: Path, display: Display) -> tuple[Run, int]:
    """Run the failed dialogues of a run again, with the options that it was started with.
    Returns the run and the number of failed dialogues."""
    options, folder = read_options(path)
    run_folder = RunFolder.existing(path)
    lost = sum(tally.failed for tally in run_folder.finished_tallies().values())
    if not lost and run_folder.is_sealed():
        return Run(path, {}), 0
    with contextlib.chdir(folder):
        return generate(options, display), max(1, lost)


def prepare(
    recipe: Recipe, people: int | None, seed: int, cast_source: str | None = None
) -> tuple[Plan, Setup]:
    """The plan of a recipe and the setup of its dialogues. No model is needed. Raises `UsageError`
    and `RecipeError`."""
    inputs = inputs_of(recipe, people, seed, cast_source)
    return make_plan(inputs), inputs.setup


def _quick_audit(out: Path) -> None:
    """The part of the audit that takes only seconds; `simforge audit` does the rest."""
    from simforge import audit
    from simforge.audit import pairs

    manifest = read_manifest(out)
    if sum(manifest["counts"]["preferences"].values()):
        add_audit(out, audit.quick_audit(pairs.read(str(out))))
