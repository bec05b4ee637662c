"""SimForge: personalised preference data from simulated users.

Most users start from the command line (`simforge generate`). From Python:

    simforge.scan("OUT", "personas")                     -> polars.LazyFrame
    simforge.load("OWNER/NAME@1.2.0", split="train")     -> datasets.Dataset

Importing this package loads nothing heavy: models, Ray, Arrow and the Hub clients are imported
where they are used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import datasets
    import polars as pl


__version__ = "0.1.0"


__all__ = ["__version__", "load", "scan"]


def scan(
    source: str | Path, table: str = "preferences", split: str | None = None
) -> pl.LazyFrame:
    """Scan a table lazily; `split` is one of its splits, by default all of them.

    A source is the folder of a run, a URL supported by fsspec (`s3://bucket/run`), or a
    version on the Hub (`OWNER/NAME@1.2.0`, `@latest`) or at a URL (`s3://bucket/run@1.2.0`).
    Raises `NotFound` for an unknown table or split, `SourceError` if the dataset does not
    exist, and `HubError`.
    """
    from simforge.hub import loading

    return loading.scan(source, table, split)


def load(
    source: str | Path,
    table: str = "preferences",
    split: str | None = "train",
    where: str | None = None,
    view: str | None = None,
    streaming: bool = False,
    system: bool = False,
) -> datasets.Dataset | datasets.IterableDataset:
    """Load a table as a `datasets` object, or a view of the dataset (`view="trl_sft"`). With
    `system`, the person's wish precedes each prompt of a view.

    `where` is a condition over the columns of the table; for a view, over the columns of
    the pairs that it is made from (`label = 'judge'`). Rows are memory-mapped from a file in
    the cache of `datasets`, which is written once. With `streaming` they are read on demand and
    no file is written (a version on the Hub is still downloaded first).

    Raises what `scan` raises, and `UsageError` if `datasets` is not installed or the condition
    is invalid.
    """
    import importlib.util

    from simforge import views
    from simforge.errors import UsageError
    from simforge.hub import loading

    if importlib.util.find_spec("datasets") is None:
        raise UsageError(
            "simforge.load returns a datasets.Dataset: install datasets, or use simforge.scan."
        )
    if view is None:
        frame = loading.filtered(loading.scan(source, table, split), where)
    elif table != "preferences":
        raise UsageError(
            f"a view is made of several tables: pass view={view!r} or table={table!r}, not both."
        )
    else:
        frame = views.rows(source, view, split, system, where)
    request = [table, split, where, view, system]
    return loading.to_dataset(frame, source, request, streaming)
