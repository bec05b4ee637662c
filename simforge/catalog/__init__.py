"""The four folders that people edit: personas, generators, pipelines, schemas.

In the wheel they are inside the package; in a checkout they are at the top level. Only this
module reads them. A reference is a name (`psoup`, `user/default`) or a path (it has a suffix,
or starts with `.`, `/` or `~`). Its form alone decides which, never a look at the disk, so a
file that happens to be in the working folder changes nothing.

    entry("pipelines", "quickstart").text
    entry("personas", "./my-people.yaml").label
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simforge.catalog import files
from simforge.errors import NotFound, UsageError

SUFFIXES = {
    "personas": ".yaml",
    "generators": ".md",
    "pipelines": ".yaml",
    "schemas": ".schema.json",
}
"The kinds, and the suffix of their files."


@dataclass(frozen=True, slots=True)
class Entry:
    """A file from the catalogue, or one of the user's own."""

    kind: str
    name: str
    "The reference that was given for it."
    label: str
    "Name used in messages: `personas/everyday.yaml`, or the user's path."
    text: str


def root() -> Path:
    """The folder that holds the four: in the installed package, or else at the top of the
    checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_catalog", package.parent):
        if all((folder / kind).is_dir() for kind in SUFFIXES):
            return folder
    raise UsageError(f"the catalogue is missing from {package}: reinstall simforge")


def names(kind: str) -> list[str]:
    """All names of one kind, sorted."""
    folder, suffix = root() / kind, SUFFIXES[kind]
    relative_paths = (
        path.relative_to(folder).as_posix() for path in folder.rglob(f"*{suffix}")
    )
    return sorted(name.removesuffix(suffix) for name in relative_paths)


def is_path(reference: str) -> bool:
    """Return true if the form of a reference is that of a path."""
    return (
        reference.startswith((".", "/", "~"))
        or Path(reference).suffix != ""
        or "\\" in reference
    )


def label(reference: str) -> str:
    """Name used in the data: the name itself, or the stem of a path, so that no folder of a
    machine reaches the data."""
    return Path(reference).stem if is_path(reference) else reference


def entry(kind: str, reference: str) -> Entry:
    """Read one file. Raises `NotFound` for an unknown name, and `UsageError` for an
    unreadable path."""
    if is_path(reference):
        path, label = Path(reference).expanduser(), reference
    else:
        if reference not in names(kind):
            folder, _, name = reference.rpartition("/")
            kind_name = _FOLDER_NAMES.get(folder, _KIND_NAMES[kind])
            siblings = [
                entry_name.removeprefix(f"{folder}/")
                for entry_name in names(kind)
                if entry_name.rpartition("/")[0] == folder
            ]
            missing_name = name if folder in _FOLDER_NAMES else reference
            hint = f"See `simforge show {kind}`, or give a path such as ./{name}{SUFFIXES[kind]}."
            raise NotFound(
                kind_name,
                missing_name,
                siblings if folder in _FOLDER_NAMES else names(kind),
                hint,
            )
        label = f"{kind}/{reference}{SUFFIXES[kind]}"
        path = root() / label
    if not path.exists():
        raise UsageError(
            f"there is no file {reference} (expected a {_KIND_NAMES[kind]})."
        )
    return Entry(kind, reference, label, files.read_text(path, reference))


def data_file(kind: str, name: str) -> Path:
    """The path of a data file that ships beside the catalogue's entries (`pipelines`,
    `prompts/everyday.jsonl`)."""
    return root() / kind / name


_FOLDER_NAMES = {"spaces": "preference space", "writing": "way of writing"}


_KIND_NAMES = {
    "personas": "persona pack",
    "generators": "generator",
    "pipelines": "pipeline",
    "schemas": "schema",
}
