"""The run folder: claimed for one content, locked for one process.

    DIR/work/      ledger and part files: needed to resume or reuse a run, never published

A folder belongs to one digest, which covers everything that decides the content (recipe,
people, prompts, models, seed) and nothing about how it is produced. Files appear whole, by
rename, and the manifest last: if it exists, the version is complete.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pyarrow as pa

from simforge.dataset.manifest import Manifest, read_manifest
from simforge.dataset.writing import disk_errors, write_atomically
from simforge.errors import RunFolderError, UsageError
from simforge.identity import digest
from simforge.models.ledger import is_url
from simforge.run.shards import ShardDone, Tally
from simforge.types import JsonObject

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
        if location is None:
            return
        location = location if is_url(location) else str(Path(location).resolve())
        note = self.work / LEDGER_NOTE
        if note.is_file() and note.read_text(encoding="utf-8") != location:
            raise RunFolderError(
                f"the ledger of {self.path} is at {note.read_text(encoding='utf-8')}, "
                f"not at {location}."
            )
        if not note.is_file() and any((self.work / "ledger").glob("*.jsonl")):
            raise RunFolderError(
                f"{self.path} already contains a ledger: resume without --ledger."
            )
        with disk_errors(self.path):
            write_atomically(note, location)

    @classmethod
    def claim(cls, path: Path, identity: JsonObject, shard_size: int) -> RunFolder:
        """Claim a new folder, or resume one with the same digest. Raises `RunFolderError`
        otherwise."""
        run_file = path / "work" / "run.json"
        with disk_errors(path):
            if run_file.is_file():
                stored = json.loads(run_file.read_text(encoding="utf-8"))
                _check_same_run(path, stored["identity"], identity)
                shard_size = stored["shard_size"]
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
            (path / "work" / "parts").mkdir(parents=True, exist_ok=True)
            folder = cls(path, identity, shard_size)
            folder._lock = _lock(path)
            if not run_file.is_file():
                write_atomically(
                    run_file,
                    json.dumps(
                        {"identity": identity, "shard_size": shard_size}, indent=2
                    ),
                )
        return folder

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
            write_atomically(self._part_path(done.number), done.part)

    def write_note(self, name: str, content: JsonObject) -> None:
        """Store information about how the run is made in the work folder; it is never
        published."""
        with disk_errors(self.path):
            write_atomically(self.work / f"{name}.json", json.dumps(content, indent=2))

    def finished_tallies(self) -> dict[int, Tally]:
        """Return the counts of the finished shards, by shard number."""
        tallies = {}
        for path in sorted((self.work / "parts").glob("*.arrow")):
            with pa.ipc.open_file(path) as reader:
                tallies[int(path.stem)] = Tally.from_dict(
                    json.loads(reader.schema.metadata[b"tally"])
                )
        return tallies

    def parts(self) -> Iterator[pa.Table]:
        """Yield the part table of each shard, in the order of the plan."""
        for path in sorted((self.work / "parts").glob("*.arrow")):
            with pa.ipc.open_file(path) as reader:
                yield reader.read_all()

    def is_sealed(self) -> bool:
        return (self.path / "manifest.json").is_file()

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


def ledger_location(path: Path) -> Path | str:
    """Location of a run's replies: inside its folder unless another one was recorded."""
    note = path / "work" / LEDGER_NOTE
    if not note.is_file():
        return (path / "work" / "ledger").resolve()
    location = note.read_text(encoding="utf-8")
    return location if is_url(location) else Path(location)


def _check_same_run(path: Path, stored: JsonObject, wanted: JsonObject) -> None:
    if digest(stored) == digest(wanted):
        return
    changed = sorted(
        key for key in {*stored, *wanted} if stored.get(key) != wanted.get(key)
    )
    raise RunFolderError(
        f"{path} belongs to another run: its digest is {digest(stored)}, this "
        f"command's is {digest(wanted)} (differences: {', '.join(changed)}). Choose "
        "another --out, repeat the command that made it, or delete it."
    )


def _lock(path: Path) -> IO[str] | None:
    """Lock the folder against a second process; on systems without file locks do nothing."""
    try:
        import fcntl
    except ImportError:
        return None
    lock = (path / "work" / "lock").open("w")
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
        raise UsageError(
            f"--reuse {path}: there is no ledger in it; give the folder of an earlier run."
        )
    return ledger
