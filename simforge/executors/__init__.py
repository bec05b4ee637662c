"""Executors: where shards are played.

An executor takes a job and an iterable of shards and yields results as they finish; it knows no stage. What it is
handed is a value, so the same call runs in this process or on a cluster, and how it ran never changes what came out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any

from simforge.shards import Shard, ShardDone

Play = Callable[[Shard], Awaitable[ShardDone]]
"Plays a shard."

Room = Callable[[], Awaitable[None]]
"Waits until a worker has a free place."

Urls = Callable[[], Mapping[str, tuple[str, ...]]]
"Where the models are that this run serves itself, by reference."

SHARDS = 64
"""Most shards under way in one worker. Usually as many as fill its places; more where slow dialogues keep some open."""

BEAT = 1.0
"Seconds between two looks at how things stand."


class Crew:
    """Workers that pull shards. A worker takes the next one as soon as it has a free place, so a slow dialogue delays
    nobody but its own shard, and nobody takes work that another could begin. Workers may join while it goes on. The
    first failure stops all and is raised."""

    def __init__(self, shards: Iterable[Shard]) -> None:
        self._waiting = iter(shards)
        self._finished: asyncio.Queue[ShardDone | BaseException | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._working = 0
        self.over = False
        "Whether no shard is left to be begun."

    def add(self, room: Room, play: Play) -> None:
        """One more worker."""
        self._working += 1
        self.beside(self._pull(room, play))

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the shards, until they are over; its failure stops everything too."""
        self._begin(work).add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._finished.put_nowait(problem)

    async def results(self) -> AsyncGenerator[ShardDone, None]:
        """Shards as they finish, until none is left."""
        try:
            while self._working:
                result = await self._finished.get()
                if isinstance(result, BaseException):
                    raise result
                if result is None:
                    self._working -= 1
                else:
                    yield result
        finally:
            await self.stop()

    async def stop(self) -> None:
        """End everything that is under way. A task is cancelled until it ends: before Python 3.12 `asyncio.wait_for`
        forgets that it was cancelled where what it waits for comes at that moment."""
        while under_way := {task for task in self._tasks if not task.done()}:
            for task in under_way:
                task.cancel()
            await asyncio.wait(under_way, timeout=1)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _pull(self, room: Room, play: Play) -> None:
        under_way: set[asyncio.Task[None]] = set()
        while not self.over:
            if len(under_way) == SHARDS:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            await room()
            shard = next(self._waiting, None)
            self.over = shard is None
            if shard is not None:
                task = self._begin(self._play(play, shard))
                task.add_done_callback(self._ended)
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                await asyncio.sleep(0)  # so that the worker counts it before it is asked for room again
        if under_way:
            await asyncio.wait(under_way)
        self._finished.put_nowait(None)

    async def _play(self, play: Play, shard: Shard) -> None:
        self._finished.put_nowait(await play(shard))
