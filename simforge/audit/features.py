"""Features: what an answer looks like without understanding it, as numbers.

Families of features that a scorer can use:

- `text`: style (length, markdown, punctuation, reading grade and more) and the words, as TF-IDF
  of unigrams and bigrams reduced to their main components (latent semantic analysis, Deerwester
  et al. 1990);
- `embeddings`: the vectors of a sentence encoder (`embeddings`), reduced in the same way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from simforge.audit.figures import Array
from simforge.text.measures import WORD, reading_grade, warmth

MAX_CHARACTERS = 3_000
"Characters of an answer that are read; its length always counts all of them."


MAX_COMPONENTS = 32
"Most components that words or embeddings are reduced to."


BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s+\S", re.MULTILINE)


HEADING = re.compile(r"^\s{0,3}#{1,6}\s+\S", re.MULTILINE)


BOLD = re.compile(r"\*\*[^*\n]{2,}\*\*")


SENTENCE = re.compile(r"[.!?…。！？]+(?:\s|$)|\n+")


HEDGE = re.compile(
    r"\b(?:may|might|perhaps|possibly|probably|could|seems?|usually|often|generally)\b",
    re.IGNORECASE,
)


STYLE_COLUMNS = (
    *(
        "length",
        "bullets",
        "headings",
        "bold",
        "code",
        "exclamation",
        "question",
        "emoji",
        "digits",
        "capitals",
    ),
    *(
        "commas",
        "sentence",
        "word",
        "different",
        "hedges",
        "first_person",
        "second_person",
        "grade",
        "warmth",
        "lines",
    ),
)
"Names of the style columns."


LENGTH_COLUMN = 0


FORMAT_COLUMNS = tuple(
    STYLE_COLUMNS.index(name)
    for name in ("bullets", "headings", "bold", "code", "lines")
)


def style(text: str) -> list[float]:
    """Style of an answer, in the order of `STYLE_COLUMNS`: counts as logarithms, rates per
    word."""
    head = text[:MAX_CHARACTERS]
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
    """Style of each text (texts, columns), standardized."""
    return _standardize(np.array([style(text) for text in texts]))


def words(texts: Sequence[str], components: int = MAX_COMPONENTS) -> Array:
    """Words of each text, as the main components of TF-IDF (texts, components)."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    heads = [text[:MAX_CHARACTERS] for text in texts]
    min_texts = 1 if len(texts) < 100 else 3
    counter = TfidfVectorizer(
        ngram_range=(1, 2), min_df=min_texts, max_features=30_000, sublinear_tf=True
    )
    try:
        counts = counter.fit_transform(heads)
    except ValueError:  # there are no words, or no two texts share one
        return np.zeros((len(texts), 1))
    rank = min(components, counts.shape[1] - 1, len(texts) - 1)
    if rank < 1:
        return np.zeros((len(texts), 1))
    return _standardize(
        TruncatedSVD(rank, random_state=0, n_iter=3).fit_transform(counts)
    )


def text_family(texts: Sequence[str]) -> Array:
    """Style and words together (texts, columns)."""
    return np.hstack([styles(texts), words(texts)])


def embedding_family(texts: Sequence[str]) -> Array:
    """Main components of the embeddings of the texts (texts, columns). Raises what
    `embeddings.embed` raises."""
    from sklearn.decomposition import PCA

    from simforge.audit.embeddings import embed

    vectors = embed(texts)
    return _standardize(
        PCA(min(MAX_COMPONENTS, *vectors.shape), random_state=0).fit_transform(vectors)
    )


def _standardize(values: Array) -> Array:
    spread = values.std(axis=0)
    scaled: Array = np.clip(
        (values - values.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0), -5, 5
    )
    return scaled
