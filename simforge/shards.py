"""Shards: slices of the plan, each the unit of scheduling, of retry, and one part file.

A `Job` is everything a worker needs to play any shard, as one picklable value. A `Worker` is a job opened in a
process: models loaded, ledger read. It plays shards with a bounded number of dialogues in flight over all of them,
so the end of one shard overlaps the start of the next and nobody waits for a straggler.
"""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from simforge import models, records
from simforge.dialogue import Script, play
from simforge.identity import canonical
from simforge.ledger import Ledger
from simforge.models import Model, ModelSpec
from simforge.money import Purse
from simforge.roles import Roles
from simforge.types import Ending, Episode, Role, Scenario, Usage


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
    ledger: Path
    "Folder of the run's ledger."
    reuse: tuple[Path, ...]
    "Ledger folders of older runs."
    concurrency: int
    "Dialogues in flight in one worker."
    purse: Purse | None = None
    "What the run may still spend, with what its ledger holds as spent; each of several workers gets its share."


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
            turns=len(episode.turns),
            pairs=len(episode.pairs),
            failed=int(episode.ending == Ending.model_error),
            discards=Counter(discard.reason for discard in episode.discards),
            usage=dict(episode.usage),
        )

    def as_dict(self) -> dict[str, Any]:
        plain = {"dialogues": self.dialogues, "turns": self.turns, "pairs": self.pairs, "failed": self.failed}
        usage = {
            role: [used.calls, used.prompt_tokens, used.cached_tokens, used.completion_tokens]
            for role, used in self.usage.items()
        }
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


class Watch(Protocol):
    """Who hears of progress."""

    def replied(self, used: Usage) -> None:
        """A model replied (or the ledger did)."""

    def played(self, tally: Tally) -> None:
        """Dialogues ended."""


class Worker:
    """A job, opened in this process."""

    def __init__(self, job: Job, roles: Roles, watch: Watch | None = None) -> None:
        self._job, self._roles, self._watch = job, roles, watch
        self._places = asyncio.Semaphore(job.concurrency)

    @classmethod
    async def open(cls, job: Job, watch: Watch | None = None, ledger: Ledger | None = None) -> Worker:
        """Load the models, and read the ledger unless this process has it open already."""
        opened: dict[str, Model] = {}
        for spec in job.models.values():
            if spec.reference not in opened:
                opened[spec.reference] = await models.open_model(spec, job.purse.check if job.purse else None)
        ledger = ledger or Ledger(job.ledger, job.reuse)
        by_role = {role: (spec, opened[spec.reference]) for role, spec in job.models.items()}
        on_reply = watch.replied if watch else None
        return cls(job, Roles(by_role, ledger, job.script.seed, on_reply, job.purse), watch)

    async def close(self) -> None:
        """Let go of the models' connections and the ledger."""
        await self._roles.ledger.drain()
        for model in {id(model): model for _, model in self._roles.models.values()}.values():
            await model.close()
        self._roles.ledger.close()

    async def play(self, shard: Shard) -> ShardDone:
        """Play a shard; its rows are in the plan's order, whatever order the dialogues ended in."""
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
        async with self._places:
            episode = await play(scenario, self._job.script, self._roles)
        if self._watch is not None:
            self._watch.played(Tally.of(episode))
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
