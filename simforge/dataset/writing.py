"""Files that appear whole: written beside their place and renamed; disk errors as sentences."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from simforge.errors import RunFolderError


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a disk error into a `RunFolderError`; files written before stay valid."""
    try:
        yield
    except OSError as problem:
        reason = problem.strerror or str(problem)
        where = problem.filename or path
        raise RunFolderError(
            f"{path} cannot be written: {reason} ({where}). Finished parts are kept; "
            "fix the problem and run the same command again, or choose another --out."
        ) from None


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file atomically."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(content if isinstance(content, bytes) else content.encode())
    temporary.replace(path)
