"""The only hash and the only randomness.

Identity comes from content: two things with equal content have the same digest in every process and on every
machine. Randomness is derived, never drawn from a global state: `rng(seed, purpose, key)` is a function, so the
plan of a run does not depend on who asks first.

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


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: Any) -> str:
    """`value` as JSON text with sorted keys; dataclasses and paths are not accepted, on purpose."""
    return _ENCODER.encode(value)


def digest(value: Any, length: int = 16) -> str:
    """The first `length` hex digits of the SHA-256 of `value`'s canonical JSON (16 digits: 64 bits)."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:length]


def sha256(*parts: str) -> hashlib._Hash:
    """The SHA-256 of texts in their order, each with its length before it: no two lists of texts are alike."""
    return hashlib.sha256("".join(f"{len(part)}\x1f{part}" for part in parts).encode())


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def derived_seed(seed: int, purpose: str, key: str = "") -> int:
    """A seed in [0, 2**31) for one purpose and one key."""
    text = f"{seed}\x1f{purpose}\x1f{key}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big") & 0x7FFFFFFF


def rng(seed: int, purpose: str, key: str = "") -> random.Random:
    """A generator of its own for one purpose and one key."""
    text = f"{seed}\x1f{purpose}\x1f{key}".encode()
    return random.Random(int.from_bytes(hashlib.sha256(text).digest()[:16], "big"))


def cycled(items: Sequence[T], number: int, seed: int, purpose: str) -> T:
    """Item `number` of an endless shuffle: each round has every item once, in an order of its own."""
    around, place = divmod(number, len(items))
    return items[_order(seed, purpose, around, len(items))[place]]


@lru_cache(maxsize=8)
def _order(seed: int, purpose: str, around: int, count: int) -> tuple[int, ...]:
    return tuple(rng(seed, purpose, str(around)).sample(range(count), count))
