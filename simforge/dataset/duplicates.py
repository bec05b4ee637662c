"""Detection of nearly identical pairs of a person, and counts of distinct pairs overall.

Texts are compared by the MinHash of their three-word runs (Broder 1997). Two pairs are
near-duplicates if their last messages, chosen answers and rejected answers each are nearly the
same, or if they are so after swapping chosen and rejected in one pair.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from simforge.dataset import tables
from simforge.identity import digest
from simforge.judging.pairing import NEAR_SAME_SIMILARITY, three_word_runs
from simforge.text import near_duplicates
from simforge.types import JsonObject

PERMUTATIONS = 64
"Sketch size; at the threshold, the similarity error is below 0.08 in 95 % of cases."


PARTS = ("prompt", "chosen", "rejected")


class DuplicateFilter:
    """Index of the pairs seen so far."""

    def __init__(self, drop: bool) -> None:
        self._dropping = drop
        self._sketches: dict[tuple[str, str | None], list[tuple[str, np.ndarray]]] = {}
        self._triples: set[bytes] = set()
        self._answers: set[bytes] = set()
        self._pairs = 0
        self.dropped = 0

    @property
    def distinct(self) -> dict[str, int]:
        """Number of pairs, of distinct triples of prompt, chosen and rejected, and of distinct
        pairs of answers in either order."""
        return {
            "pairs": self._pairs,
            "triples": len(self._triples),
            "answers": len(self._answers),
        }

    def filter(self, pairs: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Split pairs into those to keep and discard rows for the near-duplicates."""
        keep, discards = [], []
        for row in pairs.select(
            [*PARTS, "persona_id", "dimension", "turn", "dialogue_id", "id"]
        ).to_pylist():
            duplicate_of = self._find_duplicate(row) if self._dropping else None
            keep.append(duplicate_of is None)
            if duplicate_of is None:
                self._count(row)
                continue
            self.dropped += 1
            keys = {name: row[name] for name in ("dialogue_id", "persona_id", "turn")}
            discards.append(
                {
                    **keys,
                    "stage": "pairing",
                    "reason": "duplicate",
                    "detail": f"of {duplicate_of}",
                }
            )
        schema = tables.SCHEMAS["discards"]
        return pairs.filter(pa.array(keep, pa.bool_())), pa.Table.from_pylist(
            discards, schema=schema
        )

    def _count(self, row: JsonObject) -> None:
        self._pairs += 1
        prompt, chosen, rejected = (digest(row[name]) for name in PARTS)
        self._triples.add(bytes.fromhex(digest([prompt, chosen, rejected])))
        self._answers.add(bytes.fromhex(digest([prompt, *sorted((chosen, rejected))])))

    def _find_duplicate(self, row: JsonObject) -> str | None:
        """Find the id of a nearly identical pair of the same person on the same dimension, and
        record the pair if there is none."""
        sketches = np.stack([_sketch(row[name][-1]["content"]) for name in PARTS])
        earlier_pairs = self._sketches.setdefault(
            (row["persona_id"], row["dimension"]), []
        )
        for key, earlier in earlier_pairs:
            if _is_near_duplicate(sketches, earlier) or _is_near_duplicate(
                sketches, earlier[[0, 2, 1]]
            ):
                return key
        earlier_pairs.append((row["id"], sketches))
        return None


def _is_near_duplicate(first: np.ndarray, second: np.ndarray) -> bool:
    return bool(((first == second).mean(axis=1) >= NEAR_SAME_SIMILARITY).all())


def _sketch(text: str) -> np.ndarray:
    """Compute a MinHash sketch, truncated to one byte per value; unequal values match by chance
    once in 256. A run holds three sketches per pair."""
    values = near_duplicates.minhash(
        (" ".join(run) for run in three_word_runs(text)), PERMUTATIONS
    ).digest()
    return np.array(values, np.uint32).astype(np.uint8)
