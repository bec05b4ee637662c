"""The backend of a run: its models, ready to be asked, and the executor that plays its shards."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, replace
from typing import Any

from simforge.errors import UsageError
from simforge.judging.forms import FORMS
from simforge.models import providers
from simforge.models.contract import ModelSpec
from simforge.models.providers import provider_of
from simforge.recipe.schema import Recipe
from simforge.recipe.setup import Setup
from simforge.run.executors.base import CurrentUrls
from simforge.run.options import Options
from simforge.run.progress import Display
from simforge.run.shards import Job, Shard, ShardDone
from simforge.types import Role


@dataclass(frozen=True, slots=True)
class Backend:
    """The resources that execute a run: its models, ready to be asked, and Ray if needed."""

    specs: dict[Role, ModelSpec]
    ray: Any = None
    urls: CurrentUrls = dict
    "Current URLs of the models that the run serves itself; they may change during the run."


@contextlib.contextmanager
def open_backend(
    options: Options, recipe: Recipe, specs: dict[Role, ModelSpec], setup: Setup
) -> Iterator[Backend]:
    """Start what has to be started, and check that every model can be asked."""
    vllm_references = {
        spec.reference
        for spec in specs.values()
        if provider_of(spec.reference).served_by_run
    }
    served = {
        reference: recipe.server(reference) for reference in sorted(vllm_references)
    }
    if options.executor == "local" and options.ray_address and not served:
        raise UsageError(
            "--ray-address belongs to --executor ray, and --executor local was given: "
            "drop one of them."
        )
    if options.runtime_env and not served and executor_name(options) == "local":
        raise UsageError(
            "--runtime-env works with Ray only: add --executor ray or --ray-address, or drop it."
        )
    with contextlib.ExitStack() as stack:
        backend = Backend(specs)
        if served or executor_name(options) == "ray":
            from simforge.run.executors import cluster, serving

            ray = stack.enter_context(
                cluster.connected(options.ray_address, options.runtime_env)
            )
            backend = Backend(specs, ray)
            if served:
                urls = stack.enter_context(serving.serving(ray, served)).urls
                backend = Backend(serving.with_urls(specs, urls), ray, urls)
        uses_choices = setup.judge is not None and FORMS.find(
            setup.judge.front.form
        ).replies_with_choice(setup.judge.front)
        choice_models = (
            {specs[role].reference for role in recipe.judge.panel}
            if recipe.judge and uses_choices
            else set()
        )
        fetched_specs: dict[str, ModelSpec] = {}
        for spec in backend.specs.values():
            if spec.reference not in fetched_specs:
                fetched_specs[spec.reference] = providers.ensure_available(
                    spec, spec.reference in choice_models
                )
        yield replace(
            backend,
            specs={
                role: fetched_specs[spec.reference]
                for role, spec in backend.specs.items()
            },
        )


def executor_name(options: Options) -> str:
    """Name of the executor: the one asked for, or Ray wherever an address is given."""
    return options.executor or (
        "ray" if options.ray_address or "RAY_ADDRESS" in os.environ else "local"
    )


def default_concurrency(specs: dict[Role, ModelSpec]) -> int:
    """Default concurrency: an embedded model gets no faster beyond 32 concurrent requests;
    an endpoint takes as many as it can handle."""
    return (
        32
        if any(provider_of(spec.reference).embedded for spec in specs.values())
        else 256
    )


def run_shards(
    options: Options,
    job: Job,
    shards: Iterator[Shard],
    display: Display,
    backend: Backend,
) -> AsyncGenerator[ShardDone, None]:
    if executor_name(options) == "ray":
        from simforge.run.executors import ray

        return ray.run(backend.ray, job, shards, options.workers, display, backend.urls)
    from simforge.run.executors import local

    return local.run(job, shards, options.workers or 1, display, backend.urls)
