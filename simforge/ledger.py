"""The ledger: every model reply, so that nothing is paid for twice.

A reply is stored under the digest of its whole request. A dialogue has no checkpoints: after a crash it runs again
from its start, and the ledger answers what was already answered. Only replies are stored, never errors.

On disk it is a folder of segments, each an append-only file of JSON lines written by one writer; a line that a crash
cut short is passed over. In memory it is an index from digest to place, 24 bytes a reply, and texts are read when
asked for. Requests under way are shared: two dialogues that ask the same thing at the same time cost one call.

The folder may be any URL that fsspec knows (`s3://bucket/run`). Such stores cannot append, so a writer fills a segment
of its own in a scratch folder and uploads what is new every few seconds as a further object.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import logging
import os
import shutil
import tempfile
import threading
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simforge.errors import UsageError
from simforge.identity import sha256
from simforge.types import ChatReply, ChatRequest, Finish, Said, Usage

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("simforge")

PATIENCE = 5.0
"Seconds that a run which stops waits for replies under way."
SYNC = 1.0
"Seconds between looks at what a network file system may still hold back; what the loss of a node can cost."
UPLOAD = 3.0
"Seconds between uploads of a writer to a store that cannot append; what a kill can lose."
FRESH = 65_536
"Replies indexed by a plain dictionary before they move to the compact part of the index."
RECENT = 4_096
"Replies kept in memory: people who share answers ask for them close together."
SEGMENTS = 64
"Segment files held open for reading."

Call = Callable[[ChatRequest], Awaitable[ChatReply]]


class Ledger:
    """Replies of earlier and present calls. One per worker."""

    def __init__(self, folder: Path | str, reuse: Iterable[Path | str] = ()) -> None:
        """Index the segments of `folder` and of older ledgers; new replies go to a segment of its own."""
        self._files: list[Path] = []
        self._open: OrderedDict[int, io.FileIO] = OrderedDict()
        self._index = Index()
        self._recent: OrderedDict[bytes, ChatReply] = OrderedDict()
        self._under_way: dict[bytes, asyncio.Task[ChatReply]] = {}
        self._segment = 0
        self._store = Store(str(folder)) if is_url(folder) else None
        self._copies: list[Store] = []
        self._folder = self._store.scratch if self._store else Path(folder)
        for each in (*reuse, folder):
            for path in segments(each, self._copies):
                self._read(path)
        self._index.settle()
        self._writer: io.FileIO | None = None
        self._place = 0
        self._keeping: asyncio.Task[None] | None = None

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._index)

    async def answer(self, request: ChatRequest, call: Call) -> tuple[ChatReply, bool]:
        """The reply to a request, and whether it had to be paid for now."""
        key = request_key(request)
        found = self._known(key)
        if found is not None:
            return found, False
        if key in self._under_way:
            return await asyncio.shield(self._under_way[key]), False
        # A task of its own: a dialogue that gives up must not take the reply away from others that wait for it.
        shared = asyncio.create_task(self._pay(key, request, call))
        shared.add_done_callback(_heard)
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())
        self._under_way[key] = shared
        return await asyncio.shield(shared), True

    async def _pay(self, key: bytes, request: ChatRequest, call: Call) -> ChatReply:
        try:
            reply = await call(request)
            self._append(key, request.model, reply)
            return reply
        finally:
            del self._under_way[key]

    async def drain(self) -> None:
        """Wait a little for the replies that are under way: they are paid for, whoever has given up on them."""
        if self._under_way:
            await asyncio.wait(list(self._under_way.values()), timeout=PATIENCE)

    async def _keep(self) -> None:
        """Bring what was written where it survives this machine: to the store, or out of this machine's cache of a
        network file system. A failure is said and tried again."""
        synced = 0
        while True:
            await asyncio.sleep(UPLOAD if self._store else SYNC)
            try:
                if self._store is not None:
                    await asyncio.to_thread(self._store.upload)
                elif self._writer is not None and self._place > synced:
                    synced = self._place
                    await asyncio.to_thread(os.fsync, self._writer.fileno())
            except OSError as problem:
                log.warning("the ledger could not be kept for now: %s", problem)

    def close(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            self._keeping = None
        for file in self._open.values():
            file.close()
        self._open.clear()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._store is not None:
            self._store.upload()
            self._store.close()
            self._store = None
        for copy in self._copies:
            copy.close()
        self._copies.clear()

    def _known(self, key: bytes) -> ChatReply | None:
        if key in self._recent:
            return self._recent[key]
        for number, start, length in self._index.places(key):
            line = self._line(number, start, length)
            if _key_of(line) == key:  # the index knows the first half of a key
                return _reply(json.loads(line)["reply"])
        return None

    def _append(self, key: bytes, model: str, reply: ChatReply) -> None:
        if self._writer is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{uuid.uuid4().hex}.jsonl"
            self._files.append(path)
            self._segment = len(self._files) - 1
            self._writer = io.FileIO(path, "a")
        line = _line(key, model, reply)
        if self._writer.write(line) != len(line):
            self._writer.truncate(self._place)
            raise OSError(errno.ENOSPC, "no space left for the ledger", str(self._files[-1]))
        self._index.add(key, self._segment, self._place, len(line))
        self._place += len(line)
        self._recent[key] = reply
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)

    def _line(self, number: int, start: int, length: int) -> bytes:
        file = self._open.get(number)
        if file is None:
            file = self._open[number] = io.FileIO(self._files[number])
            if len(self._open) > SEGMENTS:
                self._open.popitem(last=False)[1].close()
        file.seek(start)
        return file.read(length)

    def _read(self, path: Path) -> None:
        self._files.append(path)
        number, start = len(self._files) - 1, 0
        for line in _lines(path):
            key = _key_of(line)
            if key is not None:
                self._index.add(key, number, start, len(line))
            start += len(line)


class Index:
    """Where the reply of each key is: (segment, start, length in bytes).

    New entries are in a dictionary; `FRESH` of them become sorted columns at 24 bytes each, a quarter of what a
    dictionary takes, and columns are merged as they grow in number. Keys are known by their first 8 bytes.
    """

    def __init__(self) -> None:
        self._fresh: dict[int, tuple[int, int, int]] = {}
        self._settled: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def __len__(self) -> int:
        return len(self._fresh) + sum(len(keys) for keys, _, _ in self._settled)

    def add(self, key: bytes, segment: int, start: int, length: int) -> None:
        self._fresh[int.from_bytes(key[:8], "little")] = (segment, start, length)
        if len(self._fresh) >= FRESH:
            self.settle()

    def places(self, key: bytes) -> Iterator[tuple[int, int, int]]:
        """The places where a key may be, the newest first; none where it is in none."""
        short = int.from_bytes(key[:8], "little")
        if short in self._fresh:
            yield self._fresh[short]
        for keys, starts, places in reversed(self._settled):
            at = int(keys.searchsorted(keys.dtype.type(short)))
            if at < len(keys) and keys[at] == short:
                yield int(places[at]) >> 32, int(starts[at]), int(places[at]) & 0xFFFFFFFF

    def settle(self) -> None:
        """Move the new entries into columns; of equal keys in one column the newest stays."""
        import numpy as np

        if not self._fresh:
            return
        count = len(self._fresh)
        keys = np.fromiter(self._fresh, np.uint64, count)
        starts = np.fromiter((start for _, start, _ in self._fresh.values()), np.uint64, count)
        places = np.fromiter((seg << 32 | length for seg, _, length in self._fresh.values()), np.uint64, count)
        self._settled.append(_sorted(keys, starts, places))
        self._fresh = {}
        while len(self._settled) > 1 and len(self._settled[-2][0]) < 2 * len(self._settled[-1][0]):
            newer, older = self._settled.pop(), self._settled.pop()
            keys, starts, places = (np.concatenate(both) for both in zip(newer, older, strict=True))
            self._settled.append(_sorted(keys, starts, places))


def _sorted(keys: np.ndarray, starts: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns by key; of equal keys the first is kept."""
    import numpy as np

    keys, at = np.unique(keys, return_index=True)
    return keys, starts[at], places[at]


class Store:
    """A ledger's folder at a URL, as a scratch folder that is downloaded once and uploaded bit by bit."""

    def __init__(self, url: str) -> None:
        self._files, self._path = _filesystem(url)
        self.scratch = Path(tempfile.mkdtemp(prefix="simforge-ledger-"))
        self._sent: dict[str, int] = {}
        "Bytes of each own segment that are uploaded, always whole lines."
        self._sending = threading.Lock()

    def download(self) -> list[Path]:
        """The segments that are there, as files."""
        folder = self.scratch / "there"
        found = sorted(self._files.glob(f"{self._path}/*.jsonl")) if self._files.exists(self._path) else []
        if found:
            folder.mkdir()
            self._files.get(found, [str(folder / Path(name).name) for name in found])
        return sorted(folder.glob("*.jsonl"))

    def upload(self) -> None:
        """Send what own segments have gained, as objects of whole lines. One at a time."""
        with self._sending:
            self._send()

    def _send(self) -> None:
        for path in self.scratch.glob("*.jsonl"):
            sent = self._sent.get(path.name, 0)
            with path.open("rb") as file:
                file.seek(sent)
                gained = file.read()
            gained = gained[: gained.rfind(b"\n") + 1]
            if gained:
                self._files.makedirs(self._path, exist_ok=True)
                self._files.pipe_file(f"{self._path}/{path.stem}-{sent:012}.jsonl", gained)
                self._sent[path.name] = sent + len(gained)

    def close(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)


def check(place: str) -> None:
    """Raise `UsageError` where a URL cannot be opened at all."""
    if is_url(place):
        _filesystem(place)


def is_url(folder: Path | str) -> bool:
    return isinstance(folder, str) and "://" in folder


def segments(folder: Path | str, copies: list[Store]) -> list[Path]:
    """The segments of a ledger's folder, as files; what has to be downloaded is put into `copies`, to be closed."""
    if not is_url(folder):
        return sorted(Path(folder).glob("*.jsonl"))
    copies.append(Store(str(folder)))
    return copies[-1].download()


def totals(folder: Path | str) -> dict[str, Usage]:
    """What the replies of a ledger's folder took, by the fingerprint of their model."""
    found: dict[str, Usage] = {}
    copies: list[Store] = []
    seen: set[bytes] = set()
    for path in segments(folder, copies):
        for line in _lines(path):
            key = _key_of(line)
            if key is not None and key not in seen:
                seen.add(key)
                entry = json.loads(line)
                used = Usage.of(_reply(entry["reply"]))
                found[entry["model"]] = found.get(entry["model"], Usage()) + used
    for copy in copies:
        copy.close()
    return found


def compact(folder: Path) -> int:
    """Make one segment of all, each reply once; gives how many replies there are. Nobody may be writing."""
    old = sorted(folder.glob("*.jsonl"))
    seen: set[bytes] = set()
    if len(old) > 1:
        draft = folder / "compact.new"
        with draft.open("wb") as file:
            for path in old:
                for line in _lines(path):
                    key = _key_of(line)
                    if key is not None and key not in seen:
                        seen.add(key)
                        file.write(line)
        draft.rename(folder / f"{uuid.uuid4().hex}.jsonl")
        for path in old:
            path.unlink()
    return len(seen)


def _heard(task: asyncio.Task[ChatReply]) -> None:
    """Look at a failure, so that it counts as heard even if nobody waits for it any more."""
    if not task.cancelled():
        task.exception()


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


_ENCODER = json.JSONEncoder(ensure_ascii=False)
_START = b'{"key": "'


def _key_of(line: bytes) -> bytes | None:
    """The key of a whole line; `None` for one that a crash or a full disk cut short."""
    if not (line.startswith(_START) and line.endswith(b"}\n")):
        return None
    with contextlib.suppress(ValueError):
        return bytes.fromhex(line[9:41].decode("ascii", "replace"))
    return None


def _line(key: bytes, model: str, reply: ChatReply) -> bytes:
    """A reply as a line; the key comes first, so that it can be read without the rest."""
    content: dict[str, Any] = {
        "text": reply.text,
        "finish": reply.finish.value,
        "prompt_tokens": reply.prompt_tokens,
        "cached_tokens": reply.cached_tokens,
        "completion_tokens": reply.completion_tokens,
    }
    if reply.choice_probabilities:
        content["choice_probabilities"] = reply.choice_probabilities
    if reply.answers:
        content["answers"] = [[one.text, one.finish.value, one.completion_tokens] for one in reply.answers]
    if reply.thinking_tokens:
        content["thinking_tokens"] = reply.thinking_tokens
    entry = {"key": key.hex(), "model": model, "reply": content}
    return _ENCODER.encode(entry).encode() + b"\n"


def _reply(entry: dict[str, Any]) -> ChatReply:
    answers = tuple(Said(text, Finish(finish), tokens) for text, finish, tokens in entry.get("answers", ()))
    return ChatReply(**{**entry, "finish": Finish(entry["finish"]), "answers": answers})


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as problem:
        raise UsageError(f"the ledger {url} cannot be opened: {problem}") from None
    return files, path.rstrip("/")


def request_key(request: ChatRequest) -> bytes:
    """The digest of a whole request, 16 bytes: model, messages, settings, seed, constraints."""
    sampling = request.sampling
    settings = (sampling.temperature, sampling.top_p, sampling.max_tokens, sampling.stop)
    return sha256(
        request.model,
        *(part for message in request.messages for part in (message.role, message.content)),
        repr((*settings, request.seed, request.schema, request.choices, request.n)),
    ).digest()[:16]
