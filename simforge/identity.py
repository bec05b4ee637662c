"""The only hash function and the only source of randomness.

Identity comes from content: two values with equal content have the same digest in every process
and on every machine. Randomness is derived, never drawn from a global state: `rng(seed,
purpose, key)` is a pure function, so the plan of a run does not depend on the order of calls.

    digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    rng(0, "order", scenario.key).random()
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def canonical(value: Any) -> str:
    """Encode `value` as JSON text with sorted keys. Dataclasses and paths are deliberately not
    accepted."""
    return _ENCODER.encode(value)


def digest(value: Any, length: int = 16) -> str:
    """Return the first `length` hex digits of the SHA-256 of `value`'s canonical JSON (16
    digits: 64 bits)."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def sha256(*parts: str) -> hashlib._Hash:
    """Return the SHA-256 of texts in order, each preceded by its length, so that different
    lists never give the same input."""
    return hashlib.sha256("".join(f"{len(part)}\x1f{part}" for part in parts).encode())


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def derived_seed(seed: int, purpose: str, key: str = "") -> int:
    """Return a seed in [0, 2**31) for one purpose and one key."""
    text = f"{seed}\x1f{purpose}\x1f{key}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big") & 0x7FFFFFFF


def rng(seed: int, purpose: str, key: str = "") -> random.Random:
    """Return a separate random generator for one purpose and one key."""
    text = f"{seed}\x1f{purpose}\x1f{key}".encode()
    return random.Random(int.from_bytes(hashlib.sha256(text).digest()[:16], "big"))


def shuffled_item(items: Sequence[T], number: int, seed: int, purpose: str) -> T:
    """Return item `number` of an endless shuffle: each cycle contains every item once, in its
    own order."""
    cycle, position = divmod(number, len(items))
    return items[_shuffled_order(seed, purpose, cycle, len(items))[position]]


@lru_cache(maxsize=8)
def _shuffled_order(seed: int, purpose: str, cycle: int, count: int) -> tuple[int, ...]:
    return tuple(rng(seed, purpose, str(cycle)).sample(range(count), count))
