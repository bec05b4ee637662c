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
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from simforge import money
from simforge.errors import ModelError, SimForgeError, UsageError
from simforge.executors import BEAT, SHARDS, Crew, Urls, cluster, sharing
from simforge.ledger import is_url
from simforge.models import SERVED
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
PROOF = ".driver"
"File in the ledger's folder by which a worker knows that it sees the same one as the driver."


class RemoteWorker:
    """A worker inside an actor. Ray runs the coroutines of one actor in one event loop."""

    def __init__(self, job: Job, keys: Mapping[str, str], proof: str | None) -> None:
        os.environ.update(keys)
        self._job, self._proof = job, proof
        self._worker: Worker | None = None
        self._opening = asyncio.Lock()
        self._shards: dict[int, asyncio.Task[ShardDone]] = {}
        self._said: list[str] = []
        self._silent = 0.0
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
                self._worker = await Worker.open(self._job)
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
        self._silent = 0.0
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

    async def _keep_claim(self) -> None:
        """End this process once the driver is silent. Counted in ticks: a process that was stopped has not refused."""
        while self._silent < LEASE:
            await asyncio.sleep(BEAT)
            self._silent += BEAT
        await self.close()
        os._exit(1)

    def _sees_the_ledger(self) -> None:
        """Raise `UsageError` where this node has a ledger folder of its own: what is paid here would be lost."""
        if self._proof is None or is_url(self._job.ledger):
            return
        seen = Path(self._job.ledger) / PROOF
        if not seen.is_file() or seen.read_text(encoding="utf-8") != self._proof:
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
    sent: float = field(default_factory=time.monotonic)
    "When it was last spoken to."
    answered: float = field(default_factory=time.monotonic)
    "When it last answered."
    refilling: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def room(self) -> None:
        await self._asked(lambda worker: worker.room.remote(), "a worker")

    async def play(self, shard: Shard) -> ShardDone:
        done: ShardDone = await self._asked(lambda worker: worker.play.remote(shard), f"shard {shard.number}")
        self.pool.finished(self, done)
        return done

    async def _asked(self, ask: Callable[[Any], Any], what: str) -> Any:
        """The answer of the worker in this place, whichever that is."""
        ray, attempt = self.pool.ray, 0
        while True:
            handle = self.handle
            try:
                return await ask(handle)
            except ray.exceptions.RayTaskError as problem:
                raise _cause(problem) from None
            except ray.exceptions.ActorUnavailableError:
                await asyncio.sleep(BEAT)  # a message was lost, not the worker: it may be asked again
            except ray.exceptions.RayActorError as problem:
                attempt += 1
                if attempt == ATTEMPTS:
                    raise ModelError(
                        f"{what} lost its worker {ATTEMPTS} times: {_first_line(problem)}. Look at the memory of the "
                        "nodes and at Ray's logs."
                    ) from None
                await self._refill(handle, problem)

    async def beat(self) -> None:
        """One exchange with the worker. One that does not answer for long is ended, which `play` then finds out."""
        ray, handle = self.pool.ray, self.handle
        self.sent = time.monotonic()
        try:
            report = await asyncio.wait_for(handle.beat.remote(self.orders), LATE)
            if handle is self.handle:
                self.report, self.answered = report, time.monotonic()
        except (ray.exceptions.RayError, TimeoutError):
            if handle is self.handle and time.monotonic() - self.answered > LATE:
                log.warning("ray: a worker has not answered for %.0f s and is given up", LATE)
                ray.kill(handle)
                self.answered = time.monotonic()

    async def _refill(self, lost: Any, problem: BaseException) -> None:
        """A new worker in the place of a lost one, once that can do nothing any more."""
        async with self.refilling:
            if self.handle is not lost:
                return
            log.warning("ray: a worker was lost (%s); its shards start again", _first_line(problem))
            node = self.pool.node_of(lost)
            if node is None or node not in cluster.nodes(self.pool.ray):
                # The node is gone, as far as Ray knows; the process may live on until its claim has run out.
                await asyncio.sleep(max(0.0, self.sent + LEASE + 2 * BEAT - time.monotonic()))
            self.pool.lost(self)
            self.report, self.orders = None, replace(self.orders, kept=())
            self.handle = await self.pool.hire()
            self.answered = time.monotonic()


class _Pool:
    """The workers of a run, and what is known of all of them together."""

    def __init__(self, ray: Any, job: Job, watch: Watch, urls: Urls, wanted: int) -> None:
        self.ray, self._job, self._watch, self._urls = ray, job, watch, urls
        self.slots: list[_Slot] = []
        self._kept: dict[_Slot, dict[int, Tally]] = {}
        "Finished shards of the worker that is in a slot."
        self._past = Tally()
        "Finished shards of workers that are no more."
        self._used = Usage()
        "Replies of workers that are no more."
        self._gone = 0.0
        "What workers that are no more may have spent."
        self._heard: set[str] = set()
        self._nodes: dict[Any, str] = {}
        self._proof = _proof(job)
        keys = {spec.access.key for spec in job.models.values() if spec.reference.partition(":")[0] in SERVED}
        self._keys = ray.put({key: os.environ[key] for key in keys if key in os.environ})
        part = sharing.shared(job.bounds, wanted)
        purse = replace(job.purse, spent=0.0, limit=float("inf"), allowance=0.0) if job.purse else None
        self._shared = ray.put(replace(job, purse=purse, bounds=part))
        self._actor = ray.remote(
            num_cpus=CPUS, max_concurrency=SHARDS + 8, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )(RemoteWorker)

    async def hire(self) -> Any:
        """A new worker, ready to play."""
        handle, errors = self._actor.remote(self._shared, self._keys, self._proof), self.ray.exceptions
        deadline = time.monotonic() + START
        while True:
            try:
                self._nodes[handle] = await asyncio.wait_for(handle.open.remote(), deadline - time.monotonic())
                return handle
            except errors.ActorUnavailableError:
                await asyncio.sleep(BEAT)
            except errors.RayTaskError as problem:
                raise _cause(problem) from None
            except errors.RayActorError as problem:
                raise ModelError(f"ray: a worker could not start: {_first_line(problem)}. See Ray's logs.") from None
            except TimeoutError:
                raise ModelError(f"ray: no node took a worker within {START:.0f} s. See `ray status`.") from None

    def node_of(self, handle: Any) -> str | None:
        """The id of a worker's node, where that is known."""
        return self._nodes.get(handle)

    def finished(self, slot: _Slot, done: ShardDone) -> None:
        """A shard has come home."""
        self._kept.setdefault(slot, {})[done.number] = done.tally
        slot.orders = replace(slot.orders, kept=(*slot.orders.kept, done.number))

    def lost(self, slot: _Slot) -> None:
        """Settle the accounts of a worker that is no more: of its dialogues, only those of finished shards count."""
        for tally in self._kept.pop(slot, {}).values():
            self._past.add(tally)
        if slot.report is not None:
            self._used += slot.report.used
        self._gone += slot.orders.allowance or 0.0

    async def beating(self, crew: Crew) -> None:
        """Speak to every worker once a second, until cancelled."""
        purse = self._job.purse
        while True:
            began = time.monotonic()
            await asyncio.gather(*(slot.beat() for slot in self.slots))
            reports = {slot: slot.report for slot in self.slots if slot.report is not None}
            budget = None
            if purse is not None:
                budget = sharing.budgeted(purse, reports, self._gone, sum(r.used.calls for r in reports.values()))
                if budget.reached:
                    crew.fail(money.reached(purse.limit, purse.limit - budget.left))
            told = sharing.orders(reports, self._job.bounds, budget, self._urls())
            for slot, orders in told.items():
                slot.orders = replace(orders, kept=slot.orders.kept[-1000:])
            self._show(reports)
            await asyncio.sleep(max(0.0, BEAT - (time.monotonic() - began)))

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


async def run(
    ray: Any,
    job: Job,
    shards: Iterable[Shard],
    workers: int | None,
    watch: Watch,
    urls: Urls,
) -> AsyncGenerator[ShardDone, None]:
    """Play the shards on `workers` actors. By default there is one for each CPU of the cluster (one for each node where
    models are embedded, since each actor loads its own), and more as nodes join; a number that is asked for is also
    asked of the cluster's autoscaler."""
    embedded = any(spec.reference.startswith("local:") for spec in job.models.values())
    wanted = workers or _fitting(cluster.nodes(ray), embedded)
    pool = _Pool(ray, job, watch, urls, wanted)
    crew = Crew(shards)
    if workers:
        _ask_for(ray, workers)

    async def grow(number: int) -> None:
        handles = await asyncio.gather(*(pool.hire() for _ in range(number)))
        for handle in handles:
            slot = _Slot(pool, handle)
            pool.slots.append(slot)
            crew.add(slot.room, slot.play)

    async def follow() -> None:
        while not crew.over:
            await asyncio.sleep(NODES)
            missing = _fitting(cluster.nodes(ray), embedded) - len(pool.slots)
            if missing > 0 and not crew.over:
                log.info("ray: %d more workers on nodes that joined", missing)
                await grow(missing)

    tasks: list[asyncio.Task[None]] = []
    try:
        await grow(wanted)
        log.info("ray: %d workers on %d node(s)", wanted, len(cluster.nodes(ray)))
        tasks.append(asyncio.create_task(pool.beating(crew)))
        if not workers:
            tasks.append(asyncio.create_task(follow()))
        for task in tasks:
            task.add_done_callback(lambda ended: _pass_on(ended, crew))
        async with aclosing(crew.results()) as finished:
            async for done in finished:
                yield done
    finally:
        for task in tasks:
            task.cancel()
        closing = [asyncio.ensure_future(slot.handle.close.remote()) for slot in pool.slots]
        if closing:
            await asyncio.wait(closing, timeout=LEASE)
        for closed in closing:
            if closed.done() and not closed.cancelled():
                closed.exception()
        if workers:
            _ask_for(ray, 0)


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
    """A word in the ledger's folder that workers look for."""
    if is_url(job.ledger):
        return None
    folder, word = Path(job.ledger), os.urandom(8).hex()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PROOF).write_text(word, encoding="utf-8")
    return word


def _fitting(nodes: Mapping[str, Mapping[str, float]], embedded: bool) -> int:
    return len(nodes) if embedded else max(1, int(sum(resources.get("CPU", 0) for resources in nodes.values())))


def _ask_for(ray: Any, cpus: int) -> None:
    """Tell an autoscaler, where there is one, how many CPUs the workers will keep busy."""
    try:
        ray.autoscaler.sdk.request_resources(num_cpus=cpus)
    except Exception as problem:  # a cluster without an autoscaler may not know the request
        log.debug("ray: no autoscaler was asked: %s", problem)


def _pass_on(ended: asyncio.Task[None], crew: Crew) -> None:
    """A failure beside the workers stops the run like one of theirs."""
    if not ended.cancelled() and (problem := ended.exception()) is not None:
        crew.fail(problem)


def _cause(problem: Any) -> BaseException:
    cause = problem.cause
    return cause if isinstance(cause, SimForgeError | OSError) else problem


def _first_line(problem: BaseException) -> str:
    return next(iter(str(problem).splitlines()), type(problem).__name__)
