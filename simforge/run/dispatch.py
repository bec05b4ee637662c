"""Dispatch: the shards that are not finished, sent to an executor, and their results written to
the run folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from simforge.errors import RunFolderError, TooManyFailures
from simforge.run.backend import Backend, run_shards
from simforge.run.folder import RunFolder
from simforge.run.options import Options
from simforge.run.plan import Plan
from simforge.run.progress import Display
from simforge.run.shards import Job, Shard, ShardDone, Tally

MAX_SHARD_SIZE = 64
"Maximum number of scenarios in a shard."


MIN_FAILURES = 8
"Failed dialogues below which a run goes on whatever share they are."


def play_remaining(
    options: Options,
    plan: Plan,
    job: Job,
    folder: RunFolder,
    display: Display,
    backend: Backend,
) -> Tally:
    """Run the dialogues that are not finished, and return the counts of the whole run."""
    finished = {
        number: tally
        for number, tally in folder.finished_tallies().items()
        if not tally.failed
    }
    total = Tally()
    for tally in finished.values():
        total.add(tally)
    shards = _remaining_shards(plan, folder.shard_size, set(finished))
    if len(finished) * folder.shard_size >= len(plan):
        return total
    folder.unseal()
    with display.running(len(plan), plan.max_calls, total):
        try:
            results = run_shards(options, job, shards, display, backend)
            asyncio.run(_collect(results, folder, total, options, plan))
        except OSError as problem:
            raise RunFolderError(
                f"the run stopped: {problem.strerror or problem} "
                f"({problem.filename or folder.path}). What is finished is kept; fix "
                "the problem and run the same command again."
            ) from problem
    return total


async def _collect(
    finished: AsyncGenerator[ShardDone, None],
    folder: RunFolder,
    total: Tally,
    options: Options,
    plan: Plan,
) -> None:
    async with aclosing(finished):
        async for result in finished:
            folder.write_part(result)
            total.add(result.tally)
            if (
                total.failed > options.max_failures * len(plan)
                and total.failed >= MIN_FAILURES
            ):
                raise TooManyFailures(
                    f"{total.failed} of {total.dialogues} dialogues were lost so far, "
                    f"more than --max-failures {options.max_failures:.0%} of the run; "
                    f"stopped. {total.commonest_problem} The same command plays the lost "
                    "ones again."
                )


def check_failures(total: Tally, max_failures: float) -> None:
    """Raise `TooManyFailures` if more dialogues were lost than a finished run may lose."""
    lost_share = total.failed / max(1, total.dialogues)
    if lost_share > max_failures:
        raise TooManyFailures(
            f"{total.failed} of {total.dialogues} dialogues were lost "
            f"({lost_share:.0%}; --max-failures allows {max_failures:.0%}). "
            f"{total.commonest_problem} What was answered is kept: the same command plays the "
            "lost ones again."
        )


def shard_size(plan: Plan) -> int:
    """Number of scenarios in a shard: small enough for at least eight shards, if there are
    enough people, and a multiple of the group size, because a group shares answers and must
    stay together."""
    scenarios_per_group = (
        plan.recipe.prompts.group_size * plan.recipe.prompts.per_persona
    )
    return (
        max(1, min(MAX_SHARD_SIZE, len(plan) // 8) // scenarios_per_group)
        * scenarios_per_group
    )


def _remaining_shards(plan: Plan, size: int, finished: set[int]) -> Iterator[Shard]:
    for number, start in enumerate(range(0, len(plan), size)):
        if number not in finished:
            yield Shard(number, plan.scenarios(start, start + size))
