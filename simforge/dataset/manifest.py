"""The manifest of a dataset version: everything about it, as typed values.

    DIR/README.md  manifest.json  data/<table>/<split>-00000-of-00001.parquet

It is written last, so a folder with a manifest is a complete version, and it lists every file
with its digest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

from simforge.types import JsonObject


class FileEntry(TypedDict):
    """A file of a dataset version."""

    sha256: str
    bytes: int
    rows: int
    uncompressed: int
    "Bytes of its row groups before compression."


class ModelEntry(TypedDict):
    """The model of a role."""

    reference: str
    fingerprint: str
    licence: str
    about: str


class TraitEntry(TypedDict):
    """A trait of the people, as a column of `personas`."""

    type: str
    about: str


class LicenceEntry(TypedDict):
    """The licence of the rows, and how it follows from those of their sources."""

    row: str
    conditions: list[str]
    why: str
    sources: dict[str, str]


class DialogueCounts(TypedDict):
    """Dialogues that were played."""

    played: int
    failed: int
    turns: int


class DropRates(TypedDict, total=False):
    """Share of comparisons that gave no pair, and the groups of people that differ from it."""

    comparisons: int
    share: float
    groups: list[JsonObject]


class Manifest(TypedDict, total=False):
    """The manifest of a dataset version. Keys may be missing in versions of other releases."""

    simforge: str
    schema_version: str
    digest: str
    identity: JsonObject
    "Digests of everything that decides the content, by part."
    recipe: JsonObject
    seed: int
    personas: int
    cast: JsonObject
    "Name of the pack or file, and the people that were passed over."
    persona_sources: list[str]
    traits: dict[str, TraitEntry]
    licence: LicenceEntry
    space: JsonObject
    models: dict[str, ModelEntry]
    "By role."
    counts: dict[str, dict[str, int]]
    "Rows by table and split."
    clusters: dict[str, dict[str, int]]
    distinct: dict[str, int]
    dialogues: DialogueCounts
    discards: dict[str, int]
    "By reason."
    dropped: DropRates
    judges: JsonObject | None
    fidelity: JsonObject | None
    samples: list[JsonObject]
    usage: dict[str, dict[str, int]]
    "Calls and tokens by role."
    files: dict[str, FileEntry]
    environment: dict[str, str]
    spent: float | None
    withheld: dict[str, list[str]]
    "Columns that a published version leaves out, by table."
    version: str
    "Number of the published version."
    optional_files: dict[str, str]
    "Digests of files beside the tables that a version may have."


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a sealed run."""
    manifest: Manifest = json.loads(
        (folder / "manifest.json").read_text(encoding="utf-8")
    )
    return manifest
