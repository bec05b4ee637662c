"""Numbered releases of a sealed run, independent of where they are published.

Shared by the Hub (`huggingface`) and other stores (`urls`): version numbers, removal of sensitive
columns, and the texts that name a version and list its changes.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from simforge.catalog import files
from simforge.catalog.sandbox import variables_of
from simforge.dataset import card, croissant, diff, parquet
from simforge.dataset.manifest import (
    DATA_FILE,
    OPTIONAL_FILES,
    FileEntry,
    Manifest,
    read_manifest,
    use_of,
)
from simforge.errors import UsageError
from simforge.identity import file_sha256
from simforge.personas.cast import PACK_METADATA_KEY
from simforge.personas.pack import need_texts

TEXT_FILES = ("README.md", croissant.FILE_NAME, "manifest.json")
"Texts of every published version."


OUR_FILES = (*TEXT_FILES, *OPTIONAL_FILES)
"All files of a published version besides its data."


IGNORED_KEYS = ("environment", "spent", "usage", "used", "optional_files")
"Manifest keys that are ignored when two versions are compared."


TAG = re.compile(
    r"v(?:0|[1-9]\d{0,8})\.(?:0|[1-9]\d{0,8})\.(?:0|[1-9]\d{0,8})", re.ASCII
)
"Form of a version's tag on the Hub, and of its folder name elsewhere."


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
    def parse(cls, text: str) -> Version:
        """Parse `1.2.0` or `v1.2.0`. Raises `UsageError`."""
        if not TAG.fullmatch(f"v{text.removeprefix('v')}"):
            raise UsageError(
                f"a version has three numbers, such as 1.2.0, and not {text!r}."
            )
        return cls(*map(int, text.removeprefix("v").split(".")))


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """A published version."""

    repo: str
    "OWNER/NAME on the Hub, or a URL."
    version: Version
    commit: str
    "Commit on the Hub; elsewhere the URL of the version's folder."
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class PushResult:
    """Result of a push."""

    published: PublishedVersion
    committed: bool
    "True if something was committed; false if the same bytes were already there."
    changes: list[str]
    "Changes since the previous version, one line each."


@contextmanager
def stage_for_publication(
    folder: Path, with_traits: bool, version: str
) -> Iterator[tuple[Path, Manifest]]:
    """Stage a run's data and manifest for publication, without sensitive columns unless
    `with_traits` is set."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise UsageError(
            f"{folder} is not a finished run: there is no manifest.json in it."
        )
    manifest = read_manifest(folder)
    if not {"licence", "clusters", "traits"} <= {*manifest}:
        raise UsageError(
            f"{folder} was made by an older SimForge: run the command that made it "
            "again to update it."
        )
    for name, about in manifest["files"].items():
        _refuse_links(folder, name)
        if (
            not (folder / name).is_file()
            or file_sha256(folder / name) != about["sha256"]
        ):
            raise UsageError(
                f"{folder}: {name} is not what its manifest says; see simforge validate {folder}."
            )
    withheld = {} if with_traits else _sensitive_columns(folder)
    with tempfile.TemporaryDirectory() as scratch:
        staged = Path(scratch)
        for name in manifest["files"]:
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            columns = withheld.get(name.split("/")[1], [])
            if columns:
                _write_without_columns(
                    folder / name, staged / name, columns, manifest["files"][name]
                )
            else:
                (staged / name).symlink_to((folder / name).resolve())
        for name in OPTIONAL_FILES[: 1 if withheld else None]:
            _refuse_links(folder, name)
            if (folder / name).is_file():
                (staged / name).symlink_to((folder / name).resolve())
        if withheld and (staged / "audit.json").is_file():
            filtered_audit = _audit_without_traits(
                folder / "audit.json", withheld["personas"]
            )
            (staged / "audit.json").unlink()
            (staged / "audit.json").write_text(filtered_audit, encoding="utf-8")
        manifest["optional_files"] = {
            name: file_sha256(staged / name)
            for name in OPTIONAL_FILES
            if (staged / name).is_file()
        }
        yield (
            staged,
            {
                **manifest,
                **({"withheld": withheld} if withheld else {}),
                "version": version,
            },
        )


def _refuse_links(folder: Path, name: str) -> None:
    """Raise `UsageError` if a file, or a folder on the way to it, is a link: it could point to
    any file of this machine."""
    place = folder
    for part in name.split("/"):
        place = place / part
        if place.is_symlink():
            raise UsageError(
                f"{place} is a link, and links are not published: replace it by the file."
            )


def _audit_without_traits(path: Path, traits: Collection[str]) -> str:
    """Remove some traits of the people from an audit."""
    audit = files.read_json_object(path)
    cast = audit.get("cast", {})
    for name in traits:
        cast.get("marginals", {}).pop(name, None)
    if "off" in cast.get("joints", {}):
        cast["joints"]["off"] = [
            joint
            for joint in cast["joints"]["off"]
            if not {*joint["traits"]} & {*traits}
        ]
    return json.dumps(audit, indent=2)


def _sensitive_columns(folder: Path) -> dict[str, list[str]]:
    """Find the columns, by table, that hold or may mention sensitive traits: traits and texts
    of people, disclosed facts that use them, and the reasons of judges who read the persona's
    text."""
    import pyarrow.parquet as pq

    path = next(iter(sorted(folder.glob("data/personas/*.parquet"))))
    schema = pq.read_schema(path)
    sensitive_columns = [
        column.name
        for column in schema
        if (column.metadata or {}).get(b"sensitive") == b"true"
    ]
    if not sensitive_columns:
        return {}
    pack = json.loads(schema.metadata[PACK_METADATA_KEY.encode()])["pack"]
    sensitive_traits = {
        name for name, trait in pack["traits"].items() if trait.get("sensitive")
    }
    columns_by_table = {"personas": sensitive_columns}
    if any(sensitive_traits & variables_of(fact) for fact in pack.get("facts", ())):
        columns_by_table["turns"] = ["disclosed"]
    needs = [text for need in pack.get("needs") or () for text in need_texts(need)]
    if any(sensitive_traits & variables_of(text) for text in needs):
        columns_by_table["dialogues"] = ["need", "goals"]
        columns_by_table["turns"] = [*columns_by_table.get("turns", []), "goals"]
    if "text" in sensitive_columns:
        columns_by_table["judgments"] = ["reasons_ab", "reasons_ba"]
    return columns_by_table


def _write_without_columns(
    source: Path, target: Path, columns: list[str], entry: FileEntry
) -> None:
    """Write a table without some columns, and update the file's entry in the manifest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(source)
    schema = pa.schema(
        [column for column in file.schema_arrow if column.name not in columns],
        file.schema_arrow.metadata,
    )
    with pq.ParquetWriter(target, schema, **parquet.PARQUET_OPTIONS) as writer:
        for group in range(file.num_row_groups):
            writer.write_table(
                file.read_row_group(group, schema.names),
                row_group_size=parquet.ROW_GROUP_ROWS,
            )
    metadata = pq.read_metadata(target)
    entry["sha256"] = file_sha256(target)
    entry["bytes"] = target.stat().st_size
    entry["uncompressed"] = sum(
        metadata.row_group(group).total_byte_size
        for group in range(metadata.num_row_groups)
    )


def describe_release(
    repo: str,
    version: Version,
    previous: Version | None,
    old: Manifest | None,
    new: Manifest,
) -> card.Release:
    """Build the card's description of a version: its name, and the changes since the previous
    one."""
    with use_of(repo):
        changes = diff.compare_manifests(old, new) if old else []
    return card.Release(repo, str(version), str(previous or ""), changes)


def text_files(
    manifest: Manifest, card_release: card.Release, folder: Path
) -> dict[str, str]:
    """Render the text files of a version, by name; the manifest is last, since it marks a
    version as complete."""
    audit = folder / "audit.json"
    audit_figures = files.read_json_object(audit) if audit.is_file() else None
    with use_of(card_release.repo):
        return {
            "README.md": card.render(manifest, card_release, audit_figures),
            croissant.FILE_NAME: croissant.render(manifest, card_release),
            "manifest.json": json.dumps(manifest, indent=2, ensure_ascii=False),
        }


def data_files(folder: Path, texts: Mapping[str, str]) -> list[str]:
    """List the names of the other files of a version."""
    return [
        *json.loads(texts["manifest.json"])["files"],
        *(name for name in OPTIONAL_FILES if (folder / name).is_file()),
    ]


def published_files(manifest: Manifest) -> list[str]:
    """List the names of all files of a published version."""
    return [*manifest["files"], *manifest.get("optional_files", {}), *TEXT_FILES]


def files_of_tables(
    manifest: Manifest, tables: tuple[str, ...], split: str | None = None
) -> list[str]:
    """List the files of a published version that hold some of its tables (without `tables`,
    all), or one split of them, and the files that describe the version.

    Only files that the manifest lists: their names lie below the folder and are no patterns.
    """
    return [
        name
        for name in published_files(manifest)
        if not tables
        or name in ("README.md", "manifest.json", "audit.json")
        or _is_of(name, tables, split)
    ]


def _is_of(name: str, tables: tuple[str, ...], split: str | None) -> bool:
    parts = DATA_FILE.fullmatch(name)
    return (
        parts is not None
        and parts["table"] in tables
        and split in (None, parts["split"])
    )


def listed_digests(manifest: Manifest) -> dict[str, str]:
    """Return the digest of each file that the manifest has one for."""
    digests = {name: about["sha256"] for name, about in manifest["files"].items()}
    return {**digests, **manifest.get("optional_files", {})}


def same_version(first: Manifest | None, second: Manifest | None) -> bool:
    """Return whether two manifests describe one version: same data, same description, same
    audit. Only keys about how it was run may differ."""
    if first is None or second is None:
        return first is second
    plain = [
        {key: value for key, value in manifest.items() if key not in IGNORED_KEYS}
        for manifest in (first, second)
    ]
    return plain[0] == plain[1] and first.get("optional_files", {}) == second.get(
        "optional_files", {}
    )


def check_unchanged(
    repo: str,
    version: Version,
    published: Manifest | None,
    manifest: Manifest,
) -> None:
    """Raise `UsageError` if the published version differs: a published version never
    changes."""
    if not same_version(published, manifest):
        raise UsageError(
            f"{repo} has a version {version} with different data or description, and "
            f"tags do not move: choose a higher number (simforge versions {repo} lists "
            "them)."
        )
