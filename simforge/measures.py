"""Programmatic measures of a text: a number each, no model.

They check labels made by construction (an answer steered to be concise must be the shorter one) and are what a small
model's judging is held against. Each is a plain function of the text, cheap enough for every candidate.

    MEASURES["words"]("Two words")  == 2.0
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache, lru_cache

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SENTENCE = re.compile(r"[.!?…。！？]+(?:\s|$)|\n+")


def words(text: str) -> float:
    """Number of words."""
    return float(len(WORD.findall(text)))


def reading_grade(text: str) -> float:
    """Flesch-Kincaid grade level, in US school years (Kincaid et al. 1975); English syllables by hyphenation."""
    found = WORD.findall(text)
    if not found:
        return 0.0
    sentences = max(1, len([part for part in _SENTENCE.split(text) if part and WORD.search(part)]))
    syllables = sum(_syllables(word.lower()) for word in found)
    return 0.39 * len(found) / sentences + 11.8 * syllables / len(found) - 15.59


def warmth(text: str) -> float:
    """Warm minus cold markers per 100 words: exclamation, emoji, endearments and encouragement against curtness and
    blame. A short word list of our own, English only: it tells a friendly text from a hostile one, not more."""
    found = [word.lower() for word in WORD.findall(text)]
    if not found:
        return 0.0
    warm = sum(word in _WARM for word in found) + len(_EMOJI.findall(text)) + min(text.count("!"), 6)
    cold = sum(word in _COLD for word in found)
    joined = " ".join(found)
    warm += sum(phrase in joined for phrase in _WARM_PHRASES)
    cold += sum(phrase in joined for phrase in _COLD_PHRASES)
    return 100.0 * (warm - cold) / max(len(found), 25)


MEASURES: dict[str, Callable[[str], float]] = {
    one.__name__: lru_cache(maxsize=16_384)(one) for one in (words, reading_grade, warmth)
}
"By name, as a preference space refers to them. What people share is measured once."


def script(text: str) -> str:
    """The script that most letters are written in, as Unicode names it."""
    text = text[:2000]
    if text.isascii():
        return "LATIN" if any(map(str.isalpha, text)) else ""
    letters: Counter[str] = Counter()
    for char, times in Counter(text).items():
        if char.isalpha():
            letters[_script_of(char)] += times
    return letters.most_common(1)[0][0] if letters else ""


@lru_cache(maxsize=4096)
def _script_of(letter: str) -> str:
    name = unicodedata.name(letter, "").split(" ")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "HANGUL") else name


@cache
def _hyphenation():  # type: ignore[no-untyped-def]
    import pyphen  # loads a dictionary: only where a text is measured

    return pyphen.Pyphen(lang="en_US", left=1, right=1)


@cache
def _syllables(word: str) -> int:
    return len(_hyphenation().positions(word)) + 1


_EMOJI = re.compile("[\U0001f300-\U0001faff☀-➿]|[:;]-?[)D]")
_WARM = frozenset(
    """friend friends buddy pal mate dear hey hi hello yay wow haha awesome amazing fantastic great wonderful lovely
    fun funny cool happy glad love loved enjoy enjoyed cheers sweet excited exciting delightful joke laugh smile hugs
    superstar champ adventure magic magical yummy delicious cozy party rock rocks thrilled proud absolutely totally
    welcome congrats congratulations kudos bravo brilliant superb perfect""".split()
)
_COLD = frozenset(
    """unfortunately obviously stupid foolish pointless waste wasting ridiculous nonsense useless annoying lazy
    incompetent careless ignorant whatever bother bothering pathetic silly excuse excuses complain complaining fail
    failure failed blame idiotic naive inadequate unacceptable tiresome irrelevant trivial grow""".split()
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
