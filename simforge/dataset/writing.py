"""Files that appear whole: written beside their place, synced to the disk, and renamed. Disk
errors become sentences."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from simforge.errors import RunFolderError

PRIVATE, SHARED = 0o600, 0o666
"Modes of files that only this user may read, and of files that follow the umask."


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


def write_atomically(path: Path, content: str | bytes, mode: int = SHARED) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut. A link at
    its place, or at that of the draft, is replaced and never followed."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(draft, flags, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content if isinstance(content, bytes) else content.encode())
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
