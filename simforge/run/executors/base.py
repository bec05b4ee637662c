"""Executors: they play the shards of a run.

An executor takes a job and an iterable of shards and yields results as they finish; it does not
depend on the stages. Its input is a value, so the same call runs in this process or on a
cluster, and how it runs never changes the result.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
)
from typing import Any

from simforge.models.rate_limits import GateState
from simforge.run.shards import Shard, ShardDone, Status

PlayShard = Callable[[Shard], Awaitable[ShardDone]]
"Function that plays a shard."


WaitForSlot = Callable[[], Awaitable[None]]
"Function that waits until a worker has a free slot."


CurrentUrls = Callable[[], Mapping[str, tuple[str, ...]]]
"Function that returns the current URLs of the models that this run serves, by reference."


MAX_SHARDS = 64
"""Maximum number of shards in flight in one worker. Usually a worker has as many as fill its
slots; more if slow dialogues keep shards unfinished."""


HEARTBEAT_SECONDS = 1.0
"Seconds between two status checks."


def all_gates(statuses: Iterable[Status]) -> list[GateState]:
    """Return the state of every endpoint in every worker."""
    return [
        gate
        for status in statuses
        for by_url in status.gates.values()
        for gate in by_url.values()
    ]


class WorkerPool:
    """A pool of workers that pull shards. A worker takes the next shard as soon as it has a
    free slot, so a slow dialogue delays only its own shard, and no worker takes a shard that
    another could start at once. Workers may join at any time. The first failure stops the pool
    and is raised."""

    def __init__(self, shards: Iterable[Shard]) -> None:
        self._shards = iter(shards)
        self._finished: asyncio.Queue[ShardDone | BaseException | None] = (
            asyncio.Queue()
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._active_workers = 0
        self.exhausted = False
        "True when no shard is left to start."

    def add(self, wait_for_slot: WaitForSlot, play: PlayShard) -> None:
        """Add a worker."""
        self._active_workers += 1
        self.run_alongside(self._pull(wait_for_slot, play))

    def run_alongside(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine alongside the shards until they are finished; its failure also stops
        the pool."""
        self._start(work).add_done_callback(self._report_failure)

    def _report_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (problem := task.exception()) is not None:
            self._finished.put_nowait(problem)

    async def results(self) -> AsyncGenerator[ShardDone, None]:
        """Yield shards as they finish, until none is left."""
        try:
            while self._active_workers:
                result = await self._finished.get()
                if isinstance(result, BaseException):
                    raise result
                if result is None:
                    self._active_workers -= 1
                else:
                    yield result
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Cancel everything in flight. A task is cancelled repeatedly until it ends: before
        Python 3.12, `asyncio.wait_for` loses a cancellation if the result it waits for arrives
        at the same moment."""
        while unfinished := {task for task in self._tasks if not task.done()}:
            for task in unfinished:
                task.cancel()
            await asyncio.wait(unfinished, timeout=1)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _pull(self, wait_for_slot: WaitForSlot, play: PlayShard) -> None:
        in_flight: set[asyncio.Task[None]] = set()
        while not self.exhausted:
            if len(in_flight) == MAX_SHARDS:
                await asyncio.wait(in_flight, return_when=asyncio.FIRST_COMPLETED)
            await wait_for_slot()
            shard = next(self._shards, None)
            self.exhausted = shard is None
            if shard is not None:
                task = self._start(self._play(play, shard))
                task.add_done_callback(self._report_failure)
                in_flight.add(task)
                task.add_done_callback(in_flight.discard)
                await asyncio.sleep(
                    0
                )  # so that the worker counts this shard before it is asked for a slot again
        if in_flight:
            await asyncio.wait(in_flight)
        self._finished.put_nowait(None)

    async def _play(self, play: PlayShard, shard: Shard) -> None:
        self._finished.put_nowait(await play(shard))
