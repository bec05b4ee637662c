"""Executors: where shards are played.

An executor takes a job and an iterable of shards and yields results as they finish; it knows no stage. What it is
handed is a value, so the same call runs in this process or on a cluster, and how it ran never changes what came out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping

from simforge.shards import Shard, ShardDone

Play = Callable[[Shard], Awaitable[ShardDone]]

Urls = Callable[[], Mapping[str, tuple[str, ...]]]
"Where the models are that this run serves itself, by reference."

LANES = 2
"""Shards under way in a worker beyond those that fill its places: as one shard runs out of dialogues the next has
begun."""

BEAT = 1.0
"Seconds between two looks at how things stand."


class Lanes:
    """Shards played in several lanes at once, each lane pulling the next shard when it is free. Lanes may be added
    while it goes on. The first failure stops the others and is raised."""

    def __init__(self, shards: Iterable[Shard]) -> None:
        self._waiting = iter(shards)
        self._finished: asyncio.Queue[ShardDone | BaseException | None] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._running = 0
        self.idle = 0
        "Lanes that found no more shards."

    def add(self, play: Play) -> None:
        """One more lane."""
        self._running += 1
        self._tasks.append(asyncio.create_task(self._lane(play)))

    def fail(self, problem: BaseException) -> None:
        """Stop everything for a reason from outside."""
        self._finished.put_nowait(problem)

    async def results(self) -> AsyncGenerator[ShardDone, None]:
        """Shards as they finish, until none is left."""
        try:
            while self._running:
                result = await self._finished.get()
                if isinstance(result, BaseException):
                    raise result
                if result is None:
                    self._running -= 1
                else:
                    yield result
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _lane(self, play: Play) -> None:
        try:
            for shard in self._waiting:
                await self._finished.put(await play(shard))
            self.idle += 1
            await self._finished.put(None)
        except BaseException as problem:
            await self._finished.put(problem)
            raise


def lanes_for(concurrency: int, shard_size: int) -> int:
    """How many shards a worker has under way."""
    return -(-concurrency // shard_size) + LANES - 1
