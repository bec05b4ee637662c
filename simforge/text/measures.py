"""Programmatic measures of a text: each computes one number, without a model.

They check labels by construction (an answer steered to be concise must be the shorter one) and
serve as the reference for the judgments of small models. Each is a plain function of the text,
cheap enough for every candidate. To add one, add a function with `@measure`.

    MEASURES["words"]("Two words")  == 2.0
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache, lru_cache

from simforge.errors import UsageError

_CJK_RANGES = (
    "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003134f"
)


CJK = re.compile(f"[{_CJK_RANGES}]")
"A character of Chinese or Japanese, which put no spaces between words."


WORD = re.compile(rf"[{_CJK_RANGES}]|[^\W_{_CJK_RANGES}]+(?:['’][^\W_{_CJK_RANGES}]+)*")
"A word; in Chinese and Japanese, a character."


QUESTION_MARKS = "?？؟;"
"Question marks: Latin, full-width, Arabic, Greek."


_SENTENCE = re.compile(r"[.!?…]+(?:\s|$)|[。！？]+|\n+")


Measure = Callable[[str], float]


MEASURES: dict[str, Measure] = {}
"Measures by the name that a preference space uses."


def measure(function: Measure) -> Measure:
    """Let preference spaces use a function of the text, under its name. Each text is measured
    once (cached). Raises `UsageError` for a name that is taken."""
    name = function.__name__
    if name in MEASURES:
        raise UsageError(
            f"there is a measure named {name!r} already: choose another name."
        )
    MEASURES[name] = lru_cache(maxsize=16_384)(function)
    return function


def asks(text: str) -> bool:
    """Returns whether a text contains a question mark of any script."""
    return any(mark in text for mark in QUESTION_MARKS)


def is_content_word(word: str, longer_than: int) -> bool:
    """Returns whether a word can carry content: it has more letters than function words
    usually have, or is a character that is a word."""
    return len(word) > longer_than or CJK.match(word) is not None


@lru_cache(maxsize=512)
def lower_words(text: str) -> tuple[str, ...]:
    """Returns the words of a text in lower case. Cached, since several filters read each answer."""
    return tuple(WORD.findall(text.lower()))


@measure
def words(text: str) -> float:
    """Number of words."""
    return float(len(WORD.findall(text)))


@measure
def reading_grade(text: str) -> float:
    """Flesch-Kincaid grade level, in US school years (Kincaid et al. 1975); English syllables
    counted by hyphenation."""
    text_words = WORD.findall(text)
    if not text_words:
        return 0.0
    sentences = max(
        1, len([part for part in _SENTENCE.split(text) if part and WORD.search(part)])
    )
    syllables = sum(_syllables(word.lower()) for word in text_words)
    return (
        0.39 * len(text_words) / sentences + 11.8 * syllables / len(text_words) - 15.59
    )


@measure
def warmth(text: str) -> float:
    """Warm minus cold markers per 100 words: exclamation marks, emoji, endearments and
    encouragement against curtness and blame. Uses a short English word list of our own: it
    separates friendly texts from hostile ones, nothing finer."""
    text_words = [word.lower() for word in WORD.findall(text)]
    if not text_words:
        return 0.0
    warm = (
        sum(word in _WARM for word in text_words)
        + len(_EMOJI.findall(text))
        + min(text.count("!"), 6)
    )
    cold = sum(word in _COLD for word in text_words)
    joined = " ".join(text_words)
    warm += sum(phrase in joined for phrase in _WARM_PHRASES)
    cold += sum(phrase in joined for phrase in _COLD_PHRASES)
    return 100.0 * (warm - cold) / max(len(text_words), 25)


def dominant_script(text: str) -> str:
    """Returns the script of most of a text's letters, by its Unicode name; empty without
    letters."""
    text = text[:2000]
    if text.isascii():
        return "LATIN" if any(map(str.isalpha, text)) else ""
    letters: Counter[str] = Counter()
    for char, times in Counter(text).items():
        if char.isalpha():
            letters[_letter_script(char)] += times
    return letters.most_common(1)[0][0] if letters else ""


@lru_cache(maxsize=4096)
def _letter_script(letter: str) -> str:
    name = unicodedata.name(letter, "").split(" ")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "HANGUL") else name


@cache
def _hyphenator():  # type: ignore[no-untyped-def]
    import pyphen  # loads a dictionary, so import only when a text is measured

    return pyphen.Pyphen(lang="en_US", left=1, right=1)


@cache
def _syllables(word: str) -> int:
    return len(_hyphenator().positions(word)) + 1


_EMOJI = re.compile("[\U0001f300-\U0001faff☀-➿]|[:;]-?[)D]")


_WARM = frozenset(
    """
    friend friends buddy pal mate dear hey hi hello yay wow haha awesome amazing fantastic
    great wonderful lovely fun funny cool happy glad love loved enjoy enjoyed cheers sweet
    excited exciting delightful joke laugh smile hugs superstar champ adventure magic
    magical yummy delicious cozy party rock rocks thrilled proud absolutely totally welcome
    congrats congratulations kudos bravo brilliant superb perfect
""".split()
)


_COLD = frozenset(
    """
    unfortunately obviously stupid foolish pointless waste wasting ridiculous nonsense
    useless annoying lazy incompetent careless ignorant whatever bother bothering pathetic
    silly excuse excuses complain complaining fail failure failed blame idiotic naive
    inadequate unacceptable tiresome irrelevant trivial grow
""".split()
)


_WARM_PHRASES = (
    "you got this",
    "you ve got this",
    "good luck",
    "no worries",
    "don t worry",
    "let s",
    "i m here",
    "happy to help",
    "piece of cake",
    "good news",
    "great question",
    "sounds like",
    "have fun",
    "keep it up",
    "you re doing",
    "for you",
)


_COLD_PHRASES = (
    "figure it out",
    "not my problem",
    "i don t care",
    "do not care",
    "your own fault",
    "you should have",
    "stop asking",
    "how hard",
    "common sense",
    "deal with it",
    "don t expect",
    "do not expect",
    "if you can t",
    "you clearly",
    "read the",
)
