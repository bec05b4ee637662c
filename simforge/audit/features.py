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
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from simforge.audit.figures import Array
from simforge.text.measures import WORD, lower_words, reading_grade, warmth

MAX_CHARACTERS = 3_000
"Characters of an answer that are read; its length always counts all of them."


MAX_COMPONENTS = 32
"Most components that words or embeddings are reduced to."


MIN_TERM_ROWS, MIN_TERM_SHARE = 10, 0.02
"Fewest rows, and smallest share of the rows, that a term must occur in and be absent from."


MAX_TERMS = 100
"Most terms of a text that get a column."


UNSPACED = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")
"Letters of scripts that put no spaces between words."


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


def terms(text: str) -> set[str]:
    """Words of a text and pairs of neighbouring words, in lower case. Scripts without spaces
    between words give pairs of characters."""
    parts: list[str] = []
    for word in lower_words(text):
        parts += (
            [word[start : start + 2] for start in range(max(1, len(word) - 1))]
            if UNSPACED.search(word)
            else [word]
        )
    return {*parts, *(" ".join(pair) for pair in pairwise(parts))}


def term_columns(texts: Sequence[str]) -> Array:
    """Texts as 0/1 columns (texts, columns): the terms that are neither in hardly any nor in
    nearly all texts, the most balanced first. Equal and complementary columns are one.

    Chosen over the components of an SVD and over sentence embeddings: on P-SOUP, where each
    profile is the sentence of its pole with another name before it, it finds the bits of the
    poles (0.55 of 0.55) from two to 237 different texts, and none with shuffled poles.
    """
    count_of_text = Counter(texts)
    terms_of_text = {text: terms(text) for text in count_of_text}
    counts: Counter[str] = Counter()
    for text, times in count_of_text.items():
        counts.update(dict.fromkeys(terms_of_text[text], times))
    total = len(texts)
    least = max(MIN_TERM_ROWS, MIN_TERM_SHARE * total)
    usable = [term for term, n in counts.items() if least <= n <= total - least]
    usable.sort(key=lambda term: (-min(counts[term], total - counts[term]), term))
    columns: list[Array] = []
    seen: set[bytes] = set()
    for term in usable:
        column = np.array([term in terms_of_text[text] for text in texts])
        if column.tobytes() in seen or (~column).tobytes() in seen:
            continue
        seen.add(column.tobytes())
        columns.append(column.astype(float))
        if len(columns) == MAX_TERMS:
            break
    return np.stack(columns, axis=1) if columns else np.zeros((total, 0))


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
