"""Shards: slices of the plan, each the unit of scheduling, of retry, and one part file.

A `Job` is everything a worker needs to play any shard, as one picklable value. A `Worker` is a job opened in a
process: models loaded, ledger read. It plays shards with a bounded number of dialogues in flight over all of them,
so the end of one shard overlaps the start of the next and nobody waits for a straggler.
"""

from __future__ import annotations

import asyncio
import gc
import io
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from simforge import models, records
from simforge.dialogue import play
from simforge.identity import canonical
from simforge.ledger import Ledger
from simforge.models import Model, ModelSpec
from simforge.models.admission import FREE, Bounds, GateState
from simforge.money import Purse
from simforge.roles import Roles
from simforge.script import Script
from simforge.types import Ending, Episode, Role, Scenario, Usage

WAIT = 0.1
"Seconds between two looks whether calls may go out."


@dataclass(frozen=True, slots=True)
class Shard:
    """A slice of the plan."""

    number: int
    scenarios: tuple[Scenario, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """How to play shards, as a value."""

    script: Script
    models: dict[Role, ModelSpec]
    ledger: Path | str
    "Folder of the run's ledger, or a URL."
    reuse: tuple[Path | str, ...]
    "Ledger folders of older runs."
    concurrency: int
    "Dialogues in flight in one worker."
    purse: Purse | None = None
    "What the run may still spend, with what its ledger holds as spent; each of several workers gets its share."
    bounds: Bounds = FREE
    "What each model's endpoint may be asked, by this worker."


@dataclass(slots=True)
class Tally:
    """Counts of what was played. Adds up."""

    dialogues: int = 0
    turns: int = 0
    pairs: int = 0
    failed: int = 0
    "Dialogues lost to failed calls."
    discards: Counter[str] = field(default_factory=Counter)
    usage: dict[str, Usage] = field(default_factory=dict)
    "By role, replies from the ledger included."

    def add(self, other: Tally) -> None:
        self.dialogues += other.dialogues
        self.turns += other.turns
        self.pairs += other.pairs
        self.failed += other.failed
        self.discards += other.discards
        for role, used in other.usage.items():
            self.usage[role] = self.usage.get(role, Usage()) + used

    @classmethod
    def of(cls, episode: Episode) -> Tally:
        return cls(
            dialogues=1,
            turns=sum(len(line.own) for line in episode.lines),
            pairs=sum(len(line.pairs) for line in episode.lines),
            failed=int(any(line.ending == Ending.model_error for line in episode.lines)),
            discards=Counter(discard.reason for line in episode.lines for discard in line.discards),
            usage=episode.usage,
        )

    def as_dict(self) -> dict[str, Any]:
        plain = {"dialogues": self.dialogues, "turns": self.turns, "pairs": self.pairs, "failed": self.failed}
        usage = {role: list(astuple(used)) for role, used in self.usage.items()}
        return {**plain, "discards": dict(self.discards), "usage": usage}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Tally:
        values = dict(plain)
        usage = {role: Usage(*used) for role, used in values.pop("usage").items()}
        return cls(discards=Counter(values.pop("discards")), usage=usage, **values)


@dataclass(frozen=True, slots=True)
class ShardDone:
    """A played shard: its part as the bytes of an Arrow file, and its counts."""

    number: int
    part: bytes
    tally: Tally


@dataclass(frozen=True, slots=True)
class Share:
    """A worker's part of what all workers may do at one URL."""

    factor: float
    "Of the limit that its gate has."
    most: float
    "Calls in flight."


@dataclass(frozen=True, slots=True)
class Orders:
    """What the driver tells a worker, every second. Orders of a number that was obeyed are not obeyed again."""

    number: int = 0
    allowance: float | None = None
    "Money that the worker may have spent, if there is a budget."
    shares: Mapping[str, Mapping[str, Share]] = field(default_factory=dict)
    "By model reference and URL."
    rates: Mapping[str, float] = field(default_factory=dict)
    "Tokens a second, by model reference."
    urls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    "Where models are that move, by reference."
    kept: tuple[int, ...] = ()
    "Shards that are safe at home."


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker answers. Counts are since its start, so that a report may be lost or come twice."""

    tally: Tally
    "Of the dialogues that ended."
    used: Usage
    "Replies had, from models and from the ledger."
    spent: float
    "Money."
    reserved: float
    "The most that its calls under way can cost."
    short: float
    "What its cheapest waiting call needs, where none is under way."
    allowance: float
    "What it may have spent, as it was last told."
    gates: Mapping[str, Mapping[str, GateState]]
    "By model reference and URL."
    said: tuple[str, ...]
    "Warnings, in order."


class Watch(Protocol):
    """Who hears of progress."""

    def replied(self, used: Usage) -> None:
        """A model replied (or the ledger did)."""

    def played(self, tally: Tally) -> None:
        """Dialogues ended."""

    def stands(self, tally: Tally, used: Usage) -> None:
        """How things stand since this start, where many workers play."""


@runtime_checkable
class Gated(Protocol):
    """A model behind gates, as `simforge.models.endpoint.Endpoint` is."""

    @property
    def gates(self) -> Mapping[str, GateState]: ...
    def move(self, urls: tuple[str, ...]) -> None: ...
    def share(self, url: str, factor: float, most: float) -> None: ...
    def keep_pace(self, rate: float) -> None: ...


class Worker:
    """A job, opened in this process."""

    def __init__(self, job: Job, roles: Roles, watch: Watch | None = None) -> None:
        self._job, self._roles, self._watch = job, roles, watch
        self._places = asyncio.Semaphore(job.concurrency)
        self._open = 0
        "Scenarios that were taken on and have not ended."
        self._ended = asyncio.Event()
        self._tally, self._used = Tally(), Usage()
        self._obeyed = 0
        self._thresholds = gc.get_threshold()

    @classmethod
    async def open(cls, job: Job, watch: Watch | None = None, may: Callable[[], bool] | None = None) -> Worker:
        """Load the models and read the ledger. No endpoint is asked while `may` says no."""
        opened: dict[str, Model] = {}

        async def admit() -> None:
            while may is not None and not may():
                await asyncio.sleep(WAIT)

        for spec in job.models.values():
            if spec.reference not in opened:
                opened[spec.reference] = await models.open_model(spec, admit if may else None, job.bounds)
        ledger = await asyncio.to_thread(Ledger, job.ledger, job.reuse)
        by_role = {role: (spec, opened[spec.reference]) for role, spec in job.models.items()}
        found = cls(job, Roles(by_role, ledger, job.script.seed, None, job.purse), watch)
        found._roles.on_reply = found._replied
        found._thresholds = gc.get_threshold()
        # Most of what lives here lives long and in no cycles: looking through it all the time took 40 % of a run.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 10, 10)
        return found

    async def close(self) -> None:
        """Let go of the models' connections and the ledger."""
        gc.unfreeze()
        gc.set_threshold(*self._thresholds)
        await self._roles.ledger.drain()
        for model in self._models().values():
            await model.close()
        self._roles.ledger.close()

    def obey(self, orders: Orders) -> Report:
        """Take orders, and tell how things stand."""
        gated = {name: model for name, model in self._models().items() if isinstance(model, Gated)}
        purse = self._job.purse
        if orders.number > self._obeyed:
            self._obeyed = orders.number
            for reference, model in gated.items():
                if reference in orders.urls:
                    model.move(orders.urls[reference])
                for url, share in orders.shares.get(reference, {}).items():
                    model.share(url, share.factor, share.most)
                if reference in orders.rates:
                    model.keep_pace(orders.rates[reference])
            if purse is not None and orders.allowance is not None:
                purse.allowance = orders.allowance
        gates = {name: dict(model.gates) for name, model in gated.items()}
        if purse is None:
            return Report(self._tally, self._used, 0.0, 0.0, 0.0, 0.0, gates, ())
        allowance = purse.allowance or 0.0
        return Report(self._tally, self._used, purse.spent, purse.reserved, purse.short, allowance, gates, ())

    def _models(self) -> dict[str, Model]:
        return {spec.reference: model for spec, model in self._roles.models.values()}

    def _replied(self, used: Usage) -> None:
        self._used += used
        if self._watch is not None:
            self._watch.replied(used)

    async def room(self) -> None:
        """Wait until there is a free place."""
        while self._open >= self._job.concurrency:
            self._ended.clear()
            await self._ended.wait()

    async def play(self, shard: Shard) -> ShardDone:
        """Play a shard; its rows are in the plan's order, whatever order the dialogues ended in."""
        self._open += len(shard.scenarios)
        tasks = [asyncio.create_task(self._one(scenario)) for scenario in shard.scenarios]
        try:
            episodes = await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            raise
        tally = Tally()
        for episode in episodes:
            tally.add(Tally.of(episode))
        return ShardDone(shard.number, self._part(episodes, tally), tally)

    async def _one(self, scenario: Scenario) -> Episode:
        try:
            async with self._places:
                episode = await play(scenario, self._job.script, self._roles)
        finally:
            self._open -= 1
            self._ended.set()
        ended = Tally.of(episode)
        self._tally.add(ended)
        if self._watch is not None:
            self._watch.played(ended)
        return episode

    def _part(self, episodes: list[Episode], tally: Tally) -> bytes:
        user = self._job.models.get("user")
        found: dict[str, list[dict[str, object]]] = {name: [] for name in records.SCHEMAS}
        for episode in episodes:
            for name, rows in records.rows(episode, self._job.script.space, user.reference if user else None).items():
                found[name] += rows
        table = records.part(found).replace_schema_metadata({"tally": canonical(tally.as_dict())})
        sink = io.BytesIO()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()
