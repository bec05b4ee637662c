"""The `local` executor: this process, one event loop.

Several workers here share the loop, the loaded models and the ledger; each has places of its own. It is the same
division of work as on a cluster, and as fast as one worker.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from simforge.executors import drain, lanes_for
from simforge.ledger import Ledger
from simforge.shards import Job, Shard, ShardDone, Watch, Worker


async def run(
    job: Job, shards: Iterable[Shard], shard_size: int, workers: int, watch: Watch
) -> AsyncGenerator[ShardDone, None]:
    """Play the shards with `workers` workers in this process."""
    with Ledger(job.ledger, job.reuse) as ledger:
        opened = [await Worker.open(job, watch, ledger) for _ in range(workers)]
        lanes = [worker.play for worker in opened for _ in range(lanes_for(job.concurrency, shard_size))]
        try:
            async with aclosing(drain(shards, lanes)) as finished:
                async for done in finished:
                    yield done
        finally:
            for worker in opened:
                await worker.close()
