"""Files of an audit: `audit.json` beside a section of the card, or a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path

from simforge.dataset import card
from simforge.dataset.manifest import read_manifest
from simforge.dataset.writing import disk_errors, write_atomically
from simforge.errors import UsageError
from simforge.types import JsonObject

AUDIT = "audit.json"


def add_audit(folder: Path, audit: JsonObject) -> Path:
    """Add an audit to a sealed run: write `audit.json`, and a section of the card."""
    manifest = read_manifest(folder)
    with disk_errors(folder):
        write_atomically(folder / AUDIT, json.dumps(audit, indent=2))
        write_atomically(folder / "README.md", card.render(manifest, audit=audit))
    return folder / AUDIT


def write_standalone_audit(folder: Path, audit: JsonObject) -> Path:
    """Write an audit of data that is not a SimForge run into a folder of its own: `audit.json`,
    and `card.md` with the section for the data's card. Raises `UsageError`."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file, but must be a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / AUDIT, json.dumps(audit, indent=2))
        write_atomically(folder / "card.md", card.audit_section(audit) + "\n")
    except OSError as problem:
        raise UsageError(
            f"{folder} cannot be written: {problem.strerror or problem}."
        ) from None
    return folder / AUDIT
