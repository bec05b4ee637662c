"""Clusters: what is nearly the same, so that it is held out together.

Two sets are near where the MinHash estimate of their Jaccard similarity reaches a threshold (Broder 1997), and a
cluster is what is linked by that, over however many links.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

PEOPLE, PROMPTS = 0.8, 0.7
"Similarity from which people, by their traits, and prompts, by runs of characters, are nearly the same."
PERMUTATIONS = 256
"Of a sketch, unless it says otherwise."
ERROR = 0.05
"Of an estimate, nineteen times of twenty; it is taken off the threshold, so that what is near is rather not parted."
RUN = 5
"Characters of a run."
FEW = 3
"Traits below which people are compared by their texts."
PHRASE = 6
"Words of a trait's value from which it is compared by its words, not as a whole."


def clusters(sets: Iterable[Collection[str]], near: float, bands: int) -> list[int]:
    """For each set, the number of the first one in its cluster. With more bands of the index fewer are missed, and more
    have to be compared: of what is at the threshold 0.3 % are missed with 32 for 0.8, none with 64 for 0.7."""
    from rensa import RMinHashLSH

    index = RMinHashLSH(threshold=near, num_perm=PERMUTATIONS, num_bands=bands)
    first: dict[frozenset[str], int] = {}
    of: list[int] = []
    sketches: dict[int, Any] = {}
    for number, one in enumerate(sets):
        of.append(first.setdefault(frozenset(one), number))
        if of[-1] == number:
            sketches[number] = sketch(one)
            alike = [k for k in index.query(sketches[number]) if sketches[k].jaccard(sketches[number]) >= near - ERROR]
            index.insert(number, sketches[number])
            _link(of, number, alike)
    return [_root(of, number) for number in range(len(of))]


def of_prompts(texts: Iterable[str]) -> list[int]:
    """Clusters of prompts, by the runs of characters in them, whatever their case, spaces and signs."""
    return clusters(map(_runs, texts), PROMPTS, bands=64)


def of_pairs(rows: Iterable[Sequence[str]]) -> list[int]:
    """Clusters of prompt, chosen and rejected, by the three-word runs of each: turned round they are another pair."""
    return clusters(
        ([f"{place} {run}" for place, text in enumerate(row) for run in _words(text)] for row in rows), PEOPLE, bands=32
    )


def of_people(traits: pl.DataFrame, texts: Sequence[str] | None) -> list[int]:
    """Clusters of people, a row each, by their traits: 0.8 is one trait in nine that is different. Those who are hardly
    more than a text are compared by it."""
    return clusters(_traits(traits, texts), PEOPLE, bands=32)


def linked(count: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `count` the first one that it is linked with, over however many links."""
    of = list(range(count))
    for one, other in links:
        _link(of, one, [one, other])
    return [_root(of, number) for number in range(count)]


def sketch(words: Iterable[str], permutations: int = PERMUTATIONS) -> Any:
    """The MinHash of a set of words."""
    from rensa import RMinHash

    found = RMinHash(num_perm=permutations, seed=1)
    found.update(list(words))
    return found


def _traits(traits: pl.DataFrame, texts: Sequence[str] | None) -> Iterator[list[str]]:
    names = traits.columns
    for number, row in enumerate(traits.iter_rows()):
        found: list[str] = []
        for name, value in zip(names, row, strict=True):
            words = str(value).lower().split()
            found += [f"{name}={word}" for word in words] if len(words) >= PHRASE else [f"{name}={value}"]
        if texts is not None and len(names) < FEW:
            found += _runs(texts[number])
        yield found


def _runs(text: str) -> set[str]:
    plain = " ".join(re.findall(r"\w+", text.lower()))
    return {plain[start : start + RUN] for start in range(max(1, len(plain) - RUN + 1))}


def _words(text: str) -> set[str]:
    said = re.findall(r"\w+", text.lower())
    return {" ".join(said[start : start + 3]) for start in range(max(1, len(said) - 2))}


def _link(of: list[int], number: int, alike: list[int]) -> None:
    """Join a new one with the clusters of those it is like: the earliest member is the root of all."""
    roots = {_root(of, one) for one in alike}
    if roots:
        earliest = min(roots)
        for root in (*roots, number):
            of[root] = earliest


def _root(of: list[int], number: int) -> int:
    while of[number] != number:
        of[number] = of[of[number]]
        number = of[number]
    return number
