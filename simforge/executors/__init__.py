"""Executors: where shards are played.

An executor takes a job and an iterable of shards and yields results as they finish; it knows no stage. What it is
handed is a value, so the same call runs in this process or on a cluster, and how it ran never changes what came out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence

from simforge.shards import Shard, ShardDone

Play = Callable[[Shard], Awaitable[ShardDone]]

LANES = 2
"""Shards under way in a worker beyond those that fill its places: as one shard runs out of dialogues the next has
begun."""


async def drain(shards: Iterable[Shard], lanes: Sequence[Play]) -> AsyncGenerator[ShardDone, None]:
    """Play shards in all lanes at once, each lane pulling the next shard when it is free. The first failure stops
    the others and is raised."""
    waiting = iter(shards)
    finished: asyncio.Queue[ShardDone | BaseException | None] = asyncio.Queue()

    async def lane(play: Play) -> None:
        try:
            for shard in waiting:
                await finished.put(await play(shard))
            await finished.put(None)
        except BaseException as problem:
            await finished.put(problem)
            raise

    tasks = [asyncio.create_task(lane(play)) for play in lanes]
    try:
        running = len(tasks)
        while running:
            result = await finished.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                running -= 1
            else:
                yield result
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def lanes_for(concurrency: int, shard_size: int) -> int:
    """How many shards a worker has under way."""
    return -(-concurrency // shard_size) + LANES - 1
