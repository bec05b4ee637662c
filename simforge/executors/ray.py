"""The `ray` executor: a pool of asynchronous worker actors, each an event loop with many dialogues in flight.

Actors pull shards, so nobody waits; a finished shard comes home as one message, and only the driver writes part files.
Once a second the driver tells each worker its part of what the run may use, and hears how it stands. That beat is also
the worker's claim: one that has not heard it for `LEASE` seconds stops by itself, since the driver, or the cluster's
belief in its node, may be gone while the process still runs. When a worker is lost its shards are played again, by a
new one and not before the old one's claim has run out; the new one reads the ledger, which has all that was answered,
so only the calls in flight are repeated.

Every message is safe to repeat: Ray may run one twice when its answer is lost. Retries of Ray's own are off, because a
replayed stream of results loses some and doubles others.
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

from simforge import money
from simforge.errors import ClusterLost, ModelError, SimForgeError, UsageError
from simforge.executors import BEAT, SHARDS, Crew, Urls, cluster, sharing
from simforge.ledger import PATIENCE, is_url
from simforge.models import SERVED
from simforge.models.admission import Bounds
from simforge.shards import Job, Orders, Report, Shard, ShardDone, Tally, Watch, Worker
from simforge.types import Usage

log = logging.getLogger("simforge")

CPUS = 0.001
"""CPUs an actor asks for: it waits for models most of the time, and one that asks for more than is left never starts.
With none at all Ray would place actors at random instead of spreading them."""
ATTEMPTS = 5
"Most times that one shard is started before its worker's death is taken for the shard's fault."
LEASE = 10.0
"Seconds for which a worker goes on without a word from the driver."
START = 180.0
"Seconds that a worker may take to start."
LATE = 120.0
"Seconds without an answer to a beat after which a worker counts as lost."
NODES = 5.0
"Seconds between two looks at the cluster's nodes."
AGAIN = 15.0
"Seconds before another worker is asked for where one could not be had."
MESSAGES = 16 * SHARDS
"Messages that an actor works at in turns: shards asked for again after a lost answer must not keep out the beat."


class RemoteWorker:
    """A worker inside an actor. Ray runs the coroutines of one actor in one event loop."""

    def __init__(self, job: Job, bounds: Bounds, keys: Mapping[str, str], proof: str | None) -> None:
        os.environ.update(keys)
        self._job, self._proof = replace(job, bounds=bounds), proof
        self._worker: Worker | None = None
        self._opening = asyncio.Lock()
        self._shards: dict[int, asyncio.Task[ShardDone]] = {}
        self._said: list[str] = []
        self._heard, self._silent = time.monotonic(), 0.0
        self._meters = _Meters()
        self._claim: asyncio.Task[None] | None = None

    async def open(self) -> str:
        """Load the models and read the ledger; gives the id of the node. Safe to repeat."""
        import ray

        async with self._opening:
            if self._worker is None:
                for handler in (logging.StreamHandler(), _Kept(self._said)):
                    logging.getLogger("simforge").addHandler(handler)
                self._sees_the_ledger()
                self._worker = await Worker.open(self._job, may=self._claimed)
                self._heard = time.monotonic()
                self._claim = asyncio.create_task(self._keep_claim())
        return str(ray.get_runtime_context().get_node_id())

    async def room(self) -> None:
        """Wait until there is a free place."""
        assert self._worker is not None
        await self._worker.room()

    async def play(self, shard: Shard) -> ShardDone:
        """Play a shard; asked twice, it is played once."""
        assert self._worker is not None
        if shard.number not in self._shards:
            self._shards[shard.number] = asyncio.create_task(self._worker.play(shard))
        return await asyncio.shield(self._shards[shard.number])

    async def beat(self, orders: Orders) -> Report:
        """Hear from the driver, and tell it how things stand."""
        self._heard, self._silent = time.monotonic(), 0.0
        assert self._worker is not None
        for number in orders.kept:
            self._shards.pop(number, None)
        report = replace(self._worker.obey(orders), said=tuple(self._said))
        self._meters.show(report)
        return report

    async def close(self) -> None:
        """Stop, and let replies under way come in."""
        for task in self._shards.values():
            task.cancel()
        if self._worker is not None:
            await self._worker.close()

    def _claimed(self) -> bool:
        """Whether calls may go out: the driver was heard lately, by the clock."""
        return time.monotonic() - self._heard < LEASE

    async def _keep_claim(self) -> None:
        """End this process once the driver is silent. Counted in ticks, since a process that was stopped for a while,
        and has made no calls, may go on when it is spoken to again."""
        while self._silent < LEASE:
            await asyncio.sleep(BEAT)
            self._silent += BEAT
        try:
            await asyncio.wait_for(self.close(), 2 * PATIENCE)
        finally:
            os._exit(1)

    def _sees_the_ledger(self) -> None:
        """Raise `UsageError` where this node has a ledger folder of its own: what is paid here would be lost."""
        if self._proof is None or is_url(self._job.ledger):
            return
        if not (Path(self._job.ledger) / self._proof).is_file():
            raise UsageError(
                f"the node {os.uname().nodename} does not see {self._job.ledger}: put --out on a file system that all "
                "nodes share, or give --ledger a URL, such as s3://bucket/run."
            )


@dataclass(eq=False)
class _Slot:
    """A place for one worker, refilled when the worker is lost."""

    pool: _Pool
    handle: Any
    report: Report | None = None
    "The worker's last."
    orders: Orders = field(default_factory=Orders)
    "The worker's next."
    promised: float = 0.0
    "The most that it has been told it may have spent and has not yet answered to."
    kept: dict[int, Tally] = field(default_factory=dict)
    "Shards that the worker has finished."
    sent: float = field(default_factory=time.monotonic)
    "When it was last spoken to."
    answered: float = field(default_factory=time.monotonic)
    "When it last answered."
    refilling: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def room(self) -> None:
        await self._asked(lambda worker: worker.room.remote(), "a worker without work")

    async def play(self, shard: Shard) -> ShardDone:
        done: ShardDone = await self._asked(lambda worker: worker.play.remote(shard), f"shard {shard.number}")
        self.kept[done.number] = done.tally
        return done

    async def _asked(self, ask: Callable[[Any], Any], what: str) -> Any:
        """The answer of the worker in this place, whichever that is."""
        errors, attempt = self.pool.ray.exceptions, 0
        while True:
            handle = self.handle
            try:
                return await ask(handle)
            except errors.ActorUnavailableError:
                await asyncio.sleep(BEAT)  # a message was lost, not the worker: it may be asked again
                continue
            except (errors.RayActorError, errors.OutOfMemoryError, errors.TaskCancelledError) as problem:
                lost: BaseException | None = problem
            except errors.ObjectLostError:
                lost = None  # the answer was lost on its way, and the worker has it still
            except errors.RayTaskError as problem:
                if not isinstance(problem.cause, errors.TaskCancelledError | asyncio.CancelledError):
                    raise _cause(problem) from None
                lost = problem  # the worker has stopped by itself
            attempt += 1
            if attempt == ATTEMPTS:
                raise ModelError(
                    f"{what} lost its worker {ATTEMPTS} times: {_first_line(lost)}. Look at the memory of the nodes "
                    "and at Ray's logs."
                )
            if lost is not None:
                await self._refill(handle, lost)

    async def beating(self) -> None:
        """Speak to the worker once a second, until cancelled. One that does not answer for long is ended, which whoever
        waits for it then finds out."""
        ray = self.pool.ray
        while True:
            handle, self.sent = self.handle, time.monotonic()
            try:
                said = replace(self.orders, kept=tuple(self.kept)[-1000:])
                report = await asyncio.wait_for(handle.beat.remote(said), LATE)
                if handle is self.handle:
                    self.report, self.answered = report, time.monotonic()
                    self.promised = self.orders.allowance or 0.0
            except (ray.exceptions.RayError, TimeoutError):
                if handle is self.handle and time.monotonic() - self.answered > LATE:
                    log.warning("ray: a worker has not answered for %.0f s and is given up", LATE)
                    ray.kill(handle)
                    self.answered = time.monotonic()
            await asyncio.sleep(max(0.0, self.sent + BEAT - time.monotonic()))

    async def _refill(self, lost: Any, problem: BaseException) -> None:
        """A new worker in the place of a lost one, once that can do nothing any more."""
        async with self.refilling:
            if self.handle is not lost:
                return
            log.warning("ray: a worker was lost (%s); its shards start again", _first_line(problem))
            there = self.pool.node_of(lost) in cluster.nodes(self.pool.ray)
            with contextlib.suppress(Exception):  # it may be dead already, or out of reach
                self.pool.ray.kill(lost)
            if not there:
                # The node is gone, as far as Ray knows; the process may live on until its claim has run out.
                await asyncio.sleep(max(0.0, self.sent + LEASE + 2 * BEAT - time.monotonic()))
            self.pool.lost(self)
            self.report, self.orders, self.promised, self.kept = None, Orders(), 0.0, {}
            self.handle = await self.pool.hire_again()
            self.answered = time.monotonic()


class _Pool:
    """The workers of a run, and what is known of all of them together."""

    def __init__(self, ray: Any, job: Job, watch: Watch, urls: Urls, crew: Crew, wanted: int) -> None:
        self.ray, self._job, self._watch, self._urls, self._crew = ray, job, watch, urls, crew
        self._wanted = wanted
        self.slots: list[_Slot] = []
        self._past = Tally()
        "Finished shards of workers that are no more."
        self._used = Usage()
        "Replies of workers that are no more."
        self._gone = 0.0
        "What workers that are no more have spent."
        self._heard: set[str] = set()
        self._nodes: dict[Any, str] = {}
        self._proof = _proof(job)
        keys = {spec.access.key for spec in job.models.values() if spec.reference.partition(":")[0] in SERVED}
        self._keys = ray.put({key: os.environ[key] for key in keys if key in os.environ})
        purse = replace(job.purse, spent=0.0, limit=float("inf"), allowance=0.0) if job.purse else None
        self._shared = ray.put(replace(job, purse=purse))
        self._actor = ray.remote(
            num_cpus=CPUS,
            max_concurrency=MESSAGES,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )(RemoteWorker)

    async def join(self, bounds: Bounds) -> None:
        """One more worker, which plays and is spoken to as soon as it is there."""
        slot = _Slot(self, await self._hire(bounds))
        self.slots.append(slot)
        self._crew.beside(slot.beating())
        self._crew.add(slot.room, slot.play)

    async def join_first(self, workers: int) -> None:
        """So many workers at the start: waits for the first of them. Raises what the last met where none can be had."""
        bounds = sharing.shared(self._job.bounds, workers)
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        missing = workers

        async def one() -> None:
            nonlocal missing
            try:
                await self.join(bounds)
            except Exception as problem:
                missing -= 1
                if first.done() and not isinstance(problem, SimForgeError):
                    raise
                if not first.done() and not (missing and isinstance(problem, SimForgeError)):
                    first.set_exception(problem)
                else:
                    log.warning("%s The others go on.", problem)
            else:
                if not first.done():
                    first.set_result(None)

        for _ in range(workers):
            self._crew.beside(one())
        await first

    async def join_later(self) -> None:
        """One more worker, on a node that has joined; the others go on without it where it cannot be had."""
        try:
            await self.join(sharing.waiting(self._job.bounds, self._wanted))
        except SimForgeError as problem:
            log.warning("%s The others go on.", problem)

    async def _hire(self, bounds: Bounds) -> Any:
        """A new worker, ready to play. Raises `UsageError` and `ModelError` where none can be had."""
        for _ in range(ATTEMPTS - 1):
            try:
                return await self._opened(bounds)
            except self.ray.exceptions.RayActorError as problem:
                log.warning("ray: a worker was lost as it started (%s); another is asked for", _first_line(problem))
        try:
            return await self._opened(bounds)
        except self.ray.exceptions.RayActorError as problem:
            raise ModelError(
                f"ray: no worker could start: {_first_line(problem)} See Ray's logs. Where they say InvalidAuthToken, "
                "set RAY_AUTH_MODE alike for this command and for every node's `ray start`."
            ) from None

    async def _opened(self, bounds: Bounds) -> Any:
        handle, errors = self._actor.remote(self._shared, bounds, self._keys, self._proof), self.ray.exceptions
        deadline = time.monotonic() + START
        while True:
            try:
                self._nodes[handle] = await asyncio.wait_for(handle.open.remote(), deadline - time.monotonic())
                return handle
            except errors.ActorUnavailableError:
                await asyncio.sleep(BEAT)
            except errors.RayTaskError as problem:
                raise _cause(problem) from None
            except (errors.RuntimeEnvSetupError, errors.ActorUnschedulableError) as problem:
                raise UsageError(f"ray: a worker cannot be set up: {_first_line(problem)}") from None
            except TimeoutError:
                self.ray.kill(handle)
                raise ModelError(f"ray: no node took a worker within {START:.0f} s. See `ray status`.") from None

    async def hire_again(self) -> Any:
        """A worker for a lost one. While others play on it is asked for again and again; raises `ClusterLost` where
        nobody is left."""
        while True:
            try:
                return await self._hire(sharing.waiting(self._job.bounds, self._wanted))
            except SimForgeError as problem:
                if all(slot.report is None for slot in self.slots):
                    raise ClusterLost(f"{problem} No worker is left. What was answered is kept.") from None
                log.warning("%s Asked again in %.0f s.", problem, AGAIN)
                await asyncio.sleep(AGAIN)

    def node_of(self, handle: Any) -> str | None:
        """The id of a worker's node, where that is known."""
        return self._nodes.get(handle)

    def lost(self, slot: _Slot) -> None:
        """Settle the accounts of a worker that is no more: of its dialogues, only those of finished shards count; of
        its money, what it told, and the most that its calls under way can have cost."""
        for tally in slot.kept.values():
            self._past.add(tally)
        if slot.report is not None:
            self._used += slot.report.used
            self._gone += slot.report.spent + slot.report.reserved

    async def leading(self) -> None:
        """Work out once a second what each worker may do, until cancelled."""
        purse, bounds = self._job.purse, self._job.bounds
        for number in itertools.count(1):
            reports = {slot: slot.report for slot in self.slots if slot.report is not None}
            promised = {slot: slot.promised for slot in reports}
            budget = sharing.budgeted(purse, reports, promised, self._gone) if purse is not None else None
            if purse is not None and budget is not None and reports and budget.reached:
                raise money.reached(purse.limit, budget.spent)
            for slot, orders in sharing.orders(number, reports, bounds, budget, self._urls()).items():
                slot.orders, slot.promised = orders, max(slot.promised, orders.allowance or 0.0)
            self._show(reports)
            await asyncio.sleep(BEAT)

    def _show(self, reports: Mapping[_Slot, Report]) -> None:
        tally, used = Tally(), self._used
        tally.add(self._past)
        for report in reports.values():
            tally.add(report.tally)
            used += report.used
            for text in report.said:
                if text not in self._heard:
                    self._heard.add(text)
                    log.warning("%s", text)
        self._watch.stands(tally, used)

    async def close(self) -> None:
        """Let the workers go, and what they wait for come in."""
        closing = [asyncio.ensure_future(slot.handle.close.remote()) for slot in self.slots]
        if closing:
            await asyncio.wait(closing, timeout=LEASE)
        for closed in closing:
            if closed.done() and not closed.cancelled() and (problem := closed.exception()) is not None:
                log.info("ray: a worker was gone before it could close (%s)", _first_line(problem))
        if self._proof is not None:
            (Path(self._job.ledger) / self._proof).unlink(missing_ok=True)


async def run(
    ray: Any, job: Job, shards: Iterable[Shard], workers: int | None, watch: Watch, urls: Urls
) -> AsyncGenerator[ShardDone, None]:
    """Play the shards on `workers` actors. By default there is one for each CPU of the cluster (one for each node where
    models are embedded, since each actor loads its own), and more as nodes join."""
    embedded = any(spec.reference.startswith("local:") for spec in job.models.values())
    wanted = workers or _fitting(cluster.nodes(ray), embedded)
    crew = Crew(shards)
    pool = _Pool(ray, job, watch, urls, crew, wanted)

    async def follow() -> None:
        known = wanted
        while not crew.over:
            await asyncio.sleep(NODES)
            missing = _fitting(cluster.nodes(ray), embedded) - known
            if missing > 0 and not crew.over:
                log.info("ray: %d more workers on nodes that joined", missing)
                known += missing
                for _ in range(missing):
                    crew.beside(pool.join_later())

    try:
        crew.beside(pool.leading())
        await pool.join_first(wanted)
        log.info("ray: %d workers on %d node(s)", wanted, len(cluster.nodes(ray)))
        if not workers:
            crew.beside(follow())
        async with aclosing(crew.results()) as finished:
            async for done in finished:
                yield done
    finally:
        await crew.stop()
        await pool.close()


class _Meters:
    """Ray's own metrics, for its dashboard and Prometheus."""

    def __init__(self) -> None:
        from ray.util import metrics

        self._calls = metrics.Gauge("simforge_replies", "Replies had by a worker since its start.")
        self._tokens = metrics.Gauge("simforge_tokens", "Tokens of a worker's replies since its start.", ("kind",))
        self._dialogues = metrics.Gauge("simforge_dialogues", "Dialogues of a worker since its start.", ("state",))
        self._places = metrics.Gauge("simforge_calls", "Calls of a worker now, and how many it may make.", ("state",))

    def show(self, report: Report) -> None:
        self._calls.set(report.used.calls)
        for kind in ("prompt", "cached", "completion"):
            self._tokens.set(getattr(report.used, f"{kind}_tokens"), {"kind": kind})
        self._dialogues.set(report.tally.dialogues, {"state": "ended"})
        self._dialogues.set(report.tally.failed, {"state": "failed"})
        states = [state for by_url in report.gates.values() for state in by_url.values()]
        self._places.set(sum(state.demand for state in states), {"state": "wanted"})
        self._places.set(sum(state.limit for state in states), {"state": "allowed"})


class _Kept(logging.Handler):
    """Keeps warnings, for the driver to say."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._said) < 100 and record.getMessage() not in self._said:
            self._said.append(record.getMessage())


def _proof(job: Job) -> str | None:
    """A file in the ledger's folder, by which a worker knows that it sees the same one as the driver."""
    if is_url(job.ledger):
        return None
    folder, name = Path(job.ledger), f".driver-{os.urandom(8).hex()}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    return name


def _fitting(nodes: Mapping[str, Mapping[str, float]], embedded: bool) -> int:
    return len(nodes) if embedded else max(1, int(sum(resources.get("CPU", 0) for resources in nodes.values())))


def _cause(problem: Any) -> BaseException:
    cause = problem.cause
    return cause if isinstance(cause, SimForgeError | OSError) else problem


def _first_line(problem: BaseException | None) -> str:
    return next(iter(str(problem).splitlines()), type(problem).__name__)
