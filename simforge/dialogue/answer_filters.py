"""Filters of answers: an answer that is empty, cut off, refuses, is garbled or quotes its
steering is in no pair."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from itertools import pairwise

from simforge.dialogue.guards import find_phrase
from simforge.recipe.conditions import CONDITIONS
from simforge.recipe.schema import Filters
from simforge.text.measures import WORD, dominant_script, is_content_word, lower_words
from simforge.types import Candidate, Finish


def is_refusal(text: str) -> bool:
    """Returns whether an answer begins with a refusal."""
    return _REFUSAL.search(text[:300]) is not None


def find_flaw(candidate: Candidate, user: str, filters: Filters) -> str | None:
    """Returns the reason why an answer must not be in a pair, or `None`."""
    text = candidate.text
    if candidate.completion.finish == Finish.thought:
        return "only_thought"
    if not WORD.search(text):
        return "empty"
    if candidate.completion.finish == Finish.content_filter:
        return "content_filter"
    if filters.cut_off and candidate.completion.finish == Finish.length:
        return "cut_off"
    if find_phrase("markup", text):
        return "markup"
    if filters.refusal and is_refusal(text):
        return "refusal"
    if filters.off_language and dominant_script(user) not in (
        "",
        dominant_script(text),
    ):
        return "off_language"
    if lower_words(text) == lower_words(user):
        return "repeats_prompt"
    if filters.broken and is_broken(text):
        return "broken"
    if filters.leak and (
        _quotes_steering(candidate, user) or _COMMENTS_ON_ITSELF.search(text[:200])
    ):
        return "leak"
    return None


BROKEN_REPEATS = 4
"Occurrences of the same eight-word run that make an answer broken."


def is_broken(text: str) -> bool:
    """Returns whether an answer is repetitive (the same eight words again and again) or garbled
    (replacement characters, or hardly any letters in a longer text)."""
    if "\ufffd" in text or (
        len(text) > 40 and sum(map(str.isalnum, text)) < 0.4 * len(text)
    ):
        return True
    words = lower_words(text)
    if len(words) < 8 + BROKEN_REPEATS - 1:
        return False
    runs = Counter(zip(*(words[start:] for start in range(8)), strict=False))
    return max(runs.values()) >= BROKEN_REPEATS


def _quotes_steering(candidate: Candidate, user: str) -> bool:
    """Returns whether an answer quotes its steering: six words in a row, or two of its content
    words (four letters or more, neither common nor the user's) within four words of each other.
    For steering inferred about the person, only six words in a row count: single words are
    expected, because the dialogue was about them."""
    steering, text = candidate.steering, candidate.text
    if not steering:
        return False
    runs, content_words = _steering_runs(steering)
    answer_words = lower_words(text)
    if any(run in f" {' '.join(answer_words)} " for run in runs):
        return True
    if CONDITIONS.find(candidate.condition).infers:
        return False
    quotable = content_words.difference(lower_words(user))
    places = [
        (position, word)
        for position, word in enumerate(answer_words)
        if word in quotable
    ]
    return any(
        word != next_word and next_position - position < 4
        for (position, word), (next_position, next_word) in pairwise(places)
    )


@lru_cache(maxsize=4096)
def _steering_runs(steering: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Returns every run of six words of a steering text, padded with spaces, and its content
    words."""
    words = lower_words(steering)
    runs = tuple(
        f" {' '.join(words[start : start + 6])} " for start in range(len(words) - 5)
    )
    return runs, frozenset(
        word for word in words if is_content_word(word, 3)
    ) - _COMMON_WORDS


_COMMON_WORDS = frozenset(
    [
        "with",
        "that",
        "this",
        "from",
        "just",
        "give",
        "more",
        "full",
        "explain",
        "example",
        "write",
        "talk",
        "like",
        "without",
        "word",
        "words",
    ]
)


_COMMENTS_ON_ITSELF = re.compile(
    r"\bhere(?:'|’)?s? (?:is )?(?:a|an|my|the|one|your)\b[^.:!?]{0,60}\b(?:response|reply"
    r"|answer|paragraph"
    r"|way to say|explanation|version)\b|\bone paragraph\b|\bhow to answer\b|\b(?:your"
    r"|my) notes (?:about|on)\b",
    re.IGNORECASE,
)
"Matches an answer that talks about how it answers: it has noticed its steering."


_REFUSAL = re.compile(
    r"\bI(?:'|’)?(?:m| am) (?:sorry|afraid|unable)\b.{0,60}\b(?:can(?:'|’)?t|cannot|unable"
    r"|not able)\b"
    r"|\bI (?:can(?:'|’)?t|cannot|am not able to|won(?:'|’)t) (?:assist|help|provide|answer"
    r"|fulfil|comply|generate)\b"
    r"|\bas an? (?:AI|artificial intelligence|language model)\b",
    re.IGNORECASE | re.DOTALL,
)
