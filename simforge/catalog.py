"""The four folders that people edit: personas, generators, pipelines, schemas.

They ship in the wheel inside the package and lie at the top of a checkout; this is their only reader. A reference
is a name (`psoup`, `user/default`) or a path (it contains a suffix, or starts with `.`, `/` or `~`), decided by its
form and never by looking at the disk, so that a file that happens to lie in the working folder changes nothing.

    entry("pipelines", "quickstart").text
    entry("personas", "./my-people.yaml").label
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simforge.errors import NotFound, UsageError

SUFFIXES = {"personas": ".yaml", "generators": ".md", "pipelines": ".yaml", "schemas": ".schema.json"}
"The kinds, and how the files of each end."


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the catalogue, or of the user's."""

    kind: str
    name: str
    "The reference it was asked by."
    label: str
    "How messages call it: `personas/everyday.yaml`, or the user's path."
    text: str


def root() -> Path:
    """The folder that holds the four: the installed package's own, else the checkout's top."""
    package = Path(__file__).resolve().parent
    for folder in (package / "_catalog", package.parent):
        if all((folder / kind).is_dir() for kind in SUFFIXES):
            return folder
    raise UsageError(f"the catalogue is missing from {package}: reinstall simforge")


def names(kind: str) -> list[str]:
    """All names of one kind, sorted."""
    folder, suffix = root() / kind, SUFFIXES[kind]
    found = (path.relative_to(folder).as_posix() for path in folder.rglob(f"*{suffix}"))
    return sorted(name.removesuffix(suffix) for name in found)


def is_path(reference: str) -> bool:
    """Whether a reference is a path by its form."""
    return reference.startswith((".", "/", "~")) or Path(reference).suffix != "" or "\\" in reference


def label(reference: str) -> str:
    """What data call it: the name; of a path the file's stem, since data speak of no machine's folders."""
    return Path(reference).stem if is_path(reference) else reference


def entry(kind: str, reference: str) -> Entry:
    """Read one file; raises `NotFound` for a name that is not there, `UsageError` for an unreadable path."""
    if is_path(reference):
        path, label = Path(reference).expanduser(), reference
    else:
        if reference not in names(kind):
            folder, _, name = reference.rpartition("/")
            what = _FOLDERS.get(folder, _SINGULAR[kind])
            near = [one.removeprefix(f"{folder}/") for one in names(kind) if one.rpartition("/")[0] == folder]
            said = name if folder in _FOLDERS else reference
            hint = f"See `simforge show {kind}`, or give a path such as ./{name}{SUFFIXES[kind]}."
            raise NotFound(what, said, near if folder in _FOLDERS else names(kind), hint)
        label = f"{kind}/{reference}{SUFFIXES[kind]}"
        path = root() / label
    try:
        return Entry(kind, reference, label, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no file {reference} (asked for as a {_SINGULAR[kind]}).") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"{reference} cannot be read: {problem}.") from None


def data_file(kind: str, name: str) -> Path:
    """The path of a data file that ships beside the catalogue's entries (`pipelines`, `prompts/everyday.jsonl`)."""
    return root() / kind / name


_FOLDERS = {"spaces": "preference space", "writing": "way of writing"}
_SINGULAR = {"personas": "persona pack", "generators": "generator", "pipelines": "pipeline", "schemas": "schema"}
