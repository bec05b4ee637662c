"""Shards: slices of the plan. A shard is the unit of scheduling and of retry, and becomes one
part file.

A `Job` holds everything a worker needs to play any shard, as one picklable value. A `Worker` is
a job opened in a process: models loaded, ledger read. It plays shards with a limited number of
dialogues in flight over all of them, so the end of one shard overlaps the start of the next,
and no shard waits for a slow dialogue of another.
"""

from __future__ import annotations

import asyncio
import gc
import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import pyarrow as pa

from simforge.dataset import tables
from simforge.dialogue.play import play
from simforge.identity import canonical
from simforge.models import providers
from simforge.models.budget import Budget
from simforge.models.calls import Roles
from simforge.models.contract import Model, ModelSpec
from simforge.models.ledger import Ledger
from simforge.models.rate_limits import UNLIMITED, Bounds, GateState
from simforge.recipe.setup import Setup
from simforge.types import Ending, Episode, JsonObject, Role, Scenario, Usage

MAX_PROBLEMS = 20
"Most different messages of failed calls that are kept with a part."


POLL_SECONDS = 0.1
"Seconds between two checks of whether calls are allowed."


@dataclass(frozen=True, slots=True)
class Shard:
    """A slice of the plan."""

    number: int
    scenarios: tuple[Scenario, ...]


@dataclass(frozen=True, slots=True)
class Job:
    """The settings for playing shards, as a value."""

    setup: Setup
    models: dict[Role, ModelSpec]
    ledger: Path | str
    "Folder of the run's ledger, or its URL."
    reuse: tuple[Path | str, ...]
    "Ledger folders of older runs."
    concurrency: int
    "Dialogues in flight in one worker."
    budget: Budget | None = None
    "Budget of the run; the ledger's replies count as spent. Each worker gets a share."
    bounds: Bounds = UNLIMITED
    "Limits of this worker for each model's endpoint."


@dataclass(slots=True)
class Tally:
    """Counts of played dialogues. Tallies can be added up."""

    dialogues: int = 0
    turns: int = 0
    pairs: int = 0
    failed: int = 0
    "Dialogues lost to failed calls."
    discards: Counter[str] = field(default_factory=Counter)
    usage: dict[str, Usage] = field(default_factory=dict)
    "Usage by role, including replies from the ledger."
    problems: Counter[str] = field(default_factory=Counter)
    "Messages of the failed calls that lost dialogues, without their URLs."

    def add(self, other: Tally) -> None:
        self.dialogues += other.dialogues
        self.turns += other.turns
        self.pairs += other.pairs
        self.failed += other.failed
        self.discards += other.discards
        self.problems += other.problems
        self.add_usage(other.usage)

    def add_usage(self, usage: Mapping[Role, Usage]) -> None:
        """Add calls and tokens, by role."""
        for role, used in usage.items():
            self.usage[role] = self.usage.get(role, Usage()) + used

    @classmethod
    def of(cls, episode: Episode) -> Tally:
        return cls(
            dialogues=1,
            turns=sum(len(branch.own_turns) for branch in episode.branches),
            pairs=sum(len(branch.pairs) for branch in episode.branches),
            failed=int(
                any(branch.ending == Ending.model_error for branch in episode.branches)
            ),
            discards=Counter(
                discard.reason
                for branch in episode.branches
                for discard in branch.discards
            ),
            usage=episode.usage,
            problems=Counter(
                re.sub(r"https?://\S+", "the server", discard.detail)
                for branch in episode.branches
                for discard in branch.discards
                if discard.reason == Ending.model_error
            ),
        )

    @property
    def commonest_problem(self) -> str:
        """The commonest reason why dialogues were lost, as a sentence; empty if none were."""
        if not self.problems:
            return ""
        problem, count = self.problems.most_common(1)[0]
        return f"{count} of them: {problem.rstrip('.')}."

    def as_dict(self) -> JsonObject:
        plain = {
            "dialogues": self.dialogues,
            "turns": self.turns,
            "pairs": self.pairs,
            "failed": self.failed,
        }
        usage = {role: list(astuple(used)) for role, used in self.usage.items()}
        return {
            **plain,
            "discards": dict(self.discards),
            "usage": usage,
            "problems": dict(self.problems.most_common(MAX_PROBLEMS)),
        }

    @classmethod
    def from_dict(cls, plain: JsonObject) -> Tally:
        values = dict(plain)
        usage = {role: Usage(*used) for role, used in values.pop("usage").items()}
        return cls(
            discards=Counter(values.pop("discards")),
            usage=usage,
            problems=Counter(values.pop("problems")),
            **values,
        )


@dataclass(frozen=True, slots=True)
class ShardDone:
    """A played shard: its part as the bytes of an Arrow file, and its counts."""

    number: int
    part: bytes
    tally: Tally


@dataclass(frozen=True, slots=True)
class Share:
    """A worker's share of what all workers may do at one URL."""

    factor: float
    "Factor by which the limit of the worker's gate changes."
    max_in_flight: float
    "Maximum number of calls in flight."


@dataclass(frozen=True, slots=True)
class Control:
    """Settings that the driver sends to a worker every second. A worker applies each number
    only once."""

    number: int = 0
    allowance: float | None = None
    "Amount that the worker may spend in total, if there is a budget."
    shares: Mapping[str, Mapping[str, Share]] = field(default_factory=dict)
    "Shares by model reference and URL."
    rates: Mapping[str, float] = field(default_factory=dict)
    "Tokens per second, by model reference."
    urls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    "Current URLs of models whose URLs can change, by reference."
    saved: tuple[int, ...] = ()
    "Shards whose results the driver has received."


@dataclass(frozen=True, slots=True)
class Status:
    """The answer of a worker to a control message. Counts start at the worker's start, so a
    status may be lost or arrive twice."""

    tally: Tally
    "Counts of the dialogues that ended."
    used: Usage
    "Usage of all replies, from models and from the ledger."
    spent: float
    "Amount spent."
    reserved: float
    "Maximum cost of the calls in flight."
    short: float
    "Maximum cost of its cheapest waiting call, if none is in flight."
    allowance: float
    "Amount that it may spend in total, as last received."
    gates: Mapping[str, Mapping[str, GateState]]
    "Gate states by model reference and URL."
    warnings: tuple[str, ...]
    "Logged warnings, in order."


class ProgressListener(Protocol):
    """Receiver of progress events."""

    def on_reply(self, used: Usage) -> None:
        """Called when a model (or the ledger) has replied."""

    def on_played(self, tally: Tally) -> None:
        """Called when dialogues have ended."""

    def on_totals(self, tally: Tally, used: Usage) -> None:
        """Called with the totals since the start of this process, when many workers play."""

    def on_status(self, gates: Sequence[GateState], spent: float | None) -> None:
        """Called regularly with the state of all endpoints, and the amount spent since the
        start of this process; `None` if it is not counted."""


@runtime_checkable
class GatedModel(Protocol):
    """A model with gates, such as `simforge.models.endpoint.Endpoint`."""

    @property
    def gates(self) -> Mapping[str, GateState]: ...
    def set_urls(self, urls: tuple[str, ...]) -> None: ...
    def set_share(self, url: str, factor: float, max_in_flight: float) -> None: ...
    def set_token_rate(self, rate: float) -> None: ...


class Worker:
    """A job, opened in this process."""

    def __init__(
        self, job: Job, roles: Roles, listener: ProgressListener | None = None
    ) -> None:
        self._job, self._roles, self._listener = job, roles, listener
        self._slots = asyncio.Semaphore(job.concurrency)
        self._unfinished = 0
        "Number of scenarios that were accepted and have not ended."
        self._ended = asyncio.Event()
        self._tally, self._used = Tally(), Usage()
        self._last_control = 0
        self._thresholds = gc.get_threshold()

    @classmethod
    async def open(
        cls,
        job: Job,
        listener: ProgressListener | None = None,
        calls_allowed: Callable[[], bool] | None = None,
    ) -> Worker:
        """Load the models and read the ledger. No endpoint is called while `calls_allowed()` is
        false."""
        opened: dict[str, Model] = {}

        async def admit() -> None:
            while calls_allowed is not None and not calls_allowed():
                await asyncio.sleep(POLL_SECONDS)

        for spec in job.models.values():
            if spec.reference not in opened:
                opened[spec.reference] = await providers.open_model(
                    spec, admit if calls_allowed else None, job.bounds
                )
        ledger = await asyncio.to_thread(Ledger, job.ledger, job.reuse)
        by_role = {
            role: (spec, opened[spec.reference]) for role, spec in job.models.items()
        }
        worker = cls(
            job, Roles(by_role, ledger, job.setup.seed, None, job.budget), listener
        )
        worker._roles.on_reply = worker._record_reply
        worker._thresholds = gc.get_threshold()
        # Most objects live long and are in no cycles; scanning them took 40 % of a run.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 10, 10)
        return worker

    async def close(self) -> None:
        """Close the models' connections and the ledger."""
        gc.unfreeze()
        gc.set_threshold(*self._thresholds)
        await self._roles.ledger.drain()
        for model in self._models().values():
            await model.close()
        self._roles.ledger.close()

    def apply(self, control: Control) -> Status:
        """Apply a control message and return the worker's status."""
        gated = {
            name: model
            for name, model in self._models().items()
            if isinstance(model, GatedModel)
        }
        budget = self._job.budget
        if control.number > self._last_control:
            self._last_control = control.number
            for reference, model in gated.items():
                if reference in control.urls:
                    model.set_urls(control.urls[reference])
                for url, share in control.shares.get(reference, {}).items():
                    model.set_share(url, share.factor, share.max_in_flight)
                if reference in control.rates:
                    model.set_token_rate(control.rates[reference])
            if budget is not None and control.allowance is not None:
                budget.allowance = control.allowance
        gates = {name: dict(model.gates) for name, model in gated.items()}
        if budget is None:
            return Status(self._tally, self._used, 0.0, 0.0, 0.0, 0.0, gates, ())
        allowance = budget.allowance or 0.0
        return Status(
            self._tally,
            self._used,
            budget.spent,
            budget.reserved,
            budget.shortfall,
            allowance,
            gates,
            (),
        )

    def _models(self) -> dict[str, Model]:
        return {spec.reference: model for spec, model in self._roles.models.values()}

    def _record_reply(self, used: Usage) -> None:
        self._used += used
        if self._listener is not None:
            self._listener.on_reply(used)

    async def wait_for_slot(self) -> None:
        """Wait until a slot is free."""
        while self._unfinished >= self._job.concurrency:
            self._ended.clear()
            await self._ended.wait()

    async def play(self, shard: Shard) -> ShardDone:
        """Play a shard. Its rows are in the plan's order, whatever the order in which the
        dialogues ended."""
        self._unfinished += len(shard.scenarios)
        tasks = [
            asyncio.create_task(self._play_scenario(scenario))
            for scenario in shard.scenarios
        ]
        try:
            episodes = await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            raise
        tally = Tally()
        for episode in episodes:
            tally.add(Tally.of(episode))
        return ShardDone(shard.number, self._encode_part(episodes, tally), tally)

    async def _play_scenario(self, scenario: Scenario) -> Episode:
        try:
            async with self._slots:
                episode = await play(scenario, self._job.setup, self._roles)
        finally:
            self._unfinished -= 1
            self._ended.set()
        tally = Tally.of(episode)
        self._tally.add(tally)
        if self._listener is not None:
            self._listener.on_played(tally)
        return episode

    def _encode_part(self, episodes: list[Episode], tally: Tally) -> bytes:
        user = self._job.models.get("user")
        rows_by_table: dict[str, list[dict[str, object]]] = {
            name: [] for name in tables.SCHEMAS
        }
        for episode in episodes:
            for table_name, rows in tables.rows(
                episode, self._job.setup.space, user.reference if user else None
            ).items():
                rows_by_table[table_name] += rows
        table = tables.to_part(rows_by_table).replace_schema_metadata(
            {"tally": canonical(tally.as_dict())}
        )
        sink = io.BytesIO()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()
