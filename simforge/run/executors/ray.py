"""The `ray` executor: a pool of asynchronous worker actors, each an event loop with many
dialogues in flight.

Actors pull shards, so no actor idles. A finished shard is returned as one message, and only the
driver writes part files. Once a second the driver sends each worker a heartbeat with its share
of the limits and the budget, and receives its status. The heartbeat also renews the worker's
lease: a worker without a heartbeat for `LEASE_SECONDS` stops by itself, since the driver may be
gone, or the cluster may consider the node dead while the process still runs. When a worker is
lost, its shards are played again by a new one, but not before the old one's lease has expired.
The new worker reads the ledger, which has all earlier replies, so only the calls in flight are
repeated.

Every message is safe to repeat: Ray may run one twice if its answer is lost. Ray's own retries
are off, because a repeated stream of results loses some and duplicates others.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from simforge.errors import ClusterLost, ModelError, SimForgeError, UsageError
from simforge.models.budget import budget_reached
from simforge.models.ledger import DRAIN_SECONDS, is_url
from simforge.models.providers import provider_of
from simforge.models.rate_limits import Bounds
from simforge.run.executors import cluster, sharing
from simforge.run.executors.base import (
    HEARTBEAT_SECONDS,
    MAX_SHARDS,
    CurrentUrls,
    WorkerPool,
    all_gates,
)
from simforge.run.shards import (
    Control,
    Job,
    ProgressListener,
    Shard,
    ShardDone,
    Status,
    Tally,
    Worker,
)
from simforge.types import Usage

log = logging.getLogger("simforge")


ACTOR_CPUS = 0.001
"""CPUs that an actor requests. It waits for models most of the time, and an actor that requests
more than is free never starts. With 0, Ray would place actors at random instead of spreading
them."""


MAX_ATTEMPTS = 5
"Maximum number of starts of one shard before it is blamed for the loss of its workers."


LEASE_SECONDS = 10.0
"Seconds for which a worker continues without a message from the driver."


START_TIMEOUT = 180.0
"Seconds that a worker may take to start."


HEARTBEAT_TIMEOUT = 120.0
"Seconds without an answer to a heartbeat after which a worker counts as lost."


NODE_POLL_SECONDS = 5.0
"Seconds between two checks for new nodes."


REPLACEMENT_RETRY_SECONDS = 15.0
"Seconds before another attempt to start a replacement worker."


MAX_CONCURRENT_MESSAGES = 16 * MAX_SHARDS
"Concurrent messages of an actor: repeated requests for shards must not block the heartbeat."


class RemoteWorker:
    """A worker inside an actor. Ray runs all coroutines of an actor in one event loop."""

    def __init__(
        self, job: Job, bounds: Bounds, api_keys: Mapping[str, str], marker: str | None
    ) -> None:
        os.environ.update(api_keys)
        self._job, self._marker = replace(job, bounds=bounds), marker
        self._worker: Worker | None = None
        self._opening = asyncio.Lock()
        self._shards: dict[int, asyncio.Task[ShardDone]] = {}
        self._warnings: list[str] = []
        self._last_heartbeat, self._silent_seconds = time.monotonic(), 0.0
        self._metrics = _Metrics()
        self._lease_task: asyncio.Task[None] | None = None

    async def open(self) -> str:
        """Load the models and read the ledger; returns the id of the node. Safe to repeat."""
        import ray

        async with self._opening:
            if self._worker is None:
                for handler in (
                    logging.StreamHandler(),
                    _WarningCollector(self._warnings),
                ):
                    logging.getLogger("simforge").addHandler(handler)
                self._check_ledger_is_shared()
                self._worker = await Worker.open(
                    self._job, calls_allowed=self._has_lease
                )
                self._last_heartbeat = time.monotonic()
                self._lease_task = asyncio.create_task(self._watch_lease())
        return str(ray.get_runtime_context().get_node_id())

    async def wait_for_slot(self) -> None:
        """Wait until a slot is free."""
        assert self._worker is not None
        await self._worker.wait_for_slot()

    async def play(self, shard: Shard) -> ShardDone:
        """Play a shard; if it is requested twice, it is played once."""
        assert self._worker is not None
        if shard.number not in self._shards:
            self._shards[shard.number] = asyncio.create_task(self._worker.play(shard))
        return await asyncio.shield(self._shards[shard.number])

    async def heartbeat(self, control: Control) -> Status:
        """Receive a control message from the driver and return the status."""
        self._last_heartbeat, self._silent_seconds = time.monotonic(), 0.0
        assert self._worker is not None
        for number in control.saved:
            self._shards.pop(number, None)
        status = replace(self._worker.apply(control), warnings=tuple(self._warnings))
        self._metrics.update(status)
        return status

    async def close(self) -> None:
        """Stop, after waiting briefly for replies in flight."""
        for task in self._shards.values():
            task.cancel()
        if self._worker is not None:
            await self._worker.close()

    def _has_lease(self) -> bool:
        """Return whether calls may go out: the last heartbeat is recent enough by the clock."""
        return time.monotonic() - self._last_heartbeat < LEASE_SECONDS

    async def _watch_lease(self) -> None:
        """End this process when the driver is silent. The silence is counted in ticks, so that
        a process that was suspended for a while, and has made no calls, may continue when the
        next heartbeat arrives."""
        while self._silent_seconds < LEASE_SECONDS:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            self._silent_seconds += HEARTBEAT_SECONDS
        try:
            await asyncio.wait_for(self.close(), 2 * DRAIN_SECONDS)
        finally:
            os._exit(1)

    def _check_ledger_is_shared(self) -> None:
        """Raise `UsageError` if this node does not see the driver's ledger folder: its paid
        replies would be lost."""
        if self._marker is None or is_url(self._job.ledger):
            return
        if not (Path(self._job.ledger) / self._marker).is_file():
            raise UsageError(
                f"the node {os.uname().nodename} does not see {self._job.ledger}: put "
                "--out on a file system that all nodes share, or give --ledger a URL, "
                "such as s3://bucket/run."
            )


@dataclass(eq=False)
class _Slot:
    """A place for one worker; it gets a new worker when the worker is lost."""

    ray_workers: _RayWorkers
    handle: Any
    status: Status | None = None
    "Last status of the worker."
    control: Control = field(default_factory=Control)
    "Next control message for the worker."
    granted: float = 0.0
    "Largest allowance that was sent to the worker and that it has not yet confirmed."
    finished: dict[int, Tally] = field(default_factory=dict)
    "Tallies of the shards that the worker has finished."
    last_sent: float = field(default_factory=time.monotonic)
    "Time of the last message to the worker."
    last_answer: float = field(default_factory=time.monotonic)
    "Time of the worker's last answer."
    replacing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def wait_for_slot(self) -> None:
        await self._call(lambda worker: worker.wait_for_slot.remote(), "an idle worker")

    async def play(self, shard: Shard) -> ShardDone:
        done: ShardDone = await self._call(
            lambda worker: worker.play.remote(shard), f"shard {shard.number}"
        )
        self.finished[done.number] = done.tally
        return done

    async def _call(self, send: Callable[[Any], Any], description: str) -> Any:
        """Return the answer of the worker currently in this place, replacing the worker if it
        is lost."""
        errors, attempt = self.ray_workers.ray.exceptions, 0
        while True:
            handle = self.handle
            try:
                return await send(handle)
            except errors.ActorUnavailableError:
                await asyncio.sleep(
                    HEARTBEAT_SECONDS
                )  # a message was lost, not the worker: repeat it
                continue
            except (
                errors.RayActorError,
                errors.OutOfMemoryError,
                errors.TaskCancelledError,
            ) as problem:
                lost: BaseException | None = problem
            except errors.ObjectLostError:
                lost = None  # the answer was lost on its way; the worker still has it
            except errors.RayTaskError as problem:
                if not isinstance(
                    problem.cause, errors.TaskCancelledError | asyncio.CancelledError
                ):
                    raise _cause(problem) from None
                lost = problem  # the worker stopped by itself
            attempt += 1
            if attempt == MAX_ATTEMPTS:
                raise ModelError(
                    f"{description} lost its worker {MAX_ATTEMPTS} times: "
                    f"{_first_line(lost)}. Check the memory of the nodes and Ray's "
                    "logs."
                )
            if lost is not None:
                await self._replace_worker(handle, lost)

    async def run_heartbeat(self) -> None:
        """Send the worker a heartbeat once a second, until cancelled. A worker that has not
        answered for `HEARTBEAT_TIMEOUT` is killed; pending calls to it then fail and replace
        it."""
        ray = self.ray_workers.ray
        while True:
            handle, self.last_sent = self.handle, time.monotonic()
            try:
                control = replace(self.control, saved=tuple(self.finished)[-1000:])
                status = await asyncio.wait_for(
                    handle.heartbeat.remote(control), HEARTBEAT_TIMEOUT
                )
                if handle is self.handle:
                    self.status, self.last_answer = status, time.monotonic()
                    self.granted = self.control.allowance or 0.0
            except (ray.exceptions.RayError, TimeoutError):
                if (
                    handle is self.handle
                    and time.monotonic() - self.last_answer > HEARTBEAT_TIMEOUT
                ):
                    log.warning(
                        "ray: a worker has not answered for %.0f s and is stopped",
                        HEARTBEAT_TIMEOUT,
                    )
                    ray.kill(handle)
                    self.last_answer = time.monotonic()
            await asyncio.sleep(
                max(0.0, self.last_sent + HEARTBEAT_SECONDS - time.monotonic())
            )

    async def _replace_worker(self, lost: Any, problem: BaseException) -> None:
        """Put a new worker in the place of a lost one, once the lost one can no longer make
        calls."""
        async with self.replacing:
            if self.handle is not lost:
                return
            log.warning(
                "ray: a worker was lost (%s); its shards start again",
                _first_line(problem),
            )
            node_is_alive = self.ray_workers.node_of(lost) in cluster.nodes(
                self.ray_workers.ray
            )
            with contextlib.suppress(
                Exception
            ):  # it may already be dead or unreachable
                self.ray_workers.ray.kill(lost)
            if not node_is_alive:
                # Ray considers the node gone; the process may live until its lease has expired.
                await asyncio.sleep(
                    max(
                        0.0,
                        self.last_sent
                        + LEASE_SECONDS
                        + 2 * HEARTBEAT_SECONDS
                        - time.monotonic(),
                    )
                )
            self.ray_workers.record_loss(self)
            self.status, self.control, self.granted, self.finished = (
                None,
                Control(),
                0.0,
                {},
            )
            self.handle = await self.ray_workers.start_replacement()
            self.last_answer = time.monotonic()


class _RayWorkers:
    """The workers of a run, and their combined state."""

    def __init__(
        self,
        ray: Any,
        job: Job,
        listener: ProgressListener,
        urls: CurrentUrls,
        worker_pool: WorkerPool,
        initial_workers: int,
    ) -> None:
        self.ray, self._job, self._listener, self._urls, self._worker_pool = (
            ray,
            job,
            listener,
            urls,
            worker_pool,
        )
        self._initial_workers = initial_workers
        self.slots: list[_Slot] = []
        self._past_tally = Tally()
        "Tally of the finished shards of lost workers."
        self._past_usage = Usage()
        "Usage of the replies of lost workers."
        self._past_spent = 0.0
        "Amount that lost workers have spent."
        self._shown_warnings: set[str] = set()
        self._node_ids: dict[Any, str] = {}
        self._marker = _create_marker(job)
        keys = {
            spec.access.key_variable
            for spec in job.models.values()
            if provider_of(spec.reference).has_key
        }
        self._api_keys_ref = ray.put(
            {key: os.environ[key] for key in keys if key in os.environ}
        )
        worker_budget = (
            replace(job.budget, spent=0.0, limit=float("inf"), allowance=0.0)
            if job.budget
            else None
        )
        self._job_ref = ray.put(replace(job, budget=worker_budget))
        self._actor = ray.remote(
            num_cpus=ACTOR_CPUS,
            max_concurrency=MAX_CONCURRENT_MESSAGES,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )(RemoteWorker)

    async def add_worker(self, bounds: Bounds) -> None:
        """Add a worker; it plays and gets heartbeats as soon as it has started."""
        slot = _Slot(self, await self._start_worker(bounds))
        self.slots.append(slot)
        self._worker_pool.run_alongside(slot.run_heartbeat())
        self._worker_pool.add(slot.wait_for_slot, slot.play)

    async def add_initial_workers(self, workers: int) -> None:
        """Start the initial workers and wait for the first of them. If none can be started,
        raises the last error."""
        bounds = sharing.initial_bounds(self._job.bounds, workers)
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        missing = workers

        async def one() -> None:
            nonlocal missing
            try:
                await self.add_worker(bounds)
            except Exception as problem:
                missing -= 1
                if first.done() and not isinstance(problem, SimForgeError):
                    raise
                if not first.done() and not (
                    missing and isinstance(problem, SimForgeError)
                ):
                    first.set_exception(problem)
                else:
                    log.warning("%s The other workers continue.", problem)
            else:
                if not first.done():
                    first.set_result(None)

        for _ in range(workers):
            self._worker_pool.run_alongside(one())
        await first

    async def add_late_worker(self) -> None:
        """Add a worker on a node that has joined. If it cannot be started, the others continue
        without it."""
        try:
            await self.add_worker(
                sharing.late_bounds(self._job.bounds, self._initial_workers)
            )
        except SimForgeError as problem:
            log.warning("%s The other workers continue.", problem)

    async def _start_worker(self, bounds: Bounds) -> Any:
        """Start a new worker, ready to play. Raises `UsageError` or `ModelError` if none can be
        started."""
        for _ in range(MAX_ATTEMPTS - 1):
            try:
                return await self._open_worker(bounds)
            except self.ray.exceptions.RayActorError as problem:
                log.warning(
                    "ray: a worker was lost while it started (%s); starting another",
                    _first_line(problem),
                )
        try:
            return await self._open_worker(bounds)
        except self.ray.exceptions.RayActorError as problem:
            raise ModelError(
                f"ray: no worker could start: {_first_line(problem)} See Ray's logs. "
                "Where they say InvalidAuthToken, set RAY_AUTH_MODE to the same value "
                "for this command and for every node's `ray start`."
            ) from None

    async def _open_worker(self, bounds: Bounds) -> Any:
        handle, errors = (
            self._actor.remote(self._job_ref, bounds, self._api_keys_ref, self._marker),
            self.ray.exceptions,
        )
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                self._node_ids[handle] = await asyncio.wait_for(
                    handle.open.remote(), deadline - time.monotonic()
                )
                return handle
            except errors.ActorUnavailableError:
                await asyncio.sleep(HEARTBEAT_SECONDS)
            except errors.RayTaskError as problem:
                raise _cause(problem) from None
            except (
                errors.RuntimeEnvSetupError,
                errors.ActorUnschedulableError,
            ) as problem:
                raise UsageError(
                    f"ray: a worker cannot be set up: {_first_line(problem)}"
                ) from None
            except TimeoutError:
                self.ray.kill(handle)
                raise ModelError(
                    f"ray: no node took a worker within {START_TIMEOUT:.0f} s. See `ray status`."
                ) from None

    async def start_replacement(self) -> Any:
        """Start a replacement for a lost worker. While other workers play on, it is retried
        until it succeeds; raises `ClusterLost` if no worker is left."""
        while True:
            try:
                return await self._start_worker(
                    sharing.late_bounds(self._job.bounds, self._initial_workers)
                )
            except SimForgeError as problem:
                if all(slot.status is None for slot in self.slots):
                    raise ClusterLost(
                        f"{problem} No worker is left. All answers so far are kept."
                    ) from None
                log.warning(
                    "%s Trying again in %.0f s.", problem, REPLACEMENT_RETRY_SECONDS
                )
                await asyncio.sleep(REPLACEMENT_RETRY_SECONDS)

    def node_of(self, handle: Any) -> str | None:
        """Return the id of a worker's node, if known."""
        return self._node_ids.get(handle)

    def record_loss(self, slot: _Slot) -> None:
        """Add the totals of a lost worker: of its dialogues, only those of finished shards
        count; of its costs, the amount it reported and the maximum cost of its calls in
        flight."""
        for tally in slot.finished.values():
            self._past_tally.add(tally)
        if slot.status is not None:
            self._past_usage += slot.status.used
            self._past_spent += slot.status.spent + slot.status.reserved

    async def run_control(self) -> None:
        """Compute once a second the share of each worker, until cancelled."""
        run_budget, bounds = self._job.budget, self._job.bounds
        for number in itertools.count(1):
            statuses = {
                slot: slot.status for slot in self.slots if slot.status is not None
            }
            granted = {slot: slot.granted for slot in statuses}
            allowances = (
                sharing.divide_budget(run_budget, statuses, granted, self._past_spent)
                if run_budget is not None
                else None
            )
            if (
                run_budget is not None
                and allowances is not None
                and statuses
                and allowances.exhausted
            ):
                raise budget_reached(run_budget.limit, allowances.spent)
            for slot, control in sharing.controls(
                number, statuses, bounds, allowances, self._urls()
            ).items():
                slot.control, slot.granted = (
                    control,
                    max(slot.granted, control.allowance or 0.0),
                )
            self._publish_status(statuses)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def _publish_status(self, statuses: Mapping[_Slot, Status]) -> None:
        tally, used = Tally(), self._past_usage
        tally.add(self._past_tally)
        for status in statuses.values():
            tally.add(status.tally)
            used += status.used
            for text in status.warnings:
                if text not in self._shown_warnings:
                    self._shown_warnings.add(text)
                    log.warning("%s", text)
        self._listener.on_totals(tally, used)
        spent = sum(status.spent for status in statuses.values())
        self._listener.on_status(all_gates(statuses.values()), spent or None)

    async def close(self) -> None:
        """Close the workers, waiting for their replies in flight."""
        closing = [
            asyncio.ensure_future(slot.handle.close.remote()) for slot in self.slots
        ]
        if closing:
            await asyncio.wait(closing, timeout=LEASE_SECONDS)
        for task in closing:
            if (
                task.done()
                and not task.cancelled()
                and (problem := task.exception()) is not None
            ):
                log.info(
                    "ray: a worker was gone before it could close (%s)",
                    _first_line(problem),
                )
        if self._marker is not None:
            (Path(self._job.ledger) / self._marker).unlink(missing_ok=True)


async def run(
    ray: Any,
    job: Job,
    shards: Iterable[Shard],
    workers: int | None,
    listener: ProgressListener,
    urls: CurrentUrls,
) -> AsyncGenerator[ShardDone, None]:
    """Play the shards on `workers` actors. The default is one per CPU of the cluster (one per
    node if models are embedded, since each actor loads its own), and more as nodes join."""
    embedded = any(provider_of(spec.reference).embedded for spec in job.models.values())
    initial_workers = workers or _default_workers(cluster.nodes(ray), embedded)
    worker_pool = WorkerPool(shards)
    ray_workers = _RayWorkers(ray, job, listener, urls, worker_pool, initial_workers)

    async def follow() -> None:
        started = initial_workers
        while not worker_pool.exhausted:
            await asyncio.sleep(NODE_POLL_SECONDS)
            missing = _default_workers(cluster.nodes(ray), embedded) - started
            if missing > 0 and not worker_pool.exhausted:
                log.info("ray: %d more workers on nodes that joined", missing)
                started += missing
                for _ in range(missing):
                    worker_pool.run_alongside(ray_workers.add_late_worker())

    try:
        worker_pool.run_alongside(ray_workers.run_control())
        await ray_workers.add_initial_workers(initial_workers)
        log.info(
            "ray: %d workers on %d node(s)", initial_workers, len(cluster.nodes(ray))
        )
        if not workers:
            worker_pool.run_alongside(follow())
        async with aclosing(worker_pool.results()) as finished:
            async for played in finished:
                yield played
    finally:
        await worker_pool.stop()
        await ray_workers.close()


class _Metrics:
    """Ray metrics, for its dashboard and Prometheus."""

    def __init__(self) -> None:
        from ray.util import metrics

        self._replies = metrics.Gauge(
            "simforge_replies", "Replies to a worker since its start."
        )
        self._tokens = metrics.Gauge(
            "simforge_tokens",
            "Tokens of a worker's replies since its start.",
            ("kind",),
        )
        self._dialogues = metrics.Gauge(
            "simforge_dialogues", "Dialogues of a worker since its start.", ("state",)
        )
        self._call_counts = metrics.Gauge(
            "simforge_calls", "Calls of a worker now, and its limit.", ("state",)
        )

    def update(self, status: Status) -> None:
        self._replies.set(status.used.calls)
        for kind in ("prompt", "cached", "completion"):
            self._tokens.set(getattr(status.used, f"{kind}_tokens"), {"kind": kind})
        self._dialogues.set(status.tally.dialogues, {"state": "ended"})
        self._dialogues.set(status.tally.failed, {"state": "failed"})
        states = [state for gates in status.gates.values() for state in gates.values()]
        self._call_counts.set(
            sum(state.demand for state in states), {"state": "wanted"}
        )
        self._call_counts.set(
            sum(state.limit for state in states), {"state": "allowed"}
        )


class _WarningCollector(logging.Handler):
    """Log handler that collects warnings, for the driver to show."""

    def __init__(self, warnings: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._warnings = warnings

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._warnings) < 100 and record.getMessage() not in self._warnings:
            self._warnings.append(record.getMessage())


def _create_marker(job: Job) -> str | None:
    """Create a marker file in the ledger folder; a worker that finds it sees the same folder as
    the driver."""
    if is_url(job.ledger):
        return None
    folder, name = Path(job.ledger), f".driver-{os.urandom(8).hex()}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    return name


def _default_workers(nodes: Mapping[str, Mapping[str, float]], embedded: bool) -> int:
    return (
        len(nodes)
        if embedded
        else max(1, int(sum(resources.get("CPU", 0) for resources in nodes.values())))
    )


def _cause(problem: Any) -> BaseException:
    cause = problem.cause
    return cause if isinstance(cause, SimForgeError | OSError) else problem


def _first_line(problem: BaseException | None) -> str:
    return next(iter(str(problem).splitlines()), type(problem).__name__)
