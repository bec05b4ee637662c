"""Commands around the catalogue: show, copy."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from simforge.cli.arguments import Commands
from simforge.cli.output import say
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
        help=f"a kind of files ({', '.join(KINDS)}), KIND/NAME for one file, or a kind of "
        f"extensions ({', '.join(EXTENSIONS)})",
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

    if options.name in EXTENSIONS:
        return EXTENSIONS[options.name]()
    if options.name in (None, *KINDS):
        for kind in KINDS if options.name is None else (options.name,):
            for name in catalog.names(kind):
                say(f"{kind}/{name}")
        return 0
    say(_entry(options.name).text, end="")
    return 0


def _show_views() -> int:
    from simforge import views

    return _print_table(
        (name, re.split(r":\s|, what | \(|\.\s", _flat(views.view(name).__doc__))[0])
        for name in views.names()
    )


def _show_models() -> int:
    from simforge.models.providers import PROVIDERS

    return _print_table((f"{name}:", one.about) for name, one in PROVIDERS.items())


def _show_forms() -> int:
    from simforge.judging.forms import FORMS

    return _print_table((name, form.about) for name, form in FORMS.items())


def _show_conditions() -> int:
    from simforge.recipe.conditions import CONDITIONS

    return _print_table((name, one.about) for name, one in CONDITIONS.items())


def _show_measures() -> int:
    from simforge.text.measures import MEASURES

    return _print_table((name, _flat(one.__doc__)) for name, one in MEASURES.items())


def _show_distributions() -> int:
    from simforge.personas.distributions import DISTRIBUTIONS

    return _print_table(
        (name, _flat(one.__doc__)) for name, one in DISTRIBUTIONS.items()
    )


def _flat(docstring: str | None) -> str:
    return " ".join((docstring or "").split())


def _print_table(rows: Iterable[tuple[str, str]]) -> int:
    listed = list(rows)
    width = max(len(name) for name, _ in listed)
    for name, about in listed:
        say(f"{name:{width}}  {about}".rstrip())
    return 0


def _show_guards() -> int:
    from simforge.dialogue.guards import GUARDS

    width = max(map(len, GUARDS))
    for name, guard in GUARDS.items():
        say(f"{name:{width}}  {guard.policy:7}  {guard.meaning}")
    say(
        "\nThe second column is the default policy; --set dialogue.guards.NAME=POLICY changes "
        "it: repair (ask"
    )
    say(
        "once more with a hint, else end the dialogue), nudge (ask once more, else "
        "keep it flagged), flag (keep it"
    )
    say("flagged), cut (end the dialogue), discard (the dialogue makes no pairs), off.")
    return 0


EXTENSIONS: dict[str, Callable[[], int]] = {
    "models": _show_models,
    "forms": _show_forms,
    "conditions": _show_conditions,
    "distributions": _show_distributions,
    "measures": _show_measures,
    "guards": _show_guards,
    "views": _show_views,
}
"Kinds of extensions, and the function that lists those that are there."


def _copy(options: argparse.Namespace) -> int:
    entry = _entry(options.name)
    target = options.to or Path(Path(entry.label).name)
    if target.is_dir():
        target = target / Path(entry.label).name
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target} exists: choose another place with --to.")
    try:
        target.write_text(entry.text, encoding="utf-8")
    except OSError as problem:
        raise UsageError(
            f"{target} cannot be written: {problem.strerror or problem}."
        ) from None
    say(
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
