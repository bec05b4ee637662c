"""Duplicates: pairs that a person has already in nearly the same words, and how many different ones there are over all.

Texts are compared by the MinHash of their three-word runs (Broder 1997). Two pairs are nearly the same where the last
messages, the chosen and the rejected answers each are; or where they are but for being the other way round.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from simforge import clusters, records
from simforge.identity import digest
from simforge.pairing import NEAR, runs

PERMUTATIONS = 64
"Of a sketch: of two texts at the threshold the similarity is off by less than 0.08 nineteen times of twenty."
PARTS = ("prompt", "chosen", "rejected")


class Duplicates:
    """What pairs there were so far."""

    def __init__(self, dropping: bool) -> None:
        self._dropping = dropping
        self._known: dict[tuple[str, str | None], list[tuple[str, np.ndarray]]] = {}
        self._triples: set[bytes] = set()
        self._answers: set[bytes] = set()
        self._pairs = 0
        self.dropped = 0

    @property
    def distinct(self) -> dict[str, int]:
        """Pairs; different triples of prompt, chosen and rejected; and different pairs of answers, either way round."""
        return {"pairs": self._pairs, "triples": len(self._triples), "answers": len(self._answers)}

    def without(self, pairs: pa.Table) -> tuple[pa.Table, pa.Table]:
        """The pairs that stay, and the discards for the others."""
        keep, discards = [], []
        for row in pairs.select([*PARTS, "persona_id", "dimension", "turn", "dialogue_id", "id"]).to_pylist():
            own = self._near(row) if self._dropping else None
            keep.append(own is None)
            if own is None:
                self._count(row)
                continue
            self.dropped += 1
            about = {name: row[name] for name in ("dialogue_id", "persona_id", "turn")}
            discards.append({**about, "stage": "pairing", "reason": "duplicate", "detail": f"of {own}"})
        schema = records.SCHEMAS["discards"]
        return pairs.filter(pa.array(keep, pa.bool_())), pa.Table.from_pylist(discards, schema=schema)

    def _count(self, row: dict[str, Any]) -> None:
        self._pairs += 1
        prompt, chosen, rejected = (digest(row[name]) for name in PARTS)
        self._triples.add(bytes.fromhex(digest([prompt, chosen, rejected])))
        self._answers.add(bytes.fromhex(digest([prompt, *sorted((chosen, rejected))])))

    def _near(self, row: dict[str, Any]) -> str | None:
        """Id of a pair of the same person on the same dimension that is nearly the same."""
        own = np.stack([_sketch(row[name][-1]["content"]) for name in PARTS])
        known = self._known.setdefault((row["persona_id"], row["dimension"]), [])
        for key, other in known:
            if _alike(own, other) or _alike(own, other[[0, 2, 1]]):
                return key
        known.append((row["id"], own))
        return None


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(((one == other).mean(axis=1) >= NEAR).all())


def _sketch(text: str) -> np.ndarray:
    """A MinHash cut to a byte a value, of which one in 256 is equal by chance: a run has three for each pair."""
    found = clusters.sketch((" ".join(run) for run in runs(text)), PERMUTATIONS).digest()
    return np.array(found, np.uint32).astype(np.uint8)
