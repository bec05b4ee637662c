"""Near-duplicates: groups texts and people that are nearly the same, so that they are held out
together.

Two sets are near-duplicates if the MinHash estimate of their Jaccard similarity reaches a
threshold (Broder 1997). A cluster contains everything connected by such links, directly or
through others.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


PEOPLE_SIMILARITY, PROMPT_SIMILARITY = 0.8, 0.7
"Similarity from which people (by traits) and prompts (by character runs) are near-duplicates."


PERMUTATIONS = 256
"Default number of permutations of a MinHash."


ESTIMATE_ERROR = 0.05
"Estimates are this accurate in 19 of 20 cases; subtracted from the threshold, to miss fewer."


RUN_LENGTH = 5
"Characters in a run."


MIN_TRAITS = 3
"People with fewer traits than this are also compared by their texts."


MIN_PHRASE_WORDS = 6
"A trait's value with at least this many words is compared word by word instead of as a whole."


def cluster_sets(
    sets: Iterable[Collection[str]], threshold: float, bands: int
) -> list[int]:
    """Returns for each set the number of the first set in its cluster. With more bands, the
    index misses fewer near-duplicates but compares more sets. At the threshold it misses 0.3 %
    with 32 bands for 0.8, none with 64 for 0.7."""
    from rensa import RMinHashLSH

    index = RMinHashLSH(threshold=threshold, num_perm=PERMUTATIONS, num_bands=bands)
    first: dict[frozenset[str], int] = {}
    parents: list[int] = []
    sketches: dict[int, Any] = {}
    for number, members in enumerate(sets):
        parents.append(first.setdefault(frozenset(members), number))
        if parents[-1] == number:
            sketches[number] = minhash(members)
            similar = [
                candidate
                for candidate in index.query(sketches[number])
                if sketches[candidate].jaccard(sketches[number])
                >= threshold - ESTIMATE_ERROR
            ]
            index.insert(number, sketches[number])
            _merge(parents, number, similar)
    return [_find_root(parents, number) for number in range(len(parents))]


def cluster_prompts(texts: Iterable[str]) -> list[int]:
    """Clusters prompts by their runs of characters, ignoring case, spaces and punctuation."""
    return cluster_sets(map(_character_runs, texts), PROMPT_SIMILARITY, bands=64)


def cluster_pairs(rows: Iterable[Sequence[str]]) -> list[int]:
    """Clusters rows of prompt, chosen and rejected by the three-word runs of each text.
    Swapping chosen and rejected makes a different pair."""
    return cluster_sets(
        (
            [
                f"{place} {run}"
                for place, text in enumerate(row)
                for run in _three_word_runs(text)
            ]
            for row in rows
        ),
        PEOPLE_SIMILARITY,
        bands=32,
    )


def cluster_people(traits: pl.DataFrame, texts: Sequence[str] | None) -> list[int]:
    """Clusters people, one row each, by their traits: 0.8 means that one trait in nine differs.
    People with hardly any traits are also compared by their texts."""
    return cluster_sets(_trait_sets(traits, texts), PEOPLE_SIMILARITY, bands=32)


def connected_components(count: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """Returns for each of `count` items the first item that it is connected with, directly or
    through others."""
    parents = list(range(count))
    for first, second in links:
        _merge(parents, first, [first, second])
    return [_find_root(parents, number) for number in range(count)]


def minhash(words: Iterable[str], permutations: int = PERMUTATIONS) -> Any:
    """Computes the MinHash of a set of words."""
    from rensa import RMinHash

    word_minhash = RMinHash(num_perm=permutations, seed=1)
    word_minhash.update(list(words))
    return word_minhash


def _trait_sets(
    traits: pl.DataFrame, texts: Sequence[str] | None
) -> Iterator[list[str]]:
    names = traits.columns
    for number, row in enumerate(traits.iter_rows()):
        items: list[str] = []
        for name, value in zip(names, row, strict=True):
            words = str(value).lower().split()
            items += (
                [f"{name}={word}" for word in words]
                if len(words) >= MIN_PHRASE_WORDS
                else [f"{name}={value}"]
            )
        if texts is not None and len(names) < MIN_TRAITS:
            items += _character_runs(texts[number])
        yield items


def _character_runs(text: str) -> set[str]:
    plain = " ".join(re.findall(r"\w+", text.lower()))
    return {
        plain[start : start + RUN_LENGTH]
        for start in range(max(1, len(plain) - RUN_LENGTH + 1))
    }


def _three_word_runs(text: str) -> set[str]:
    text_words = re.findall(r"\w+", text.lower())
    return {
        " ".join(text_words[start : start + 3])
        for start in range(max(1, len(text_words) - 2))
    }


def _merge(parents: list[int], number: int, similar: list[int]) -> None:
    """Merges an item with the clusters of the items similar to it; the earliest member becomes
    the root."""
    roots = {_find_root(parents, member) for member in similar}
    if roots:
        earliest = min(roots)
        for root in (*roots, number):
            parents[root] = earliest


def _find_root(parents: list[int], number: int) -> int:
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = parents[number]
    return number
