"""The `local` executor: this process, one event loop.

Several workers here share the loop and the loaded models; each has its own places and its own ledger segment. It is
the same division of work as on a cluster, and as fast as one worker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from simforge.executors import drain, lanes_for
from simforge.shards import Job, Shard, ShardDone, Watch, Worker


async def run(
    job: Job, shards: Iterable[Shard], shard_size: int, workers: int, watch: Watch
) -> AsyncIterator[ShardDone]:
    """Play the shards with `workers` workers in this process."""
    opened = [await Worker.open(job, watch) for _ in range(workers)]
    lanes = [worker.play for worker in opened for _ in range(lanes_for(job.concurrency, shard_size))]
    try:
        async for done in drain(shards, lanes):
            yield done
    finally:
        for worker in opened:
            worker.close()
