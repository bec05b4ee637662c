"""The `ray` executor: a pool of asynchronous worker actors, each an event loop with many dialogues in flight.

Actors pull shards, so nobody waits; a finished shard comes home as one message. When an actor dies its shards are
played again by another: the ledger answers what was already asked, and only the driver writes part files, so a
worker that has lost touch cannot write one. Ray is imported when this executor is chosen, never before.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from simforge.errors import ModelError, SimForgeError, UsageError
from simforge.executors import drain, lanes_for
from simforge.shards import Job, Shard, ShardDone, Watch, Worker

log = logging.getLogger("simforge")

CPUS = 0
"CPUs an actor asks for: it waits for models most of the time, and one that asks for more than is left never starts."
ATTEMPTS = 3
"Most times that one shard is started before its worker's death is taken for the shard's fault."


class RemoteWorker:
    """A worker inside an actor. Ray runs the coroutines of one actor in one event loop."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._worker: Worker | None = None
        self._opening = asyncio.Lock()

    async def play(self, shard: Shard) -> ShardDone:
        async with self._opening:
            if self._worker is None:
                self._worker = await Worker.open(self._job)
        return await self._worker.play(shard)


async def run(
    job: Job,
    shards: Iterable[Shard],
    shard_size: int,
    workers: int | None,
    address: str | None,
    watch: Watch,
) -> AsyncGenerator[ShardDone, None]:
    """Play the shards on `workers` actors (default: one per CPU of the cluster; one per node where models are
    embedded, since each actor loads its own)."""
    ray = _connect(address)
    try:
        embedded = any(spec.reference.startswith("local:") for spec in job.models.values())
        nodes = [node for node in ray.nodes() if node["Alive"]]
        wanted = workers or (len(nodes) if embedded else max(1, int(ray.cluster_resources().get("CPU", 1))))
        count = lanes_for(job.concurrency, shard_size)
        actor = ray.remote(num_cpus=CPUS, max_concurrency=count + 1, max_restarts=0)(RemoteWorker)
        shared = ray.put(replace(job, purse=job.purse.shared(wanted)) if job.purse is not None else job)
        pool = [_Slot(ray, actor, shared) for _ in range(wanted)]
        log.info("ray: %d workers on %d node(s)", wanted, len(nodes))
        lanes = [slot.play for slot in pool for _ in range(count)]
        async with aclosing(drain(shards, lanes)) as finished:
            async for done in finished:
                for used in done.tally.usage.values():
                    watch.replied(used)
                watch.played(done.tally)
                yield done
    finally:
        if _STARTED:
            _STARTED.clear()
            ray.shutdown()


class _Slot:
    """A place for one actor, refilled when the actor dies."""

    def __init__(self, ray: Any, actor: Any, job: Any) -> None:
        self._ray, self._actor, self._job = ray, actor, job
        self._handle = actor.remote(job)

    async def play(self, shard: Shard) -> ShardDone:
        for attempt in range(1, ATTEMPTS + 1):
            handle = self._handle
            try:
                return await handle.play.remote(shard)  # type: ignore[no-any-return]
            except self._ray.exceptions.RayTaskError as problem:
                cause = problem.cause
                raise (cause if isinstance(cause, SimForgeError | OSError) else problem) from None
            except self._ray.exceptions.RayActorError as problem:
                log.warning("ray: a worker was lost (%s); shard %d starts again", type(problem).__name__, shard.number)
                if self._handle is handle:
                    self._handle = self._actor.remote(self._job)
                if attempt == ATTEMPTS:
                    raise ModelError(
                        f"shard {shard.number} lost its worker {ATTEMPTS} times: {str(problem).splitlines()[0]}. "
                        "Look at the memory of the nodes and at Ray's logs."
                    ) from None
        raise AssertionError("unreachable")


_STARTED: list[bool] = []
"Whether this process connected Ray, and so takes the connection down."


def _connect(address: str | None) -> Any:
    """Ray, connected. Raises `UsageError` where there is no cluster, before anything else is done."""
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # workers use this environment as it is
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return ray
    where = address or os.environ.get("RAY_ADDRESS")
    _reached(where)
    try:
        if where:
            ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR)
        else:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as problem:
        raise UsageError(f"there is no Ray cluster at {where}: {str(problem).splitlines()[0]}") from None
    _STARTED.append(True)
    return ray


def _reached(where: str | None) -> None:
    """Refuse an address at which nobody listens: Ray itself tries for a while, and says so at length."""
    match = re.fullmatch(r"(?:ray://)?([^/:]+):(\d+)", where or "")
    if match is not None:
        try:
            socket.create_connection((match[1], int(match[2])), timeout=5).close()
        except OSError as problem:
            raise UsageError(f"there is no Ray cluster at {where}: {problem}.") from None
