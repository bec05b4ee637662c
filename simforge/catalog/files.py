"""Text and JSON files that may come from strangers: bounded in size, decoded, and wrong ones told
in a sentence.

    read_text(Path("mine.csv"))                -> its text, without a byte order mark
    read_json_object(Path("manifest.json"))    -> {...}
"""

from __future__ import annotations

import codecs
import json
import stat
from pathlib import Path
from typing import Any

from simforge.errors import SourceError
from simforge.types import JsonObject

MAX_TEXT_BYTES = 16 * 2**20
"Maximum size of a file that people write: recipes, packs, generators."


MAX_JSON_BYTES = 256 * 2**20
"Maximum size of a JSON file that a program writes: manifests list up to millions of values."


def read_text(path: Path, label: str | None = None, limit: int = MAX_TEXT_BYTES) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte order mark. Raises
    `SourceError` for a file that is missing, is no regular file, is larger than `limit` bytes or
    is no text."""
    name = label or str(path)
    try:
        about = path.stat()
        if stat.S_ISDIR(about.st_mode):
            raise SourceError(f"{name} is a folder, and a file is needed.")
        if not stat.S_ISREG(about.st_mode):
            raise SourceError(f"{name} is not a regular file.")
        if about.st_size > limit:
            raise SourceError(
                f"{name} is {about.st_size / 2**20:.0f} MB large, and at most "
                f"{limit / 2**20:.0f} MB are read."
            )
        content = path.read_bytes()
    except FileNotFoundError:
        raise SourceError(f"there is no file {name}.") from None
    except (OSError, ValueError) as problem:
        raise SourceError(
            f"{name} cannot be read: {getattr(problem, 'strerror', None) or problem}."
        ) from None
    return decode_text(content, name)


def decode_text(content: bytes, label: str) -> str:
    """Decode UTF-8, or UTF-16 with a byte order mark. Raises `SourceError` with the line of the
    first byte that is no text."""
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise SourceError(
            f"{label}, line {line}: not UTF-8 text. Save the file as UTF-8."
        ) from None


def parse_json(text: str | bytes, label: str) -> Any:
    """Parse JSON. Raises `SourceError` with the line of the mistake."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        raise SourceError(
            f"{label}, line {problem.lineno}: broken JSON: {problem.msg}."
        ) from None
    except (ValueError, RecursionError) as problem:
        reason = (
            "it is nested too deeply"
            if isinstance(problem, RecursionError)
            else str(problem).split(":")[0]
        )
        raise SourceError(f"{label}: broken JSON: {reason}.") from None


def parse_json_object(text: str | bytes, label: str) -> JsonObject:
    """Parse JSON that must be an object. Raises `SourceError`."""
    value = parse_json(text, label)
    if not isinstance(value, dict):
        raise SourceError(
            f"{label} must hold one JSON object, not {type(value).__name__}."
        )
    return value


def read_json_object(
    path: Path, label: str | None = None, limit: int = MAX_JSON_BYTES
) -> JsonObject:
    """Return the JSON object in a file. Raises `SourceError`."""
    return parse_json_object(read_text(path, label, limit), label or str(path))
