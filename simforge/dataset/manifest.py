"""The manifest of a dataset version: everything about it, as typed values.

    DIR/README.md  manifest.json  data/<table>/<split>-00000-of-00001.parquet

It is written last, so a folder with a manifest is a complete version, and it lists every file
with its digest.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NotRequired, cast

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from simforge.catalog import files
from simforge.errors import SourceError
from simforge.types import JsonObject

DATA_FILE = re.compile(
    r"data/(?P<table>[a-z_]+)/(?P<split>[a-z_]+)-\d{5}-of-\d{5}\.parquet"
)
"Form of the name of a data file: it cannot lie outside of the version's folder."


OPTIONAL_FILES = ("audit.json", "report.html")
"Optional published files. The report shows people: it is left out if traits are withheld."


class FileEntry(TypedDict):
    """A file of a dataset version."""

    sha256: str
    bytes: int
    rows: int
    uncompressed: NotRequired[int]
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
    commonest_problem: NotRequired[str]
    "The commonest reason why dialogues were lost; empty if none were."


class DropRates(TypedDict, total=False):
    """Share of comparisons that gave no pair, and the groups of people that differ from it."""

    comparisons: int
    share: float
    groups: list[JsonObject]


class DimensionCounts(TypedDict):
    """Comparisons on one dimension, and the pairs that they gave."""

    comparisons: int
    pairs: int
    measure: str | None
    "Measure that checks its labels; `None` if there is none."


class Manifest(TypedDict, total=False):
    """The manifest of a dataset version. Keys may be missing in versions of other releases."""

    simforge: str
    schema_version: str
    digest: str
    identity: JsonObject
    "Digests of everything that decides the content, by part."
    texts: dict[str, str]
    "Texts that decide the content besides the recipe: generators, by name."
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
    dimensions: dict[str, DimensionCounts]
    "By dimension, where answers were compared on each."
    languages: list[str]
    "ISO codes of the languages of the dialogues, the commonest first."
    judges: JsonObject | None
    fidelity: JsonObject | None
    samples: list[JsonObject]
    usage: dict[str, dict[str, int]]
    "Calls and tokens of the replies in the ledger, by role: each reply counts once."
    used: dict[str, dict[str, int]]
    "Calls and tokens by role, where a reply counts for each dialogue that used it."
    rating_scale: list[int]
    "Lowest and highest rating, if a judge rates answers."
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
    """Read the manifest of a sealed run. Raises `SourceError`."""
    path = folder / "manifest.json"
    return parse_manifest(files.read_text(path, limit=files.MAX_JSON_BYTES), str(path))


def parse_manifest(text: str | bytes, label: str) -> Manifest:
    """Parse a manifest, and check the types of what it says: it may come from a stranger. Raises
    `SourceError`."""
    content = files.parse_json_object(text, label)
    try:
        _manifest_type().validate_python(content)
    except ValidationError as problem:
        error = problem.errors(include_url=False)[0]
        place = ".".join(map(str, error["loc"]))
        raise SourceError(
            f"{label} is not a manifest of SimForge: {place}: {error['msg'].lower()}."
        ) from None
    if "files" not in content:
        raise SourceError(f"{label} is not a manifest of SimForge: it lists no files.")
    for name in content["files"]:
        if not DATA_FILE.fullmatch(name):
            raise SourceError(
                f"{label} lists a file that is no table of a dataset: {name[:80]!r}."
            )
    for name in content.get("optional_files", {}):
        if name not in OPTIONAL_FILES:
            raise SourceError(
                f"{label} lists a file that is none of: {', '.join(OPTIONAL_FILES)}."
            )
    return cast(Manifest, content)


MIN_KEPT = 0.1
"Share of a dimension's comparisons below which the dimension counts as lost."


MIN_COMPARISONS = 10
"Fewest comparisons from which a dimension can count as lost."


def lost_dimensions(manifest: Manifest) -> list[str]:
    """Describe the dimensions that are missing from the pairs, a sentence each."""
    return [
        f"The dimension {name} is missing from the data: {counts['pairs']} of its "
        f"{counts['comparisons']} comparisons became pairs. The other figures do not speak of it."
        for name, counts in manifest.get("dimensions", {}).items()
        if counts["comparisons"] >= MIN_COMPARISONS
        and counts["pairs"] < MIN_KEPT * counts["comparisons"]
    ]


def unchecked_dimensions(manifest: Manifest) -> list[str]:
    """List the dimensions whose labels by construction no measure checks."""
    if manifest["recipe"]["labels"]["by"] != "construction":
        return []
    return [
        name
        for name, counts in manifest.get("dimensions", {}).items()
        if counts["measure"] is None and counts["pairs"]
    ]


@contextlib.contextmanager
def use_of(label: str) -> Iterator[None]:
    """Turn what goes wrong while a manifest is used into a `SourceError`: the values inside its
    recipe, space and figures are not checked when it is read, since they differ between
    releases."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ArithmeticError) as problem:
        raise SourceError(
            f"{label} has a manifest that cannot be used: {type(problem).__name__}: {problem}. "
            "Repeat the command that made it."
        ) from problem


@cache
def _manifest_type() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)
