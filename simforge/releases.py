"""Releases: a sealed run as a version with a number, wherever it is published.

What the Hub (`hub`) and any other store (`stores`) have in common: the numbers, what is left out as sensitive, and the
texts that say which version it is and what has changed since the one before.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simforge import card, comparing, croissant, personas, versions
from simforge.errors import UsageError
from simforge.generators import variables_of
from simforge.identity import file_sha256

BESIDES = ("audit.json", "report.html")
"What is published with a run where it is there. A report shows people: it stays at home with what is sensitive."
PASSING = ("environment", "spent", "usage", "besides")
"Of a manifest, what does not make it another version."
TAG = re.compile(r"v(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)")
"How a version is called on the Hub, and its folder elsewhere."


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A semantic version (semver.org), without build metadata."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def tag(self) -> str:
        return f"v{self}"

    @classmethod
    def of(cls, text: str) -> Version:
        """Read `1.2.0` or `v1.2.0`; raises `UsageError`."""
        if not TAG.fullmatch(f"v{text.removeprefix('v')}"):
            raise UsageError(f"a version has three numbers, such as 1.2.0, and not {text!r}.")
        return cls(*map(int, text.removeprefix("v").split(".")))


@dataclass(frozen=True, slots=True)
class Published:
    """A version that is published."""

    repo: str
    "OWNER/NAME on the Hub, or a URL."
    version: Version
    commit: str
    "On the Hub its commit, elsewhere the URL of its folder."
    manifest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push came to."""

    published: Published
    committed: bool
    "Whether there was something to commit; the same bytes are there already otherwise."
    changes: list[str]
    "Against the version before, a line each."


@contextmanager
def ready(folder: Path, traits: bool, version: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder's data and manifest, without what is sensitive."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise UsageError(f"{folder} is no finished run: there is no manifest.json in it.")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if not {"licence", "clusters", "traits"} <= {*manifest}:
        raise UsageError(f"{folder} was made by an older SimForge: the command that made it, once more, seals it anew.")
    for name, about in manifest["files"].items():
        if not (folder / name).is_file() or file_sha256(folder / name) != about["sha256"]:
            raise UsageError(f"{folder}: {name} is not what its manifest says; simforge validate {folder} says more.")
    withheld = {} if traits else _sensitive(folder)
    with tempfile.TemporaryDirectory() as scratch:
        staged = Path(scratch)
        for name in manifest["files"]:
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            columns = withheld.get(name.split("/")[1], [])
            if columns:
                manifest["files"][name] |= _without(folder / name, staged / name, columns)
            else:
                (staged / name).symlink_to((folder / name).resolve())
        for name in BESIDES[: 1 if withheld else None]:
            if (folder / name).is_file():
                (staged / name).symlink_to((folder / name).resolve())
        if withheld and (staged / "audit.json").is_file():
            found = _audit_without(folder / "audit.json", withheld["personas"])
            (staged / "audit.json").unlink()
            (staged / "audit.json").write_text(found, encoding="utf-8")
        manifest["besides"] = {name: file_sha256(staged / name) for name in BESIDES if (staged / name).is_file()}
        yield staged, {**manifest, **({"withheld": withheld} if withheld else {}), "version": version}


def _audit_without(path: Path, traits: Collection[str]) -> str:
    """An audit without what it says of some traits of the people."""
    found = json.loads(path.read_text(encoding="utf-8"))
    cast = found.get("cast", {})
    for name in traits:
        cast.get("marginals", {}).pop(name, None)
    if "off" in cast.get("joints", {}):
        cast["joints"]["off"] = [one for one in cast["joints"]["off"] if not {*one["traits"]} & {*traits}]
    return json.dumps(found, indent=2)


def _sensitive(folder: Path) -> dict[str, list[str]]:
    """Columns by table that hold or speak of what the pack calls sensitive: of people, of what they told of the phrases
    that the pack has them tell, and of what judges said who had read about them."""
    import pyarrow.parquet as pq

    path = next(iter(sorted(folder.glob("data/personas/*.parquet"))))
    schema = pq.read_schema(path)
    marked = [column.name for column in schema if (column.metadata or {}).get(b"sensitive") == b"true"]
    if not marked:
        return {}
    pack = json.loads(schema.metadata[personas.META.encode()])["pack"]
    hidden = {name for name, trait in pack["traits"].items() if trait.get("sensitive")}
    found = {"personas": marked}
    if any(hidden & variables_of(fact) for fact in pack.get("facts", ())):
        found["turns"] = ["disclosed"]
    if "text" in marked:
        found["judgments"] = ["reasons_ab", "reasons_ba"]
    return found


def _without(source: Path, target: Path, columns: list[str]) -> dict[str, Any]:
    """Write a table without some columns; gives what a manifest says of the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(source)
    schema = pa.schema(
        [column for column in file.schema_arrow if column.name not in columns], file.schema_arrow.metadata
    )
    with pq.ParquetWriter(target, schema, **versions.PARQUET) as writer:
        for group in range(file.num_row_groups):
            writer.write_table(file.read_row_group(group, schema.names), row_group_size=versions.ROW_GROUP)
    about = pq.read_metadata(target)
    inside = sum(about.row_group(group).total_byte_size for group in range(about.num_row_groups))
    return {"sha256": file_sha256(target), "bytes": target.stat().st_size, "uncompressed": inside}


def release(
    repo: str, version: Version, before: Version | None, old: dict[str, Any] | None, new: dict[str, Any]
) -> card.Release:
    """What the card says of a version: its name, and what has changed since the one before."""
    return card.Release(repo, str(version), str(before or ""), comparing.manifests(old, new) if old else [])


def texts(manifest: dict[str, Any], about: card.Release, folder: Path) -> dict[str, str]:
    """The files of a version that are text, by name; the manifest last, which says that the version is whole."""
    audit = folder / "audit.json"
    found = json.loads(audit.read_text(encoding="utf-8")) if audit.is_file() else None
    return {
        "README.md": card.render(manifest, about, found),
        croissant.NAME: croissant.render(manifest, about),
        "manifest.json": json.dumps(manifest, indent=2, ensure_ascii=False),
    }


def content(folder: Path, written: Mapping[str, str]) -> list[str]:
    """Names of the other files of a version."""
    return [*json.loads(written["manifest.json"])["files"], *(name for name in BESIDES if (folder / name).is_file())]


def same(one: dict[str, Any] | None, other: dict[str, Any] | None) -> bool:
    """Whether two manifests are of one version: the same data, the same words about it, the same audit. Only how it was
    run may be told differently."""
    if one is None or other is None:
        return one is other
    plain = [{key: value for key, value in manifest.items() if key not in PASSING} for manifest in (one, other)]
    return plain[0] == plain[1] and one.get("besides", {}) == other.get("besides", {})


def unmoved(repo: str, version: Version, there: dict[str, Any] | None, manifest: dict[str, Any]) -> None:
    """Raise `UsageError` where a version that is there is another one: what is published does not change."""
    if not same(there, manifest):
        raise UsageError(
            f"{repo} has a version {version} with other data or other words about it, and tags do not move: choose a "
            f"higher number (simforge versions {repo} lists them)."
        )
