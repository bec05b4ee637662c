"""The `local` executor: one worker, in this process and its event loop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace

from simforge.run.executors.base import (
    HEARTBEAT_SECONDS,
    CurrentUrls,
    WorkerPool,
    all_gates,
)
from simforge.run.shards import Control, Job, ProgressListener, Shard, ShardDone, Worker


async def run(
    job: Job,
    shards: Iterable[Shard],
    workers: int,
    listener: ProgressListener,
    urls: CurrentUrls,
) -> AsyncGenerator[ShardDone, None]:
    """Play the shards. `workers` multiplies the number of dialogues in flight: more event loops
    would not make one process faster."""
    job = replace(job, concurrency=job.concurrency * workers)
    worker = await Worker.open(job, listener)
    try:
        pool = WorkerPool(shards)
        pool.add(worker.wait_for_slot, worker.play)
        pool.run_alongside(_exchange_status(worker, urls, listener))
        async with aclosing(pool.results()) as finished:
            async for played in finished:
                yield played
    finally:
        await worker.close()


async def _exchange_status(
    worker: Worker, urls: CurrentUrls, listener: ProgressListener
) -> None:
    """Send the worker the current URLs of models whose URLs can change, and the listener the
    worker's status."""
    for number in itertools.count(1):
        await asyncio.sleep(HEARTBEAT_SECONDS)
        status = worker.apply(Control(number, urls=urls()))
        listener.on_status(all_gates([status]), status.spent or None)
