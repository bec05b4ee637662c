"""SimForge: personalised preference data made with simulated users.

The command line is the front door (`simforge generate`); from Python, `simforge.pipeline.generate` is the same
run as a function. Importing this package loads nothing heavy: models, Ray, Arrow and the clients of the Hub are
imported where they are used.

    simforge.scan("OUT", "personas")                     -> polars.LazyFrame
    simforge.load("OWNER/NAME@1.2.0", split="train")     -> datasets.Dataset
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load", "scan"]


def __getattr__(name: str) -> Any:
    if name in ("load", "scan"):
        from simforge import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
