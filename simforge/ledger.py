"""The ledger: every model reply, so that nothing is paid for twice.

A reply is stored under the digest of its whole request. A dialogue has no checkpoints: after a crash it runs again
from its start, and the ledger answers what was already answered. Only replies are stored, never errors.

On disk it is a folder of segments, each an append-only file of JSON lines written by one writer; a line that a crash
cut short is passed over. In memory it is an index from digest to place, and texts are read when asked for.
Requests under way are shared: two dialogues that ask the same thing at the same time cost one call.
"""

from __future__ import annotations

import asyncio
import errno
import io
import json
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from simforge.identity import digest
from simforge.types import ChatReply, ChatRequest, Finish, Usage

PATIENCE = 5.0
"Seconds that a run which stops waits for replies under way."


class Ledger:
    """Replies of earlier and present calls. One per worker."""

    def __init__(self, folder: Path, reuse: Iterable[Path] = ()) -> None:
        """Index the segments of `folder` and of older ledgers; new replies go to a segment of its own."""
        self._files: list[Path] = []
        self._index: dict[str, tuple[int, int, int]] = {}
        self._under_way: dict[str, asyncio.Task[ChatReply]] = {}
        self._segment: int | None = None
        self._folder = folder
        for each in (*reuse, folder):
            for path in sorted(each.glob("*.jsonl")):
                self._read(path)
        self._writer: io.FileIO | None = None

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._index)

    async def answer(
        self, request: ChatRequest, call: Callable[[ChatRequest], Awaitable[ChatReply]]
    ) -> tuple[ChatReply, bool]:
        """The reply to a request, and whether it had to be paid for now."""
        key = request_key(request)
        if key in self._index:
            return self._recorded(key), False
        if key in self._under_way:
            return await asyncio.shield(self._under_way[key]), False
        # A task of its own: a dialogue that gives up must not take the reply away from others that wait for it.
        shared = asyncio.create_task(self._pay(key, request, call))
        shared.add_done_callback(lambda task: task.cancelled() or task.exception())  # heard, even if nobody waits
        self._under_way[key] = shared
        return await asyncio.shield(shared), True

    async def _pay(
        self, key: str, request: ChatRequest, call: Callable[[ChatRequest], Awaitable[ChatReply]]
    ) -> ChatReply:
        try:
            reply = await call(request)
            self._append(key, request, reply)
            return reply
        finally:
            del self._under_way[key]

    async def drain(self) -> None:
        """Wait a little for the replies that are under way: they are paid for, whoever has given up on them."""
        if self._under_way:
            await asyncio.wait(list(self._under_way.values()), timeout=PATIENCE)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _append(self, key: str, request: ChatRequest, reply: ChatReply) -> None:
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{uuid.uuid4().hex}.jsonl"
            self._files.append(path)
            self._segment = len(self._files) - 1
            self._writer = io.FileIO(path, "a")
        line = json.dumps({"key": key, "model": request.model, "reply": asdict(reply)}, ensure_ascii=False).encode()
        start = self._writer.tell()
        if self._writer.write(line + b"\n") != len(line) + 1:
            self._writer.truncate(start)
            raise OSError(errno.ENOSPC, "no space left for the ledger", str(self._files[-1]))
        assert self._segment is not None
        self._index[key] = (self._segment, start, len(line))

    def _recorded(self, key: str) -> ChatReply:
        number, start, length = self._index[key]
        with self._files[number].open("rb") as file:
            file.seek(start)
            entry = json.loads(file.read(length))["reply"]
        return ChatReply(**{**entry, "finish": Finish(entry["finish"])})

    def _read(self, path: Path) -> None:
        self._files.append(path)
        number, start = len(self._files) - 1, 0
        with path.open("rb") as file:
            for line in file:
                key = _key_of(line)
                if key is not None:
                    self._index[key] = (number, start, len(line) - 1)
                start += len(line)


def totals(folder: Path) -> dict[str, Usage]:
    """What the replies of a ledger's folder took, by the fingerprint of their model."""
    found: dict[str, Usage] = {}
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                if _key_of(line) is not None:
                    entry = json.loads(line)
                    reply = entry["reply"]
                    used = Usage(1, reply["prompt_tokens"], reply["cached_tokens"], reply["completion_tokens"])
                    found[entry["model"]] = found.get(entry["model"], Usage()) + used
    return found


def _key_of(line: bytes) -> str | None:
    """The key of a whole line; `None` for one that a crash or a full disk cut short."""
    try:
        return str(json.loads(line)["key"]) if line.endswith(b"\n") else None
    except ValueError:
        return None


def request_key(request: ChatRequest) -> str:
    """The digest of a whole request: model, messages, settings, seed, constraints."""
    sampling = request.sampling
    return digest(
        {
            "model": request.model,
            "messages": [[message.role, message.content] for message in request.messages],
            "sampling": [sampling.temperature, sampling.top_p, sampling.max_tokens, list(sampling.stop)],
            "seed": request.seed,
            "schema": request.schema,
            "choices": list(request.choices),
        },
        length=32,
    )
