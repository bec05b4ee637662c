"""The `local` executor: one worker, in this process and its event loop."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace

from simforge.executors import BEAT, Crew, Urls
from simforge.shards import Job, Orders, Shard, ShardDone, Watch, Worker


async def run(
    job: Job, shards: Iterable[Shard], workers: int, watch: Watch, urls: Urls
) -> AsyncGenerator[ShardDone, None]:
    """Play the shards. `workers` multiplies the dialogues in flight: more event loops would not make one process
    faster."""
    job = replace(job, concurrency=job.concurrency * workers)
    worker = await Worker.open(job, watch)
    try:
        crew = Crew(shards)
        crew.add(worker.room, worker.play)
        crew.beside(_follow(worker, urls))
        async with aclosing(crew.results()) as finished:
            async for done in finished:
                yield done
    finally:
        await worker.close()


async def _follow(worker: Worker, urls: Urls) -> None:
    """Tell the worker where models are that move."""
    for number in itertools.count(1):
        await asyncio.sleep(BEAT)
        worker.obey(Orders(number, urls=urls()))
