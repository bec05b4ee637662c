"""Releases: a sealed run as a version with a number, wherever it is published.

What the Hub (`hub`) and any other store (`stores`) have in common: the numbers, what is left out as sensitive, and the
texts that say which version it is and what has changed since the one before.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simforge import card, comparing, croissant
from simforge.errors import UsageError
from simforge.identity import file_sha256

BESIDES = ("audit.json", "report.html")
"What is published with a run where it is there."


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
        found = re.fullmatch(r"v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", text)
        if found is None:
            raise UsageError(f"a version has three numbers, such as 1.2.0, and not {text!r}.")
        return cls(*map(int, found.groups()))


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
def ready(folder: Path, traits: bool) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder's data and manifest, without what is sensitive."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise UsageError(f"{folder} is no finished run: there is no manifest.json in it.")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    withheld = {} if traits else _sensitive(folder)
    if not withheld:
        yield folder, manifest
        return
    with tempfile.TemporaryDirectory() as scratch:
        staged = Path(scratch)
        for name in manifest["files"]:
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            columns = withheld.get(name.split("/")[1], [])
            if columns:
                manifest["files"][name] |= _without(folder / name, staged / name, columns)
            else:
                (staged / name).symlink_to((folder / name).resolve())
        if (folder / "audit.json").is_file():  # figures only; a report shows people, and stays at home
            (staged / "audit.json").symlink_to((folder / "audit.json").resolve())
        yield staged, {**manifest, "withheld": withheld}


def _sensitive(folder: Path) -> dict[str, list[str]]:
    """Columns by table that hold or speak of what the pack calls sensitive."""
    import pyarrow.parquet as pq

    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("data/*/*.parquet")):
        for column in pq.read_schema(path):
            if (column.metadata or {}).get(b"sensitive") == b"true":
                found.setdefault(path.parent.name, [])
                found[path.parent.name] += [] if column.name in found[path.parent.name] else [column.name]
    return found


def _without(source: Path, target: Path, columns: list[str]) -> dict[str, Any]:
    """Write a table without some columns; gives what a manifest says of the file."""
    import pyarrow.parquet as pq

    table = pq.read_table(source).drop_columns(columns)
    pq.write_table(table, target, compression="zstd", write_page_index=True)
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


def same(repo: str, version: Version, there: dict[str, Any] | None, manifest: dict[str, Any]) -> None:
    """Raise `UsageError` where a version that is there has other data: what is published does not change."""
    if files(there) != files(manifest):
        raise UsageError(
            f"{repo} has a version {version} with other data, and tags do not move: choose a higher number "
            f"(simforge versions {repo} lists them)."
        )


def files(manifest: dict[str, Any] | None) -> dict[str, str] | None:
    """What a version's data is: its files by digest."""
    return None if manifest is None else {name: about["sha256"] for name, about in manifest["files"].items()}
