"""Hygiene: duplicates, leaks between splits, overlap with benchmarks, refusals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from simforge import clusters, prompts
from simforge.audit import figures
from simforge.audit.figures import not_measured
from simforge.audit.pairs import Pairs
from simforge.candidates import refuses
from simforge.errors import SourceError
from simforge.measures import WORD

OVERLAP = 13
"Words in a row that a prompt shares with a benchmark's."
SAMPLE = 10_000
"Pairs compared for near-duplicates at most."


def measure(pairs: Pairs, benchmarks: Sequence[Path] = ()) -> dict[str, Any]:
    """Shares of pairs that stand there again, exactly or nearly; prompts on two sides of a split; and the rest."""
    frame = pairs.frame
    triples = frame.select("prompt", "chosen", "rejected").n_unique()
    own = frame.select("persona", "prompt", "chosen", "rejected", pl.col("dimension").fill_null("")).n_unique()
    parts = frame.head(SAMPLE).select("prompt", "chosen", "rejected").unique(maintain_order=True)
    near = clusters.of_pairs(parts.iter_rows())
    refused = [frame[side].map_elements(refuses, return_dtype=pl.Boolean) for side in ("chosen", "rejected")]
    return {
        "pairs": frame.height,
        "different": triples,
        "repeated": figures.share(frame.height - triples, frame.height),
        "repeated_by_one_person": not_measured("it is not known who prefers")
        if frame["persona"].null_count()
        else figures.share(frame.height - own, frame.height),
        "near_duplicates": figures.share(len(near) - len(set(near)), len(near)),
        "same_text": figures.share(
            pairs.same + int((frame["chosen"] == frame["rejected"]).sum()), frame.height + pairs.same
        ),
        "empty": figures.share(
            int(((frame["chosen"].str.strip_chars() == "") | (frame["rejected"].str.strip_chars() == "")).sum()),
            frame.height,
        ),
        "refusals": {
            "chosen": figures.share(int(refused[0].sum()), frame.height),
            "rejected": figures.share(int(refused[1].sum()), frame.height),
            "both": figures.share(int((refused[0] & refused[1]).sum()), frame.height),
        },
        "leaks": _leaks(frame),
        "benchmarks": _overlap(frame, benchmarks),
        "licence": pairs.manifest["licence"] if pairs.manifest else not_measured("the dataset does not say"),
    }


def _leaks(frame: pl.DataFrame) -> dict[str, Any]:
    """People in training and among those held out; prompts, nearly the same, likewise."""
    if frame["split"].null_count():
        reason = not_measured("nothing is held out")
        return {"people": reason, "prompts": reason}
    found: dict[str, Any] = {}
    seen = frame.filter(pl.col("split") == "train")
    for what, split, column in (("people", "test_personas", "persona"), ("prompts", "test_prompts", "prompt")):
        held = frame.filter(split=split)[column].drop_nulls().unique()
        if not len(held):
            found[what] = not_measured(f"there is no split {split}")
        elif what == "people":
            found[what] = figures.share(int(held.is_in(seen[column].unique().to_list()).sum()), len(held))
        else:
            known = seen[column].drop_nulls().unique()
            near = clusters.of_prompts([*known, *held])
            told = {near[place] for place in range(len(known))}
            found[what] = figures.share(sum(near[len(known) + place] in told for place in range(len(held))), len(held))
    return found


def _overlap(frame: pl.DataFrame, benchmarks: Sequence[Path]) -> dict[str, Any]:
    if not benchmarks:
        return {"prompts": not_measured("no benchmark was named (--benchmark FILE)")}
    known: set[tuple[str, ...]] = set()
    for path in benchmarks:
        try:
            read = prompts.load(str(path), {"text": "text"})
        except SourceError as problem:
            said = str(problem).partition(" Say which")[0]
            raise SourceError(f"--benchmark: {said} Its prompts stand in a column `text`.") from None
        known = known.union(*(_grams(prompt.text) for prompt in read))
    asked = frame["prompt"].unique()
    hits = [text for text in asked if _grams(text) & known]
    return {"prompts": figures.share(len(hits), len(asked)), "such_as": hits[:3]}


def _grams(text: str) -> set[tuple[str, ...]]:
    """Each 13 words in a row; of a shorter text all of them."""
    said = [word.lower() for word in WORD.findall(re.sub(r"\s+", " ", text))]
    return {tuple(said[start : start + OVERLAP]) for start in range(max(1, len(said) - OVERLAP + 1))}
