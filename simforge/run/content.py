"""What decides the content of a dataset, part by part."""

from __future__ import annotations

from simforge import catalog
from simforge.dataset.tables import SCHEMA_VERSION
from simforge.identity import digest
from simforge.models.contract import ModelSpec
from simforge.recipe.schema import Recipe
from simforge.recipe.setup import Setup
from simforge.run import casting
from simforge.run.plan import Plan
from simforge.types import JsonObject, Role


def content_identity(
    recipe: Recipe, plan: Plan, setup: Setup, specs: dict[Role, ModelSpec]
) -> JsonObject:
    """Digests of everything that decides the content of the dataset, by part, so that a
    difference can be named."""
    return {
        "recipe": digest(
            recipe.model_dump(
                mode="json",
                exclude={
                    "models": True,
                    "endpoints": True,
                    "servers": True,
                    "licences": True,
                    "prompts": {"source"},
                },
            )
        ),
        "pack": digest(plan.cast.pack.content()),
        "cast": plan.cast.sha256,
        "writers": digest(casting.writer_texts(plan.cast)),
        "space": digest(plan.space.model_dump(mode="json")),
        "writing": digest(setup.writing.model_dump(mode="json"))
        if setup.writing
        else None,
        "generators": digest(
            [
                catalog.entry("generators", generator.name).text
                for generator in setup.generators
            ]
        ),
        "prompts": digest([prompt.id for prompt in plan.prompts]),
        "models": {role: spec.fingerprint for role, spec in specs.items()},
        "personas": len(plan.cast),
        "seed": plan.seed,
        "schema_version": SCHEMA_VERSION,
    }
