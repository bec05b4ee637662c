"""Features: what can be seen of an answer without understanding it, as numbers.

Families of features, by which a scorer sees answers:

- `text`: style (length, markdown, punctuation, reading grade and more) and the words, as TF-IDF of one and two words
  cut down to their main directions (latent semantic analysis, Deerwester et al. 1990);
- `embeddings`: what a sentence encoder makes of an answer (`embeddings`), cut down likewise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from simforge.audit.figures import Array
from simforge.measures import WORD, reading_grade, warmth

SEEN = 3_000
"Characters of an answer that are looked at; its length is always that of all."
DIRECTIONS = 32
"Of the words."
BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+\S", re.MULTILINE)
HEADING = re.compile(r"^\s{0,3}#{1,6}\s+\S", re.MULTILINE)
BOLD = re.compile(r"\*\*[^*\n]{2,}\*\*")
SENTENCE = re.compile(r"[.!?…。！？]+(?:\s|$)|\n+")
HEDGE = re.compile(r"\b(?:may|might|perhaps|possibly|probably|could|seems?|usually|often|generally)\b", re.IGNORECASE)
STYLE = (
    *("length", "bullets", "headings", "bold", "code", "exclamation", "question", "emoji", "digits", "capitals"),
    *("commas", "sentence", "word", "different", "hedges", "first_person", "second_person", "grade", "warmth", "lines"),
)
"Names of the style's columns."
LENGTH = 0
FORMAT = tuple(STYLE.index(name) for name in ("bullets", "headings", "bold", "code", "lines"))


def style(text: str) -> list[float]:
    """The style of an answer, in the order of `STYLE`; counts as logarithms, rates per word."""
    head = text[:SEEN]
    words = WORD.findall(head)
    count = max(1, len(words))
    lower = [word.lower() for word in words]
    sentences = max(1, sum(bool(part.strip()) for part in SENTENCE.split(head)))
    return [
        math.log1p(len(text) / 5),
        math.log1p(len(BULLET.findall(head))),
        math.log1p(len(HEADING.findall(head))),
        math.log1p(len(BOLD.findall(head))),
        float("```" in head),
        math.log1p(head.count("!")),
        math.log1p(head.count("?")),
        math.log1p(sum(ord(sign) > 0x2600 for sign in head)),
        sum(sign.isdigit() for sign in head) / count,
        sum(sign.isupper() for sign in head) / count,
        head.count(",") / count,
        math.log(count / sentences + 1),
        sum(map(len, words)) / count,
        len(set(lower)) / count,
        len(HEDGE.findall(head)) / count,
        sum(word in ("i", "my", "me", "i'm") for word in lower) / count,
        sum(word in ("you", "your", "you're") for word in lower) / count,
        reading_grade(head),
        warmth(head),
        math.log1p(head.count("\n")),
    ]


def styles(texts: Sequence[str]) -> Array:
    """The style of each text (texts, columns), in units of their spread."""
    return _scaled(np.array([style(text) for text in texts]))


def words(texts: Sequence[str], directions: int = DIRECTIONS) -> Array:
    """The words of each text, as the main directions of TF-IDF (texts, directions)."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    heads = [text[:SEEN] for text in texts]
    least = 1 if len(texts) < 100 else 3
    counter = TfidfVectorizer(ngram_range=(1, 2), min_df=least, max_features=30_000, sublinear_tf=True)
    try:
        counted = counter.fit_transform(heads)
    except ValueError:  # there are no words, or none that two texts share
        return np.zeros((len(texts), 1))
    wide = min(directions, counted.shape[1] - 1, len(texts) - 1)
    if wide < 1:
        return np.zeros((len(texts), 1))
    return _scaled(TruncatedSVD(wide, random_state=0, n_iter=3).fit_transform(counted))


def text_family(texts: Sequence[str]) -> Array:
    """Style and words together (texts, columns)."""
    return np.hstack([styles(texts), words(texts)])


def embedding_family(texts: Sequence[str]) -> Array:
    """The main directions of the texts' embeddings (texts, columns). Raises what `embeddings.embed` raises."""
    from sklearn.decomposition import PCA

    from simforge.audit.embeddings import embed

    found = embed(texts)
    return _scaled(PCA(min(DIRECTIONS, *found.shape), random_state=0).fit_transform(found))


def _scaled(values: Array) -> Array:
    spread = values.std(axis=0)
    found: Array = np.clip((values - values.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0), -5, 5)
    return found
