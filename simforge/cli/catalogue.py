"""Commands around the catalogue: show, copy."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from simforge.cli.arguments import Commands
from simforge.errors import NotFound, UsageError

if TYPE_CHECKING:
    from simforge.catalog import Entry


KINDS = ("personas", "generators", "pipelines", "schemas")


def add_to(commands: Commands) -> None:
    """Add the commands of this group."""
    show = commands.add_parser(
        "show", help="list the catalogue, or print one of its files", allow_abbrev=False
    )
    show.add_argument(
        "name",
        nargs="?",
        help="a kind (personas, generators, pipelines, schemas), KIND/NAME, guards, or views",
    )
    show.set_defaults(command=_show)
    copy = commands.add_parser(
        "copy",
        help="copy a file from the catalogue so that you can edit it",
        allow_abbrev=False,
    )
    copy.add_argument("name", help="KIND/NAME, for example personas/everyday")
    copy.add_argument(
        "--to",
        type=Path,
        help="target path (default: the same file name in the current folder)",
    )
    copy.set_defaults(command=_copy)


def _show(options: argparse.Namespace) -> int:
    from simforge import catalog

    if options.name == "guards":
        return _show_guards()
    if options.name == "views":
        return _show_views()
    if options.name in (None, *KINDS):
        for kind in KINDS if options.name is None else (options.name,):
            for name in catalog.names(kind):
                print(f"{kind}/{name}")
        return 0
    print(_entry(options.name).text, end="")
    return 0


def _show_views() -> int:
    from simforge import views

    width = max(map(len, views.names()))
    for name in views.names():
        summary = re.split(
            r":\s|, what | \(|\.\s", " ".join(views.view(name).__doc__.split())
        )[0]
        print(f"{name:{width}}  {summary}")
    return 0


def _show_guards() -> int:
    from simforge.dialogue.guards import GUARDS

    width = max(map(len, GUARDS))
    for name, guard in GUARDS.items():
        print(f"{name:{width}}  {guard.policy:7}  {guard.meaning}")
    print(
        "\nThe second column is the default policy; --set dialogue.guards.NAME=POLICY changes "
        "it: repair (ask"
    )
    print(
        "once more with a hint, else end the dialogue), nudge (ask once more, else "
        "keep it flagged), flag (keep it"
    )
    print(
        "flagged), cut (end the dialogue), discard (the dialogue makes no pairs), off."
    )
    return 0


def _copy(options: argparse.Namespace) -> int:
    entry = _entry(options.name)
    target = options.to or Path(Path(entry.label).name)
    if target.is_dir():
        target = target / Path(entry.label).name
    if target.exists():
        raise UsageError(f"{target} exists: choose another place with --to.")
    try:
        target.write_text(entry.text, encoding="utf-8")
    except OSError as problem:
        raise UsageError(
            f"{target} cannot be written: {problem.strerror or problem}."
        ) from None
    print(
        f"{entry.label} is copied to {target}; refer to it as ./{target}"
        if not target.is_absolute()
        else f"{entry.label} is copied to {target}"
    )
    return 0


def _entry(name: str) -> Entry:
    from simforge import catalog

    kind, _, rest = name.partition("/")
    if kind not in KINDS or not rest:
        entries = [
            f"{kind}/{entry_name}"
            for kind in KINDS
            for entry_name in catalog.names(kind)
        ]
        raise NotFound("entry of the catalogue", name, entries, "See `simforge show`.")
    return catalog.entry(kind, rest.removesuffix(catalog.SUFFIXES[kind]))
