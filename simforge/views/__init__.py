"""Views: a dataset in the format of a trainer, or of a published dataset.

    export("OUT", "trl_preference", Path("pairs.jsonl"))

Each view is a module of this package. Its docstring names the readers of the format and where
the format is documented; `frame` builds the rows. An optional function `refuses` returns the
reason why a dataset cannot be shown in this form, an optional function `notes` returns what the
rows leave out, in sentences, and `SYSTEM = False` means that the format has no place for a system
message. Views are found by module name: to add one, add a file.
"""

from __future__ import annotations

import json
import pkgutil
import traceback
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from simforge.catalog import records
from simforge.catalog.registry import module_of_file
from simforge.dataset.manifest import Manifest
from simforge.errors import NotFound, SourceError, UsageError
from simforge.hub import loading
from simforge.personas import spaces
from simforge.types import JsonObject, Profile

if TYPE_CHECKING:
    import polars as pl

    from simforge.personas.spaces import Space


SUFFIXES = (".parquet", ".jsonl", ".json")
"Supported file suffixes; the suffix decides the format."


@dataclass(frozen=True, slots=True)
class Exported:
    """A written view."""

    rows: int
    notes: list[str]
    "Sentences about what the rows leave out."


class ViewModule(Protocol):
    """Interface of a view module."""

    __doc__: str

    def frame(self, run: ViewSource) -> pl.LazyFrame:
        """Build the rows."""
        ...


@dataclass(frozen=True)
class ViewSource:
    """A dataset that a view reads, wherever it is stored."""

    source: str
    split: str | None
    system: bool = False
    "Whether a system message with the person's wish precedes the prompt."
    where: str | None = None
    "Condition that selects pairs; `None` for all of them."

    def table(self, name: str = "preferences") -> pl.LazyFrame:
        """Scan a table in the exported split; `where` is applied to `preferences` only."""
        rows = loading.scan(self.source, name, self.split)
        return loading.filtered(rows, self.where) if name == "preferences" else rows

    @cached_property
    def manifest(self) -> Manifest:
        """Manifest of the dataset."""
        return loading.manifest(self.source)

    @cached_property
    def space(self) -> Space:
        """Preference space of the dataset, with all poles."""
        return spaces.space_from_manifest(self.manifest)

    def wishes(self, column: str) -> pl.Expr:
        """Expression that turns a column of profiles into what people like in an answer, in
        words."""
        import polars as pl

        def said(row: JsonObject) -> str:
            profile = Profile(
                row["space"],
                *(tuple(row[name]) for name in ("names", "values", "vector")),
            )
            return "; ".join(self.space.liked(profile))

        return pl.col(column).map_elements(said, return_dtype=pl.String)

    def pairs(self) -> pl.LazyFrame:
        """Scan the preferences; with `system`, each prompt begins with the wish as a system
        message."""
        import polars as pl

        pairs = self.table()
        if not self.system:
            return pairs
        wish = pl.concat_list(pl.struct(role=pl.lit("system"), content="system"))
        return pairs.with_columns(prompt=wish.list.concat("prompt"))


def names() -> list[str]:
    """List the names of all views."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def view(name: str) -> ViewModule:
    """Import a view by name, or a user's own by the path of its file (`./mine.py`). Raises
    `NotFound`, and `UsageError` for a file that is not a view."""
    if name.endswith(".py"):
        module = module_of_file(Path(name).expanduser())
        if not hasattr(module, "frame"):
            raise UsageError(f"{name} is not a view: it needs a function frame(run).")
        return cast(ViewModule, module)
    if name not in names():
        raise NotFound("view", name, names())
    return cast(ViewModule, import_module(f"{__name__}.{name}"))


def rows(
    source: str | Path,
    name: str,
    split: str | None = "train",
    system: bool = False,
    where: str | None = None,
) -> pl.LazyFrame:
    """Build the rows of a view from the pairs that satisfy a condition. Raises `NotFound`,
    `UsageError` if the dataset lacks what the view needs, and what `loading.scan` raises."""
    import polars as pl

    view_module, run = view(name), ViewSource(str(source), split, system, where)
    refuses, manifest = getattr(view_module, "refuses", None), run.manifest
    reason = refuses(manifest) if refuses else None
    if reason is not None:
        raise UsageError(f"{source} cannot be seen as {name}: {reason}")
    if system and not getattr(view_module, "SYSTEM", True):
        raise UsageError(
            f"--system: the format {name} has no place for a wish before the prompt; omit --system."
        )
    try:
        frame = _frame_of(view_module, run, name)
        frame.collect_schema()
    except pl.exceptions.ColumnNotFoundError as problem:
        if name.endswith(".py"):
            raise UsageError(f"{name}: {str(problem).splitlines()[0]}.") from None
        missing = (
            str(problem).split('"')[1]
            if '"' in str(problem)
            else str(problem).splitlines()[0]
        )
        raise UsageError(
            f"{source} cannot be seen as {name}: it has no column {missing}; sensitive "
            "columns are left out when a version is published without "
            "--publish-traits."
        ) from None
    return frame


def _frame_of(view_module: ViewModule, run: ViewSource, name: str) -> pl.LazyFrame:
    """Build the rows of a view; the mistakes of a user's own view are told with their line."""
    import polars as pl

    if not name.endswith(".py"):
        return view_module.frame(run)
    try:
        frame = view_module.frame(run)
    except pl.exceptions.ColumnNotFoundError:
        raise
    except Exception as problem:  # a user's own code may raise anything
        line = traceback.extract_tb(problem.__traceback__)[-1].lineno
        raise UsageError(
            f"{name}, line {line}: frame(run) failed: {type(problem).__name__}: {problem}."
        ) from None
    if isinstance(frame, pl.DataFrame):
        return frame.lazy()
    if not isinstance(frame, pl.LazyFrame):
        raise UsageError(
            f"{name}: frame(run) must return a polars frame, not {type(frame).__name__}."
        )
    return frame


def export(
    source: str | Path,
    name: str,
    path: Path,
    split: str | None = "train",
    system: bool = False,
    where: str | None = None,
) -> Exported:
    """Write a view to a file. Raises what `rows` raises, `UsageError` for an unknown file suffix,
    and `SourceError` if there are no rows."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path}: a view is written as {', '.join(SUFFIXES)}.")
    frame = rows(source, name, split, system, where)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)  # a link there is not followed
    try:
        count = _write(frame, temporary, path.suffix)
        if count:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    notes = getattr(view(name), "notes", None)
    left_out = notes(ViewSource(str(source), split, system, where)) if notes else []
    if not count:
        part = f" in the split {split}" if split else ""
        reason = "docs/datasets.md says what the format needs"
        if where is not None and not _has_pairs(source, split, where):
            reason = f"no pair{part} satisfies --where {where!r}"
        raise SourceError(
            f"{source} has no rows for {name}{part}: {'; '.join(left_out) or reason}."
        )
    return Exported(count, left_out)


def _has_pairs(source: str | Path, split: str | None, where: str) -> bool:
    pairs = ViewSource(str(source), split, where=where).table()
    return pairs.limit(1).collect().height > 0


def _write(frame: pl.LazyFrame, path: Path, suffix: str) -> int:
    """Write a frame in batches, and return the number of rows."""
    import polars as pl

    if suffix == ".parquet":
        frame.sink_parquet(path)
        return int(records.scan_parquet([path]).select(pl.len()).collect().item())
    count = 0
    with path.open("x", encoding="utf-8") as file:
        for batch in frame.collect_batches(
            chunk_size=loading.BATCH_ROWS, lazy=True, engine="streaming"
        ):
            for row in batch.iter_rows(named=True):
                before, after = (
                    ("", "\n")
                    if suffix == ".jsonl"
                    else (",\n" if count else "[\n", "")
                )
                file.write(before + json.dumps(row, ensure_ascii=False) + after)
                count += 1
        file.write("\n]\n" if suffix == ".json" and count else "")
    return count
