"""Views: a dataset in the form that a trainer, or a published dataset's reader, takes.

    export("OUT", "trl_preference", Path("pairs.jsonl"))

A view is one module here: its docstring says who reads the form and where that is written down, `frame` makes the
rows, `refuses`, where it has one, says why a dataset does not have what it takes, and `SYSTEM = False` that there is no
place for a system message. It is found by its name: to add one, add a file.
"""

from __future__ import annotations

import json
import pkgutil
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from simforge import loading, preferences
from simforge.errors import NotFound, SourceError, UsageError
from simforge.types import Profile

if TYPE_CHECKING:
    import polars as pl

    from simforge.preferences import Space

WRITTEN = (".parquet", ".jsonl", ".json")
"Kinds of files; the suffix says which."


class View(Protocol):
    """A module of this package."""

    __doc__: str

    def frame(self, run: Run) -> pl.LazyFrame:
        """The rows."""
        ...


@dataclass(frozen=True)
class Run:
    """A dataset, wherever it is."""

    source: str
    split: str | None
    system: bool = False
    "Whether a system message with the person's wish stands before the prompt."
    where: str | None = None
    "SQL condition over the pairs that are taken."

    def table(self, name: str = "preferences") -> pl.LazyFrame:
        """A table's rows in the split that is exported."""
        rows = loading.scan(self.source, name, self.split)
        return loading.filtered(rows, self.where) if name == "preferences" else rows

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What is known of how it was made."""
        return loading.manifest(self.source)

    @cached_property
    def space(self) -> Space:
        """Its preference space, with all poles."""
        return preferences.of_manifest(self.manifest)

    def wishes(self, column: str) -> pl.Expr:
        """What people like in an answer, in words, from a column of profiles."""
        import polars as pl

        def said(row: dict[str, Any]) -> str:
            profile = Profile(row["space"], *(tuple(row[name]) for name in ("names", "values", "vector")))
            return "; ".join(self.space.wishes(profile))

        return pl.col(column).map_elements(said, return_dtype=pl.String)

    def pairs(self) -> pl.LazyFrame:
        """The preferences; with `system`, their prompts begin with the wish in words."""
        import polars as pl

        pairs = self.table()
        if not self.system:
            return pairs
        wish = pl.concat_list(pl.struct(role=pl.lit("system"), content="system"))
        return pairs.with_columns(prompt=wish.list.concat("prompt"))


def names() -> list[str]:
    """All views."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def view(name: str) -> View:
    """A view by its name. Raises `NotFound`."""
    if name not in names():
        raise NotFound("view", name, names())
    return cast(View, import_module(f"{__name__}.{name}"))


def rows(
    source: str | Path, name: str, split: str | None = "train", system: bool = False, where: str | None = None
) -> pl.LazyFrame:
    """A dataset's rows as a view has them, of the pairs that an SQL condition holds for. Raises `NotFound`,
    `UsageError` where the dataset does not have what the view takes, and what `loading.scan` raises."""
    import polars as pl

    found, run = view(name), Run(str(source), split, system, where)
    refuses, manifest = getattr(found, "refuses", None), run.manifest
    reason = refuses(manifest) if refuses else None
    if reason is not None:
        raise UsageError(f"{source} cannot be seen as {name}: {reason}")
    if system and not getattr(found, "SYSTEM", True):
        raise UsageError(f"--system: the form {name} has no place for a wish before the prompt; leave it out.")
    try:
        frame = found.frame(run)
        frame.collect_schema()
    except pl.exceptions.ColumnNotFoundError as problem:
        missing = str(problem).split('"')[1] if '"' in str(problem) else str(problem).splitlines()[0]
        raise UsageError(
            f"{source} cannot be seen as {name}: it has no column {missing}; what a pack calls sensitive is left out "
            "where a version is published without --publish-traits."
        ) from None
    return frame


def export(
    source: str | Path,
    name: str,
    to: Path,
    split: str | None = "train",
    system: bool = False,
    where: str | None = None,
) -> int:
    """Write a view to a file; gives its rows. Raises what `rows` raises, and `UsageError` for another kind of file."""
    if to.suffix not in WRITTEN:
        raise UsageError(f"{to}: a view is written as {', '.join(WRITTEN)}.")
    frame = rows(source, name, split, system, where)
    to.parent.mkdir(parents=True, exist_ok=True)
    made = to.with_name(f".{to.name}")
    try:
        count = _written(frame, made, to.suffix)
        if count:
            made.replace(to)
    finally:
        made.unlink(missing_ok=True)
    if not count:
        part = f" in the split {split}" if split else ""
        raise SourceError(f"{source} has nothing to show as {name}{part}: docs/datasets.md says what the form takes.")
    return count


def _written(frame: pl.LazyFrame, path: Path, suffix: str) -> int:
    """Write a frame as it is read; gives its rows."""
    import polars as pl

    if suffix == ".parquet":
        frame.sink_parquet(path)
        return int(pl.scan_parquet(path).select(pl.len()).collect().item())
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for batch in frame.collect_batches(chunk_size=loading.BATCH, lazy=True, engine="streaming"):
            for row in batch.iter_rows(named=True):
                before, after = ("", "\n") if suffix == ".jsonl" else (",\n" if count else "[\n", "")
                file.write(before + json.dumps(row, ensure_ascii=False) + after)
                count += 1
        file.write("\n]\n" if suffix == ".json" and count else "")
    return count
