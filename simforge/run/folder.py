"""The run folder: claimed for one content, locked for one process.

    DIR/work/      ledger and part files: needed to resume or reuse a run, never published

A folder belongs to one digest, which covers everything that decides the content (recipe,
people, prompts, models, seed) and nothing about how it is produced. Files appear whole, by
rename, and the manifest last: if it exists, the version is complete.

A part file begins with a digest of its run, its number and its content, so that a damaged, foreign
or exchanged part is noticed. It is put aside, and its dialogues are played again from the ledger.
The work folder is readable by its owner only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pyarrow as pa

from simforge.catalog import files
from simforge.dataset.manifest import Manifest, read_manifest
from simforge.dataset.writing import PRIVATE, disk_errors, write_atomically
from simforge.errors import RunFolderError, SourceError, UsageError
from simforge.identity import digest
from simforge.models.ledger import is_url
from simforge.run.shards import ShardDone, Tally
from simforge.types import JsonObject

log = logging.getLogger("simforge")


PART_MAGIC = b"simforge-part "
"First bytes of a part file; the digest in hex and a line break follow, then an Arrow file."


LEDGER_NOTE = "ledger.at"
"File in the work folder that records the location of a ledger stored elsewhere."


@dataclass(slots=True)
class RunFolder:
    """Folder of a run on disk, claimed for one digest."""

    path: Path
    identity: JsonObject
    "Everything that decides the content, by part."
    shard_size: int
    _lock: IO[str] | None = field(default=None, repr=False)

    @property
    def digest(self) -> str:
        return digest(self.identity)

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def ledger(self) -> Path | str:
        """Folder of the run's replies, or a URL."""
        return ledger_location(self.path)

    @property
    def default_ledger(self) -> Path:
        """Default location of the ledger, inside the run folder."""
        return (self.work / "ledger").resolve()

    def record_ledger_location(self, location: str | None) -> None:
        """Record that the ledger is elsewhere: a folder, or a URL. Raises `RunFolderError` if
        the run has already begun a ledger in another place."""
        note = self.work / LEDGER_NOTE
        if location is None:
            if note.is_file():
                place = files.read_text(note)
                raise RunFolderError(
                    f"the ledger of {self.path} is at {place}: add --ledger {place}."
                )
            return
        location = location if is_url(location) else str(Path(location).resolve())
        if note.is_file() and files.read_text(note) != location:
            raise RunFolderError(
                f"the ledger of {self.path} is at {files.read_text(note)}, "
                f"not at {location}."
            )
        if not note.is_file() and any((self.work / "ledger").glob("*.jsonl")):
            raise RunFolderError(
                f"{self.path} already contains a ledger: resume without --ledger."
            )
        with disk_errors(self.path):
            write_atomically(note, location, PRIVATE)

    @classmethod
    def claim(cls, path: Path, identity: JsonObject, shard_size: int) -> RunFolder:
        """Claim a new folder, or resume one with the same digest. Raises `RunFolderError`
        otherwise."""
        run_file = path / "work" / "run.json"
        _refuse_links(path)
        with disk_errors(path):
            stored = _stored_run(path)
            if stored is not None:
                _check_same_run(path, stored["identity"], identity)
                shard_size = stored["shard_size"]
            elif run_file.is_file():
                log.warning(
                    "%s is damaged and is written again; parts of another run are put aside",
                    run_file,
                )
            elif path.exists() and (
                not path.is_dir()
                or any(
                    entry.is_file() and entry.name != "lock"
                    for entry in path.rglob("*")
                )
            ):
                raise RunFolderError(
                    f"{path} exists and is not a SimForge run: choose another --out."
                )
            path.mkdir(parents=True, exist_ok=True)
            (path / "work").mkdir(mode=0o700, exist_ok=True)
            (path / "work" / "parts").mkdir(exist_ok=True)
            folder = cls(path, identity, shard_size)
            folder._lock = _lock(path)
            if stored is None:
                content = {"identity": identity, "shard_size": shard_size}
                write_atomically(run_file, json.dumps(content, indent=2), PRIVATE)
        return folder

    @classmethod
    def existing(cls, path: Path) -> RunFolder:
        """Return the folder of a run as it was claimed, without locking it. Raises
        `RunFolderError`."""
        stored = _stored_run(path)
        if stored is None:
            raise RunFolderError(
                f"{path} is not a run, or its work/run.json is damaged: repeat the command that "
                "made it."
            )
        return cls(path, stored["identity"], stored["shard_size"])

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def abandon(self) -> None:
        """Remove the folder if nothing was begun in it, so that a mistake leaves nothing
        behind."""
        replies = (
            any(self.work.glob("ledger/*.jsonl")) or (self.work / LEDGER_NOTE).is_file()
        )
        if not any(self.work.glob("parts/*")) and not replies and not self.is_sealed():
            shutil.rmtree(self.work, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def write_part(self, done: ShardDone) -> None:
        """Write a shard's part file."""
        with disk_errors(self.path):
            digest = self._part_digest(done.number, done.part)
            content = b"".join([PART_MAGIC, digest, b"\n", done.part])
            write_atomically(self._part_path(done.number), content, PRIVATE)

    def write_note(self, name: str, content: JsonObject) -> None:
        """Store information about how the run is made in the work folder; it is never
        published."""
        with disk_errors(self.path):
            note = json.dumps(content, indent=2)
            write_atomically(self.work / f"{name}.json", note, PRIVATE)

    def finished_tallies(self) -> dict[int, Tally]:
        """Return the counts of the finished shards, by shard number. Damaged parts are put
        aside, so that their shards are played again."""
        tallies = {}
        for path in self._part_files():
            content = self._read_part(path)
            if content is None:
                log.warning(
                    "%s is damaged or of another run: its dialogues are played again from the "
                    "ledger",
                    path,
                )
                path.replace(path.with_suffix(".damaged"))
                continue
            with pa.ipc.open_file(content) as reader:
                tallies[int(path.stem)] = Tally.from_dict(
                    json.loads(reader.schema.metadata[b"tally"])
                )
        return tallies

    def parts(self) -> Iterator[pa.Table]:
        """Yield the part table of each shard, in the order of the plan. Raises
        `RunFolderError` for a part that was damaged since the start."""
        for path in self._part_files():
            content = self._read_part(path)
            if content is None:
                raise RunFolderError(
                    f"{path} was damaged during the run: run the same command again, which plays "
                    "its dialogues from the ledger."
                )
            with pa.ipc.open_file(content) as reader:
                yield reader.read_all()

    def _part_files(self) -> list[Path]:
        return sorted((self.work / "parts").glob("*.arrow"))

    def _read_part(self, path: Path) -> pa.Buffer | None:
        """Return the Arrow file of a part; `None` if it is damaged or not of this run."""
        try:
            with pa.memory_map(str(path)) as file:
                content = file.read_buffer()
            head = len(PART_MAGIC) + 33
            wanted = (
                PART_MAGIC + self._part_digest(int(path.stem), content[head:]) + b"\n"
            )
        except (OSError, ValueError):  # an empty file cannot be mapped
            return None
        return content[head:] if content[:head].to_pybytes() == wanted else None

    def _part_digest(self, number: int, content: pa.Buffer | bytes) -> bytes:
        """Return a digest of the run, the number of a part and its content, in hex."""
        place = f"{self.digest} {self.shard_size} {number}\n".encode()
        found = hashlib.blake2b(place, digest_size=16)
        found.update(content)
        return found.hexdigest().encode()

    def is_sealed(self) -> bool:
        """Return true if there is a manifest that can be read."""
        try:
            return bool(read_manifest(self.path))
        except SourceError:
            return False

    def is_complete(self) -> bool:
        """Return true if it is sealed and no dialogue was lost."""
        tallies = self.finished_tallies().values()
        return self.is_sealed() and not any(tally.failed for tally in tallies)

    def manifest(self) -> Manifest:
        """Read the manifest of a sealed run."""
        return read_manifest(self.path)

    def unseal(self) -> None:
        """Remove the manifest before more is played: a folder in use is not a version."""
        (self.path / "manifest.json").unlink(missing_ok=True)

    def _part_path(self, number: int) -> Path:
        return self.work / "parts" / f"{number:07}.arrow"


def _refuse_links(path: Path) -> None:
    """Raise `RunFolderError` if a folder of a run is a link: files would be written and deleted
    elsewhere."""
    for name in ("work", "work/parts", "work/ledger", "work/sealing", "data"):
        if (path / name).is_symlink():
            raise RunFolderError(
                f"{path / name} is a link: a run writes only below its own folder. Remove the "
                "link, or choose another --out (--ledger keeps replies elsewhere)."
            )


def ledger_location(path: Path) -> Path | str:
    """Location of a run's replies: inside its folder unless another one was recorded."""
    note = path / "work" / LEDGER_NOTE
    if not note.is_file():
        return (path / "work" / "ledger").resolve()
    location = files.read_text(note)
    return location if is_url(location) else Path(location)


def _stored_run(path: Path) -> JsonObject | None:
    """Return identity and shard size of a claimed folder; `None` if it is not claimed, or its
    file is damaged."""
    run_file = path / "work" / "run.json"
    if not run_file.is_file():
        return None
    try:
        stored = files.read_json_object(run_file)
    except SourceError:
        return None
    size = stored.get("shard_size")
    if isinstance(stored.get("identity"), dict) and isinstance(size, int) and size > 0:
        return stored
    return None


def _check_same_run(path: Path, stored: JsonObject, wanted: JsonObject) -> None:
    if digest(stored) == digest(wanted):
        return
    changed = sorted(
        key for key in {*stored, *wanted} if stored.get(key) != wanted.get(key)
    )
    hint = (
        " If only the URL of the model has changed, add --moved OLD=NEW."
        if changed == ["models"]
        else ""
    )
    raise RunFolderError(
        f"{path} belongs to another run: its digest is {digest(stored)}, this "
        f"command's is {digest(wanted)} (differences: {', '.join(changed)}). Choose "
        f"another --out, repeat the command that made it, or delete it.{hint}"
    )


def _lock(path: Path) -> IO[str] | None:
    """Lock the folder against a second process; on systems without file locks do nothing."""
    try:
        import fcntl
    except ImportError:
        return None
    lock = (path / "work" / "lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise RunFolderError(
            f"another simforge process is working in {path}: wait for it, or stop it."
        ) from None
    except OSError:
        pass  # a file system without locks
    return lock


def ledger_of_earlier_run(path: Path) -> Path | str:
    """The ledger of a run that is to be reused. Raises `UsageError` if it has none."""
    ledger = ledger_location(path)
    if isinstance(ledger, Path) and not ledger.is_dir():
        raise UsageError(f"--reuse {path}: {why_no_ledger(path)}.")
    return ledger


def why_no_ledger(path: Path) -> str:
    """Return why a folder has no ledger of its own."""
    if _stored_run(path) is None:
        return "it is not a run folder: there is no ledger in it"
    return (
        "it has no replies of its own, they all came from the runs that it was started with "
        "(--reuse): name those"
    )
