"""What several tests share: recipes, played dialogues, finished runs, tables and candidates."""

from __future__ import annotations

import asyncio
from pathlib import Path

import polars as pl
from conftest import simforge

from simforge.dialogue.play import play
from simforge.models import providers
from simforge.models.calls import Roles
from simforge.models.ledger import Ledger
from simforge.recipe.schema import Recipe
from simforge.run.checks import load_recipe
from simforge.run.pipeline import prepare
from simforge.types import Candidate, ChatReply, Episode, Finish


def recipe_of(pipeline: str, *overrides: str, model: str = "scripted:") -> Recipe:
    return load_recipe(pipeline, overrides, model.split())


def played(
    tmp_path: Path,
    pipeline: str,
    *overrides: str,
    model: str = "scripted:",
    people: int = 1,
) -> list[Episode]:
    """The dialogues of a few people."""
    recipe = recipe_of(pipeline, *overrides, model=model)
    plan, script = prepare(recipe, people, seed=0)
    specs = {role: providers.resolve(recipe.models[role]) for role in recipe.roles}

    async def run() -> list[Episode]:
        opened = {
            role: (spec, await providers.open_model(spec))
            for role, spec in specs.items()
        }
        with Ledger(tmp_path / "ledger") as ledger:
            return [
                await play(one, script, Roles(opened, ledger, 0))
                for one in plan.scenarios(0, len(plan))
            ]

    return asyncio.run(run())


def generated(
    out: Path,
    pipeline: str,
    *arguments: object,
    people: int = 8,
    model: str = "scripted:",
    env=None,
) -> Path:
    done = simforge(
        "generate",
        pipeline,
        "--personas",
        people,
        "--model",
        model,
        "--out",
        out,
        *arguments,
        env=env,
    )
    assert done.status == 0, done.err
    return out


def table(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / "data" / name / "*.parquet")


def candidate(
    text: str,
    condition: str = "own",
    dimension: str = "informativeness",
    **more,
) -> Candidate:
    reply = ChatReply(text, more.pop("finish", Finish.stop), 1, 0, 1)
    name = f"{condition}/{more.get('sample', 0)}"
    sample, steering = more.pop("sample", 0), more.pop("steering", "")
    return Candidate(
        name,
        0,
        str(condition),
        condition,
        dimension,
        sample,
        "m",
        steering,
        reply.completions[0],
    )
