"""Versions: the run folder, and how a finished run is sealed into a dataset.

    DIR/README.md  manifest.json  data/<table>/<split>-00000-of-00001.parquet
    DIR/work/      ledger and part files: needed to go on or to reuse, never published

A folder belongs to one digest: that of everything that decides what comes out (recipe, people, prompts, models,
seed), and nothing of how it is made. Files appear whole, by rename, and the manifest last: where it is, the version
is complete.
"""

from __future__ import annotations

import contextlib
import json
import platform
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from simforge import (
    __version__,
    card,
    catalog,
    croissant,
    fidelity,
    licences,
    personas,
    prompts,
    records,
    reliability,
    selection,
)
from simforge.duplicates import Duplicates
from simforge.errors import RunFolderError, UsageError
from simforge.identity import digest, file_sha256
from simforge.ledger import is_url
from simforge.plan import Plan
from simforge.shards import ShardDone, Tally
from simforge.types import Role, Usage

ROW_GROUP = 5_000
"Rows in a row group; the same whatever the shards were, so that it cannot show in the bytes."
PARQUET = {"compression": "zstd", "write_page_index": True, "use_content_defined_chunking": True}
"How files are written: pages end where the content says, so that what two versions share is uploaded once."
FILE_BYTES = 500_000_000
"A file is ended with the row group that takes it beyond nine tenths of this: files are fetched whole, and again."
AUDIT = "audit.json"
LEDGER = "ledger.at"
"File in the work folder that says where the ledger is, if it is not there."
SAMPLES, SAMPLED = 3, 100
"Pairs shown in the card, and the pairs that they are taken from."
PEOPLE_AT_ONCE = 1_000
"Personas written at a time."


@dataclass(slots=True)
class RunFolder:
    """A run's folder on disk, claimed for one digest."""

    path: Path
    identity: dict[str, Any]
    "What decides the content, part by part."
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
        return ledger_of(self.path)

    @property
    def own_ledger(self) -> Path:
        """Where the ledger is unless the run was told otherwise."""
        return (self.work / "ledger").resolve()

    def keep_ledger_at(self, place: str | None) -> None:
        """Take note that the ledger is elsewhere: a folder, or a URL. Raises `RunFolderError` where the run has begun
        one in another place."""
        if place is None:
            return
        place = place if is_url(place) else str(Path(place).resolve())
        note = self.work / LEDGER
        if note.is_file() and note.read_text(encoding="utf-8") != place:
            raise RunFolderError(f"the ledger of {self.path} is at {note.read_text(encoding='utf-8')}, not at {place}.")
        if not note.is_file() and any((self.work / "ledger").glob("*.jsonl")):
            raise RunFolderError(f"{self.path} has begun a ledger of its own: go on without --ledger.")
        with _writing(self.path):
            _write(note, place)

    @classmethod
    def claim(cls, path: Path, identity: dict[str, Any], shard_size: int) -> RunFolder:
        """Take a new folder, or go on in one with the same digest. Raises `RunFolderError` otherwise."""
        run_file = path / "work" / "run.json"
        with _writing(path):
            if run_file.is_file():
                known = json.loads(run_file.read_text(encoding="utf-8"))
                _same_run(path, known["identity"], identity)
                shard_size = known["shard_size"]
            elif path.exists() and (
                not path.is_dir() or any(p.is_file() and p.name != "lock" for p in path.rglob("*"))
            ):
                raise RunFolderError(f"{path} exists and is not a SimForge run: choose another --out.")
            (path / "work" / "parts").mkdir(parents=True, exist_ok=True)
            folder = cls(path, identity, shard_size)
            folder._lock = _locked(path)
            if not run_file.is_file():
                _write(run_file, json.dumps({"identity": identity, "shard_size": shard_size}, indent=2))
        return folder

    def release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def abandon(self) -> None:
        """Take the folder away again where nothing has begun in it, so that a mistake leaves nothing behind."""
        replies = any(self.work.glob("ledger/*.jsonl")) or (self.work / LEDGER).is_file()
        if not any(self.work.glob("parts/*")) and not replies and not self.sealed():
            shutil.rmtree(self.work, ignore_errors=True)
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def keep(self, done: ShardDone) -> None:
        """Write a shard's part file."""
        with _writing(self.path):
            _write(self._part(done.number), done.part)

    def note(self, name: str, content: dict[str, Any]) -> None:
        """Keep something about how the run is made beside it; never published."""
        with _writing(self.path):
            _write(self.work / f"{name}.json", json.dumps(content, indent=2))

    def finished(self) -> dict[int, Tally]:
        """The counts of the shards that are played, by number."""
        found = {}
        for path in sorted((self.work / "parts").glob("*.arrow")):
            with pa.ipc.open_file(path) as reader:
                found[int(path.stem)] = Tally.from_dict(json.loads(reader.schema.metadata[b"tally"]))
        return found

    def parts(self) -> Iterator[pa.Table]:
        """The part of each shard, in the plan's order."""
        for path in sorted((self.work / "parts").glob("*.arrow")):
            with pa.ipc.open_file(path) as reader:
                yield reader.read_all()

    def sealed(self) -> bool:
        return (self.path / "manifest.json").is_file()

    def manifest(self) -> dict[str, Any]:
        """The manifest of a sealed run."""
        return manifest_of(self.path)

    def unseal(self) -> None:
        """Before more is played: a folder that is being worked on is no version."""
        (self.path / "manifest.json").unlink(missing_ok=True)

    def _part(self, number: int) -> Path:
        return self.work / "parts" / f"{number:07}.arrow"


def ledger_of(path: Path) -> Path | str:
    """Where a run's replies are: in its folder, unless it was told otherwise."""
    note = path / "work" / LEDGER
    if not note.is_file():
        return (path / "work" / "ledger").resolve()
    place = note.read_text(encoding="utf-8")
    return place if is_url(place) else Path(place)


def seal(
    folder: RunFolder, plan: Plan, models: Mapping[Role, Mapping[str, str]], total: Tally, spent: float | None
) -> dict[str, Any]:
    """Compact the parts into tables, write card and manifest, and give the manifest back; `spent` is what the run has
    cost, where it is counted."""
    with _writing(folder.path):
        staging = folder.work / "sealing"
        shutil.rmtree(staging, ignore_errors=True)
        sealed = _tables(folder, plan, staging)
        manifest = _manifest(folder, plan, models, total, sealed, staging) | {"spent": spent}
        for name in ("manifest.json", "README.md", croissant.NAME, AUDIT):
            (folder.path / name).unlink(missing_ok=True)
        shutil.rmtree(folder.path / "data", ignore_errors=True)
        (staging / "data").replace(folder.path / "data")
        _write(folder.path / "README.md", card.render(manifest))
        _write(folder.path / croissant.NAME, croissant.render(manifest))
        _write(folder.path / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False))
        shutil.rmtree(staging, ignore_errors=True)
    return manifest


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of a sealed run."""
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return found


def audited(folder: Path, found: dict[str, Any]) -> Path:
    """Put an audit into a sealed run: `audit.json`, and a section of the card."""
    manifest = manifest_of(folder)
    with _writing(folder):
        _write(folder / AUDIT, json.dumps(found, indent=2))
        _write(folder / "README.md", card.render(manifest, audit=found))
    return folder / AUDIT


def aside(folder: Path, found: dict[str, Any]) -> Path:
    """Put an audit of somebody else's data into a folder of its own: `audit.json`, and `card.md`, the section for the
    data's card. Raises `UsageError`."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; it takes a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / AUDIT).write_text(json.dumps(found, indent=2), encoding="utf-8")
        (folder / "card.md").write_text(card.section(found) + "\n", encoding="utf-8")
    except OSError as problem:
        raise UsageError(f"{folder} cannot be written: {problem.strerror or problem}.") from None
    return folder / AUDIT


NAMED = ("id", "parent", "prompt_id")


@dataclass(slots=True)
class _Sealed:
    """What sealing finds out about a run."""

    counts: dict[str, dict[str, int]]
    "Rows by table and split."
    judges: dict[str, Any] | None
    distinct: dict[str, int]
    "What is different among the pairs."
    duplicates: int
    "Pairs left out because their person has one like it."


def _tables(folder: RunFolder, plan: Plan, staging: Path) -> _Sealed:
    """Stream all rows into the tables' files. Looks at the judgments first, since what a judge's noise is decides what
    its labels are worth."""
    record = reliability.Record()
    for part in folder.parts():
        record.add(records.of_judges(part))
    noise, uninformed, seen = record.noise, record.uninformed, Duplicates(plan.recipe.filters.near_duplicates)
    writer = Writer(staging / "data")
    number, per_persona = -1, plan.recipe.prompts.per_persona
    for part in folder.parts():
        tables = {name: records.table_of(part, name) for name in records.SCHEMAS}
        split_by_dialogue = {}
        for key, parent, prompt in zip(*(tables["dialogues"][name].to_pylist() for name in NAMED), strict=True):
            number += parent is None  # a branch stands after the line that it left, and goes where that goes
            split_by_dialogue[key] = plan.split(number // per_persona, prompt)
        pairs, again = seen.without(records.calibrated(tables["preferences"], tables["judgments"], noise, uninformed))
        tables |= {"preferences": pairs, "discards": pa.concat_tables([tables["discards"], again])}
        for name, table in tables.items():
            owners = table["id" if name == "dialogues" else "dialogue_id"].to_pylist()
            writer.add(name, table, [split_by_dialogue[owner] for owner in owners])
    schema = records.personas_schema(plan.cast.pack)
    schema = schema.with_metadata({**schema.metadata, personas.META: personas.inside(plan.cast)})
    for start in range(0, len(plan.cast), PEOPLE_AT_ONCE):
        people = [plan.persona(index) for index in range(start, min(start + PEOPLE_AT_ONCE, len(plan.cast)))]
        rows = [records.persona_row(one, plan.cast.name, plan.cast.pack.licence) for one in people]
        table = pa.Table.from_pylist(rows, schema=schema)
        writer.add("personas", table, [plan.held(one.index) for one in people])
    counts = writer.close({**records.SCHEMAS, "personas": schema})
    return _Sealed(counts, record.summary(), seen.distinct, seen.dropped)


@dataclass(slots=True)
class _Files:
    """The Parquet files of one table and split, one after the other."""

    folder: Path
    split: str
    schema: pa.Schema
    row_group: int
    file_bytes: int
    written: list[Path] = field(default_factory=list)
    _open: tuple[pq.ParquetWriter, pa.NativeFile] | None = None

    def write(self, group: pa.Table) -> None:
        """One row group."""
        writer, sink = self._open or self._begun()
        if group.num_rows:
            writer.write_table(group, row_group_size=self.row_group)
        if sink.tell() > self.file_bytes * 0.9:
            self._end()

    def close(self) -> None:
        """Name the files, now that their number is known."""
        self._end()
        for number, path in enumerate(self.written):
            path.rename(self.folder / f"{self.split}-{number:05}-of-{len(self.written):05}.parquet")

    def _begun(self) -> tuple[pq.ParquetWriter, pa.NativeFile]:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.written.append(self.folder / f".{self.split}-{len(self.written):05}")
        sink = pa.OSFile(str(self.written[-1]), "wb")
        self._open = pq.ParquetWriter(sink, self.schema, **PARQUET), sink
        return self._open

    def _end(self) -> None:
        for file in self._open or ():
            file.close()
        self._open = None


class Writer:
    """Parquet files by table and split, with row groups and files that do not depend on how the rows arrived."""

    def __init__(self, root: Path, row_group: int = ROW_GROUP, file_bytes: int = FILE_BYTES) -> None:
        self._root = root
        self._row_group, self._file_bytes = row_group, file_bytes
        self._files: dict[tuple[str, str], _Files] = {}
        self._waiting: dict[tuple[str, str], list[pa.Table]] = {}
        self._counts: dict[str, dict[str, int]] = {}

    def add(self, name: str, table: pa.Table, splits: Sequence[str]) -> None:
        """Rows of a table, with the split of each."""
        for split in dict.fromkeys(splits):
            rows = table.filter(pc.equal(pa.array(splits), split)) if len(set(splits)) > 1 else table
            self._waiting.setdefault((name, split), []).append(rows)
            of_table = self._counts.setdefault(name, {})
            of_table[split] = of_table.get(split, 0) + rows.num_rows
            self._flush((name, split), table.schema, whole_groups=True)

    def close(self, schemas: Mapping[str, pa.Schema]) -> dict[str, dict[str, int]]:
        """Write what is left; every table gets a `train` file, empty where nothing was made. Gives the rows by table
        and split."""
        for name, schema in schemas.items():
            self._waiting.setdefault((name, "train"), [])
            self._counts.setdefault(name, {}).setdefault("train", 0)
            for key in [key for key in self._waiting if key[0] == name]:
                self._flush(key, schema, whole_groups=False)
        for files in self._files.values():
            files.close()
        return {name: dict(sorted(self._counts[name].items())) for name in schemas}

    def _flush(self, key: tuple[str, str], schema: pa.Schema, whole_groups: bool) -> None:
        waiting = self._waiting[key]
        if whole_groups and sum(table.num_rows for table in waiting) < self._row_group:
            return
        files = self._files.setdefault(
            key, _Files(self._root / key[0], key[1], schema, self._row_group, self._file_bytes)
        )
        table = pa.concat_tables(waiting).combine_chunks() if waiting else schema.empty_table()
        start = 0
        while table.num_rows - start >= (self._row_group if whole_groups else 1):
            files.write(table.slice(start, self._row_group))
            start += self._row_group
        if not files.written:
            files.write(table)
        self._waiting[key] = [table.slice(start)] if start < table.num_rows else []


def _manifest(
    folder: RunFolder,
    plan: Plan,
    models: Mapping[Role, Mapping[str, str]],
    total: Tally,
    sealed: _Sealed,
    staging: Path,
) -> dict[str, Any]:
    files = {}
    for path in sorted((staging / "data").rglob("*.parquet")):
        about = pq.read_metadata(path)
        inside = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
        size = {"bytes": path.stat().st_size, "rows": about.num_rows, "uncompressed": inside}
        files[path.relative_to(staging).as_posix()] = {"sha256": file_sha256(path), **size}
    usage = total.as_dict()["usage"]
    names = [one.name for one in fields(Usage)]
    return {
        "simforge": __version__,
        "schema_version": records.SCHEMA_VERSION,
        "digest": folder.digest,
        "identity": folder.identity,
        "recipe": _placeless(plan.recipe.model_dump(mode="json")),
        "seed": plan.seed,
        "personas": len(plan.cast),
        "cast": {"of": plan.cast.name, **asdict(plan.cast.passed)},
        "persona_sources": plan.cast.pack.sources,
        "traits": {
            name: {"type": trait.type, "about": trait.description or name}
            for name, trait in plan.cast.pack.traits.items()
        },
        "licence": licences.of_rows(_licences(plan, models)),
        "space": {
            "name": catalog.label(plan.recipe.cast.space),
            **plan.space.model_dump(mode="json", exclude_none=True),
        },
        "models": {role: dict(about) for role, about in models.items()},
        "counts": sealed.counts,
        "clusters": plan.clustered,
        "distinct": sealed.distinct,
        "dialogues": {"played": total.dialogues, "failed": total.failed, "turns": total.turns},
        "discards": dict(sorted((total.discards + Counter(duplicate=sealed.duplicates)).items())),
        "dropped": selection.summary(staging / "data", plan.cast.pack, plan.space),
        "judges": sealed.judges,
        "fidelity": fidelity.summary(staging / "data"),
        "samples": _samples(staging / "data" / "preferences"),
        "usage": {r: dict(zip(names, used, strict=True)) for r, used in sorted(usage.items())},
        "files": files,
        "environment": _environment(),
    }


def _samples(folder: Path) -> list[dict[str, Any]]:
    """A few pairs to look at, of different wishes, from those that nobody is tested on."""
    found: dict[Any, dict[str, Any]] = {}
    for path in sorted(folder.glob("train-*.parquet")):
        columns = ["dialogue_id", "prompt", "system", "chosen", "rejected", "dimension", "label"]
        for batch in pq.ParquetFile(path).iter_batches(SAMPLED, columns=columns):
            for row in batch.to_pylist():
                row.pop("dialogue_id")
                found.setdefault((row["dimension"], row["system"]), row)
            return list(found.values())[:SAMPLES]
    return []


def _licences(plan: Plan, models: Mapping[Role, Mapping[str, str]]) -> dict[str, str]:
    """The licence of each thing that rows are made of."""
    people = plan.recipe.licence("people") or ("unknown" if plan.cast.brought else plan.cast.pack.licence)
    found = {f"the people ({plan.cast.name})": people}
    source = plan.recipe.prompts.source
    if plan.prompts:
        named = plan.recipe.licence("prompts") or ("unknown" if catalog.is_path(source) else prompts.LICENCE)
        found[f"the prompts ({Path(source).name})"] = named
    return found | {f"`{about['reference']}`": about["licence"] for about in models.values()}


def _placeless(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe with files by their names and without headers: a dataset speaks of nobody's folders or accounts."""
    recipe.pop("endpoints")
    recipe.pop("servers")
    for section, key in (
        *(("cast", "pack"), ("cast", "space"), ("prompts", "source")),
        *(("dialogue", "user"), ("dialogue", "infer"), ("dialogue", "feedback"), ("dialogue", "writing")),
        *(("candidates", "generator"), ("candidates", "reviser"), ("candidates", "writer"), ("judge", "generator")),
    ):
        value = (recipe[section] or {}).get(key)
        if isinstance(value, str) and catalog.is_path(value):
            recipe[section][key] = Path(value).name
    return recipe


def _environment() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for name in ("faker", "jinja2", "krippendorff", "numpy", "openvino-genai", "polars", "pyarrow", "ray", "rensa"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _same_run(path: Path, known: dict[str, Any], wanted: dict[str, Any]) -> None:
    if digest(known) == digest(wanted):
        return
    changed = sorted(key for key in {*known, *wanted} if known.get(key) != wanted.get(key))
    raise RunFolderError(
        f"{path} belongs to another run: its digest is {digest(known)}, this command's is {digest(wanted)} "
        f"(different: {', '.join(changed)}). Choose another --out, repeat the command that made it, or delete it."
    )


def _locked(path: Path) -> IO[str] | None:
    """Keep a second process out of the folder; systems without file locks do without."""
    try:
        import fcntl
    except ImportError:
        return None
    lock = (path / "work" / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise RunFolderError(f"another simforge process is working in {path}: wait for it, or stop it.") from None
    except OSError:
        pass  # a file system without locks
    return lock


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what the disk says into a sentence; what was written before stays valid."""
    try:
        yield
    except OSError as problem:
        what = problem.strerror or str(problem)
        where = problem.filename or path
        raise RunFolderError(
            f"{path} cannot be written: {what} ({where}). What is finished is kept; mend it and run "
            "the same command again, or choose another --out."
        ) from None


def _write(path: Path, content: str | bytes) -> None:
    """A file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
    temporary.replace(path)
