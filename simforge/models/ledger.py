"""The ledger: a log of every model reply, so that no call is paid for twice.

A reply is stored under the digest of its whole request. A dialogue has no checkpoints: after a
crash it runs again from its start, and the ledger returns the replies that it already has. Only
replies are stored, never errors.

On disk, the ledger is a folder of segments. Each segment is an append-only file of JSON lines,
written by one writer. Each line carries a digest of its content: a line that a crash cut short, or
in which a disk has flipped a bit, is counted, passed over, and asked again. In memory, the ledger
is an index from digest to location, 24 bytes per reply; texts are read on demand. Requests in
flight are shared: if two dialogues ask the same thing at the same time, that is one call.

The folder may be any URL that fsspec supports (`s3://bucket/run`). Such stores cannot append,
so a writer fills a segment of its own in a scratch folder and uploads new lines every few
seconds as another object.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
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
from simforge.types import ChatReply, ChatRequest, Completion, Finish, JsonObject, Usage

if TYPE_CHECKING:
    import numpy as np


log = logging.getLogger("simforge")


DRAIN_SECONDS = 5.0
"Seconds that a stopping run waits for replies in flight."


SYNC_SECONDS = 1.0
"Seconds between two syncs to a network file system; replies that the loss of a node can cost."


UPLOAD_SECONDS = 3.0
"Seconds between uploads to a store that cannot append; replies that a kill can cost."


MAX_FRESH = 65_536
"Replies indexed in a plain dictionary before they move to the compact part of the index."


MAX_RECENT = 4_096
"Replies kept in memory: people who share answers ask for them close together."


MAX_OPEN_SEGMENTS = 64
"Maximum number of segment files kept open for reading."


Call = Callable[[ChatRequest], Awaitable[ChatReply]]


class Ledger:
    """The replies to earlier and current calls. One ledger per worker."""

    def __init__(self, folder: Path | str, reuse: Iterable[Path | str] = ()) -> None:
        """Index the segments of `folder` and of older ledgers; new replies go to a new
        segment."""
        self._files: list[Path] = []
        self._open_files: OrderedDict[int, io.FileIO] = OrderedDict()
        self._index = Index()
        self._recent: OrderedDict[bytes, ChatReply] = OrderedDict()
        self._in_flight: dict[bytes, asyncio.Task[ChatReply]] = {}
        self._segment = 0
        self.damaged = 0
        "Number of lines that are cut short or do not match their digest."
        self._remote = RemoteFolder(str(folder)) if is_url(folder) else None
        self._remote_folders: list[RemoteFolder] = []
        self._folder = self._remote.scratch if self._remote else Path(folder)
        for ledger_folder in (*reuse, folder):
            for path in segments(ledger_folder, self._remote_folders):
                self._index_segment(path)
        self._index.flush()
        if self.damaged:
            log.warning(
                "%d replies in the ledger are damaged: they are passed over and asked again",
                self.damaged,
            )
        self._writer: io.FileIO | None = None
        self._offset = 0
        self._persist_task: asyncio.Task[None] | None = None

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._index)

    async def answer(
        self, request: ChatRequest, call: Call, role: str = ""
    ) -> tuple[ChatReply, bool]:
        """Return the reply to a request, and whether a new call was made for it. `role` is
        recorded with a new reply."""
        key = request_key(request)
        reply = self._look_up(key)
        if reply is not None:
            return reply, False
        if key in self._in_flight:
            return await asyncio.shield(self._in_flight[key]), False
        # A separate task: if one dialogue gives up, others still get the reply they wait for.
        task = asyncio.create_task(self._call_and_record(key, request, call, role))
        task.add_done_callback(_retrieve_exception)
        if self._persist_task is None:
            self._persist_task = asyncio.create_task(self._persist())
        self._in_flight[key] = task
        return await asyncio.shield(task), True

    async def _call_and_record(
        self, key: bytes, request: ChatRequest, call: Call, role: str
    ) -> ChatReply:
        try:
            reply = await call(request)
            self._append(key, request.model, role, reply)
            return reply
        finally:
            del self._in_flight[key]

    async def drain(self) -> None:
        """Wait briefly for the replies in flight: they are paid for even if their dialogues
        have given up."""
        if self._in_flight:
            await asyncio.wait(list(self._in_flight.values()), timeout=DRAIN_SECONDS)

    async def _persist(self) -> None:
        """Regularly save new lines where they survive the loss of this machine: in the store,
        or out of this machine's cache of a network file system. A failure is logged and
        retried."""
        synced = 0
        while True:
            await asyncio.sleep(UPLOAD_SECONDS if self._remote else SYNC_SECONDS)
            try:
                if self._remote is not None:
                    await asyncio.to_thread(self._remote.upload)
                elif self._writer is not None and self._offset > synced:
                    synced = self._offset
                    await asyncio.to_thread(os.fsync, self._writer.fileno())
            except OSError as problem:
                log.warning("the ledger could not be saved; trying again: %s", problem)

    def close(self) -> None:
        if self._persist_task is not None:
            self._persist_task.cancel()
            self._persist_task = None
        for file in self._open_files.values():
            file.close()
        self._open_files.clear()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._remote is not None:
            self._remote.upload()
            self._remote.close()
            self._remote = None
        for remote_folder in self._remote_folders:
            remote_folder.close()
        self._remote_folders.clear()

    def _look_up(self, key: bytes) -> ChatReply | None:
        if key in self._recent:
            return self._recent[key]
        for number, start, length in self._index.locations(key):
            line = self._read_line(number, start, length)
            if _key_of(line) == key:  # the index has only the first half of a key
                return _decode_reply(json.loads(line)["reply"])
        return None

    def _append(self, key: bytes, model: str, role: str, reply: ChatReply) -> None:
        if self._writer is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._folder / f"{uuid.uuid4().hex}.jsonl"
            self._files.append(path)
            self._segment = len(self._files) - 1
            self._writer = io.FileIO(path, "x", opener=_open_private)
        line = _encode_line(key, model, role, reply)
        if self._writer.write(line) != len(line):
            self._writer.truncate(self._offset)
            raise OSError(
                errno.ENOSPC, "no space left for the ledger", str(self._files[-1])
            )
        self._index.add(key, self._segment, self._offset, len(line))
        self._offset += len(line)
        self._recent[key] = reply
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)

    def _read_line(self, number: int, start: int, length: int) -> bytes:
        file = self._open_files.get(number)
        if file is None:
            file = self._open_files[number] = io.FileIO(self._files[number])
            if len(self._open_files) > MAX_OPEN_SEGMENTS:
                self._open_files.popitem(last=False)[1].close()
        file.seek(start)
        return file.read(length)

    def _index_segment(self, path: Path) -> None:
        self._files.append(path)
        number, start = len(self._files) - 1, 0
        for line in _lines(path):
            key = _key_of(line)
            if key is not None:
                self._index.add(key, number, start, len(line))
            else:
                self.damaged += 1
            start += len(line)


class Index:
    """Location of the reply for each key: (segment, start, length in bytes).

    New entries go to a dictionary. Every `MAX_FRESH` entries become sorted columns at 24 bytes
    each, a quarter of the size of a dictionary; columns are merged as their number grows. Keys
    are identified by their first 8 bytes.
    """

    def __init__(self) -> None:
        self._fresh: dict[int, tuple[int, int, int]] = {}
        self._columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def __len__(self) -> int:
        return len(self._fresh) + sum(len(keys) for keys, _, _ in self._columns)

    def add(self, key: bytes, segment: int, start: int, length: int) -> None:
        self._fresh[int.from_bytes(key[:8], "little")] = (segment, start, length)
        if len(self._fresh) >= MAX_FRESH:
            self.flush()

    def locations(self, key: bytes) -> Iterator[tuple[int, int, int]]:
        """Yield the possible locations of a key, newest first; none if the key is unknown."""
        prefix = int.from_bytes(key[:8], "little")
        if prefix in self._fresh:
            yield self._fresh[prefix]
        for keys, starts, places in reversed(self._columns):
            position = int(keys.searchsorted(keys.dtype.type(prefix)))
            if position < len(keys) and keys[position] == prefix:
                yield (
                    int(places[position]) >> 32,
                    int(starts[position]),
                    int(places[position]) & 0xFFFFFFFF,
                )

    def flush(self) -> None:
        """Move the new entries into columns; of equal keys in one column, the newest is
        kept."""
        import numpy as np

        if not self._fresh:
            return
        count = len(self._fresh)
        keys = np.fromiter(self._fresh, np.uint64, count)
        starts = np.fromiter(
            (start for _, start, _ in self._fresh.values()), np.uint64, count
        )
        places = np.fromiter(
            (seg << 32 | length for seg, _, length in self._fresh.values()),
            np.uint64,
            count,
        )
        self._columns.append(_sort_columns(keys, starts, places))
        self._fresh = {}
        while len(self._columns) > 1 and len(self._columns[-2][0]) < 2 * len(
            self._columns[-1][0]
        ):
            newer, older = self._columns.pop(), self._columns.pop()
            keys, starts, places = (
                np.concatenate(arrays) for arrays in zip(newer, older, strict=True)
            )
            self._columns.append(_sort_columns(keys, starts, places))


def _sort_columns(
    keys: np.ndarray, starts: np.ndarray, places: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort columns by key; of equal keys, the first is kept."""
    import numpy as np

    keys, first_positions = np.unique(keys, return_index=True)
    return keys, starts[first_positions], places[first_positions]


class RemoteFolder:
    """A ledger folder at a URL: a scratch folder that is downloaded once and uploaded piece by
    piece."""

    def __init__(self, url: str) -> None:
        self._files, self._path = _filesystem(url)
        self.scratch = Path(tempfile.mkdtemp(prefix="simforge-ledger-"))
        self._uploaded: dict[str, int] = {}
        "Uploaded bytes of each own segment, always whole lines."
        self._upload_lock = threading.Lock()

    def download(self) -> list[Path]:
        """Download the existing segments and return their files."""
        folder = self.scratch / "there"
        listed = self._files.find(self._path) if self._files.exists(self._path) else []
        remote_paths = sorted(path for path in listed if path.endswith(".jsonl"))
        if remote_paths:
            folder.mkdir()
            self._files.get(
                remote_paths,
                [str(folder / Path(remote_path).name) for remote_path in remote_paths],
            )
        return sorted(folder.glob("*.jsonl"))

    def upload(self) -> None:
        """Upload the lines added to own segments, as objects of whole lines. One upload runs at
        a time."""
        with self._upload_lock:
            self._upload()

    def _upload(self) -> None:
        for path in self.scratch.glob("*.jsonl"):
            sent = self._uploaded.get(path.name, 0)
            with path.open("rb") as file:
                file.seek(sent)
                added = file.read()
            added = added[: added.rfind(b"\n") + 1]
            if added:
                self._files.makedirs(self._path, exist_ok=True)
                self._files.pipe_file(
                    f"{self._path}/{path.stem}-{sent:012}.jsonl", added
                )
                self._uploaded[path.name] = sent + len(added)

    def close(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)


def check_url(folder: str) -> None:
    """Raise `UsageError` if a URL cannot be opened at all."""
    if is_url(folder):
        _filesystem(folder)


def is_url(folder: Path | str) -> bool:
    return isinstance(folder, str) and "://" in folder


def segments(folder: Path | str, remote_folders: list[RemoteFolder]) -> list[Path]:
    """Return the segments of a ledger folder, as files. A folder that has to be downloaded is
    added to `remote_folders`, for the caller to close."""
    if not is_url(folder):
        return sorted(Path(folder).glob("*.jsonl"))
    remote_folders.append(RemoteFolder(str(folder)))
    return remote_folders[-1].download()


def usage_by_model(folder: Path | str) -> dict[str, Usage]:
    """Sum up the usage of all replies in a ledger folder, by the fingerprint of their model."""
    usage: dict[str, Usage] = {}
    for (model, _), used in usage_of(folder).items():
        usage[model] = usage.get(model, Usage()) + used
    return usage


def usage_of(folder: Path | str) -> dict[tuple[str, str], Usage]:
    """Sum up the usage of all replies in a ledger folder, by the fingerprint of their model and
    the role that asked first."""
    usage: dict[tuple[str, str], Usage] = {}
    remote_folders: list[RemoteFolder] = []
    seen: set[bytes] = set()
    for path in segments(folder, remote_folders):
        for line in _lines(path):
            key = _key_of(line)
            if key is not None and key not in seen:
                seen.add(key)
                entry = json.loads(line)
                used = Usage.of(_decode_reply(entry["reply"]))
                source = entry["model"], entry["role"]
                usage[source] = usage.get(source, Usage()) + used
    for remote_folder in remote_folders:
        remote_folder.close()
    return usage


def compact(folder: Path) -> int:
    """Merge all segments into one, each reply once; returns the number of merged replies, 0 if
    there is only one segment. There must be no writer."""
    old = sorted(folder.glob("*.jsonl"))
    seen: set[bytes] = set()
    if len(old) > 1:
        draft = folder / "compact.new"
        with open(draft, "wb", opener=_open_private) as file:
            for path in old:
                for line in _lines(path):
                    key = _key_of(line)
                    if key is not None and key not in seen:
                        seen.add(key)
                        file.write(line)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(folder / f"{uuid.uuid4().hex}.jsonl")
        for path in old:
            path.unlink()
    return len(seen)


def _retrieve_exception(task: asyncio.Task[ChatReply]) -> None:
    """Retrieve a task's exception, so that asyncio does not report it as never retrieved if
    nobody awaits it."""
    if not task.cancelled():
        task.exception()


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


_START, _BETWEEN = b'{"key": "', b'", "digest": "'


_KEY = slice(len(_START), len(_START) + 32)


_DIGEST = slice(_KEY.stop + len(_BETWEEN), _KEY.stop + len(_BETWEEN) + 16)


def _key_of(line: bytes) -> bytes | None:
    """Return the key of a whole line; `None` for a line that was cut short, or that does not
    match its digest."""
    if not line.startswith(_START) or line[_KEY.stop : _DIGEST.start] != _BETWEEN:
        return None
    try:
        key = bytes.fromhex(line[_KEY].decode("ascii"))
        if line[_DIGEST] == _line_digest(line[_KEY], line[_DIGEST.stop :]):
            return key
    except ValueError:
        pass
    return None


def _line_digest(key: bytes, rest: bytes) -> bytes:
    return hashlib.blake2b(rest, key=key, digest_size=8).hexdigest().encode()


def _open_private(path: str, flags: int) -> int:
    """Open a file that only this user can read, and that is no link."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)


def _encode_line(key: bytes, model: str, role: str, reply: ChatReply) -> bytes:
    """Encode a reply as a line. Key and digest come first, so that they can be read without
    the rest."""
    content: JsonObject = {
        "text": reply.text,
        "finish": reply.finish.value,
        "prompt_tokens": reply.prompt_tokens,
        "cached_tokens": reply.cached_tokens,
        "completion_tokens": reply.completion_tokens,
    }
    if reply.choice_probabilities:
        content["choice_probabilities"] = reply.choice_probabilities
    if reply.answers:
        content["answers"] = [
            [answer.text, answer.finish.value, answer.completion_tokens]
            for answer in reply.answers
        ]
    if reply.thinking_tokens:
        content["thinking_tokens"] = reply.thinking_tokens
    body = _ENCODER.encode({"model": model, "role": role, "reply": content})
    rest = f'", {body[1:]}\n'.encode()
    hex_key = key.hex().encode()
    return b"".join([_START, hex_key, _BETWEEN, _line_digest(hex_key, rest), rest])


def _decode_reply(entry: JsonObject) -> ChatReply:
    answers = tuple(
        Completion(text, Finish(finish), tokens)
        for text, finish, tokens in entry.get("answers", ())
    )
    return ChatReply(**{**entry, "finish": Finish(entry["finish"]), "answers": answers})


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as problem:
        raise UsageError(f"the ledger {url} cannot be opened: {problem}") from None
    return files, path.rstrip("/")


def request_key(request: ChatRequest) -> bytes:
    """Return the digest of a whole request, 16 bytes: model, messages, settings, seed,
    constraints."""
    sampling = request.sampling
    settings = (
        sampling.temperature,
        sampling.top_p,
        sampling.max_tokens,
        sampling.stop,
    )
    return sha256(
        request.model,
        *(
            part
            for message in request.messages
            for part in (message.role, message.content)
        ),
        repr((*settings, request.seed, request.schema, request.choices, request.n)),
    ).digest()[:16]
