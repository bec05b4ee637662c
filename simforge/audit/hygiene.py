"""Hygiene: duplicates, leaks between splits, overlap with benchmarks, refusals."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from simforge.audit import figures
from simforge.audit.figures import Results, not_measured
from simforge.audit.pairs import REPEATED, Pairs
from simforge.dialogue.answer_filters import is_refusal
from simforge.errors import SourceError
from simforge.recipe import prompts
from simforge.text import near_duplicates
from simforge.text.measures import WORD

OVERLAP_WORDS = 13
"Length of the word sequences that a prompt must not share with a benchmark."


MAX_COMPARED = 10_000
"Most pairs that are compared for near-duplicates."


def measure(pairs: Pairs, benchmarks: Sequence[Path] = ()) -> Results:
    """Measure the shares of pairs that occur again, exactly or nearly, prompts on both sides of
    a split, and the rest."""
    frame = pairs.frame
    unique_triples = frame.select("prompt", "chosen", "rejected").n_unique()
    unique_by_person = frame.select(
        "persona",
        "wish",
        "prompt",
        "chosen",
        "rejected",
        pl.col("dimension").fill_null(""),
    ).n_unique()
    unique_pairs = (
        frame.head(MAX_COMPARED)
        .select("prompt", "chosen", "rejected")
        .unique(maintain_order=True)
    )
    groups = near_duplicates.cluster_pairs(unique_pairs.iter_rows())
    refused = [
        frame[side].map_elements(is_refusal, return_dtype=pl.Boolean)
        for side in ("chosen", "rejected")
    ]
    return {
        "pairs": frame.height,
        "is_simforge": pairs.manifest is not None,
        "different": unique_triples,
        "repeated": figures.share(
            pairs.left_out.get(REPEATED, 0) + frame.height - unique_by_person,
            pairs.left_out.get(REPEATED, 0) + frame.height,
        ),
        "repeated_by_others": not_measured("it is not known who prefers")
        if frame["persona"].null_count()
        else figures.share(unique_by_person - unique_triples, frame.height),
        "near_duplicates": figures.share(len(groups) - len(set(groups)), len(groups)),
        "same_text": figures.share(
            sum(
                count
                for reason, count in pairs.left_out.items()
                if "the same text" in reason or "a text is missing" in reason
            )
            + int((frame["chosen"] == frame["rejected"]).sum()),
            pairs.rows,
        ),
        "empty": figures.share(
            int(
                (
                    (frame["chosen"].str.strip_chars() == "")
                    | (frame["rejected"].str.strip_chars() == "")
                ).sum()
            ),
            frame.height,
        ),
        "refusals": {
            "chosen": figures.share(int(refused[0].sum()), frame.height),
            "rejected": figures.share(int(refused[1].sum()), frame.height),
            "both": figures.share(int((refused[0] & refused[1]).sum()), frame.height),
        },
        "leaks": _leaks(frame),
        "benchmarks": _overlap(frame, benchmarks),
        "licence": pairs.manifest["licence"]
        if pairs.manifest
        else not_measured("the dataset does not state it"),
    }


def _leaks(frame: pl.DataFrame) -> Results:
    """Shares of held-out people and of held-out prompts (or near-duplicates of them) that are
    also in training."""
    if frame["split"].null_count():
        reason = not_measured("nothing is held out")
        return {"people": reason, "prompts": reason}
    leaks: Results = {}
    train = frame.filter(pl.col("split") == "train")
    for kind, split, column in (
        ("people", "test_personas", "persona"),
        ("prompts", "test_prompts", "prompt"),
    ):
        held_out = frame.filter(split=split)[column].drop_nulls().unique()
        if not len(held_out):
            leaks[kind] = not_measured(f"there is no split {split}")
        elif kind == "people":
            leaks[kind] = figures.share(
                int(held_out.is_in(train[column].unique().to_list()).sum()),
                len(held_out),
            )
        else:
            train_prompts = train[column].drop_nulls().unique()
            groups = near_duplicates.cluster_prompts([*train_prompts, *held_out])
            train_groups = {groups[place] for place in range(len(train_prompts))}
            leaks[kind] = figures.share(
                sum(
                    groups[len(train_prompts) + place] in train_groups
                    for place in range(len(held_out))
                ),
                len(held_out),
            )
    return leaks


def _overlap(frame: pl.DataFrame, benchmarks: Sequence[Path]) -> Results:
    if not benchmarks:
        return {"prompts": not_measured("no benchmark was given (--benchmark FILE)")}
    benchmark_ngrams: set[tuple[str, ...]] = set()
    for path in benchmarks:
        try:
            benchmark_prompts = prompts.load(str(path), {"text": "text"})
        except SourceError as problem:
            reason = str(problem).partition(" Say which")[0]
            raise SourceError(
                f"--benchmark: {reason} It needs a column `text` with the prompts."
            ) from None
        benchmark_ngrams = benchmark_ngrams.union(
            *(_ngrams(prompt.text) for prompt in benchmark_prompts)
        )
    dataset_prompts = frame["prompt"].unique()
    hits = [text for text in dataset_prompts if _ngrams(text) & benchmark_ngrams]
    return {
        "prompts": figures.share(len(hits), len(dataset_prompts)),
        "such_as": hits[:3],
    }


def _ngrams(text: str) -> set[tuple[str, ...]]:
    """Every sequence of 13 words; for a shorter text, all of its words."""
    words = [word.lower() for word in WORD.findall(re.sub(r"\s+", " ", text))]
    return {
        tuple(words[start : start + OVERLAP_WORDS])
        for start in range(max(1, len(words) - OVERLAP_WORDS + 1))
    }
