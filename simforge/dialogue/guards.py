"""Guards: detect what a simulated user's message must not contain.

A model that plays a person fails in known ways: it turns into the assistant, reads its notes
aloud, narrates actions, mirrors the last answer, thanks endlessly. Each guard looks for one of
these failures and returns what it found, or `None`.

    GuardedMessage(text, history=messages, hidden_notes=(persona,)).objections()
    # {"stage": "*sighs*"}

Guards are rules over the text. Their thresholds were measured on human messages, and people
stay below them. One small classifier detects role flips, which few phrases reveal. The recipe's
policy, not the guard, decides what follows an objection.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from functools import cache, cached_property, lru_cache

from simforge import catalog
from simforge.catalog import documents
from simforge.recipe.schema import Policy
from simforge.text.languages import language, likelihoods
from simforge.text.measures import WORD, asks, dominant_script, is_content_word
from simforge.types import Finish, Message

LEAK_WORDS = 10
"Words in a row, shared with the hidden notes, that count as a leak; people shared 9 at most."


MAX_ECHO_SHARE = 0.3
"Share of a message's five-word runs that may also occur in the last answer."


REPEAT_WORD_SIMILARITY = 0.7
"Jaccard similarity of words above which one message repeats another."


RECITAL_FACTS = 3
"Number of facts that makes a first message a recital: people do not state that many."


REPEAT_LETTER_SIMILARITY = 0.75
"Share of matching letters above which a message repeats the previous one."


MAX_SEARCHED_CHARACTERS = 4_000
"Characters of a message that are searched for phrases: a longer message is too long anyway."


MAX_MESSAGE_WORDS = 80
"Longest message in words; 0 to 8 % of human messages are longer."


SHORT_MESSAGE_WORDS = 12
"A message without content, such as a courtesy, has fewer words than this."


ROLE_FLIP_PROBABILITY = 0.9
"Probability of being written by an assistant above which the classifier objects."


REFUSAL_PROBABILITY = 0.95
"Probability of stepping out of the role above which the classifier objects."


MIN_CLASSIFIER_WORDS = 25
"The classifier needs more words: short messages of people and assistants are too similar."


MIN_LANGUAGE_WORDS = 4
"Words needed to identify a language."


LANGUAGE_MARGIN = 12.0
"Log-likelihood by which another language must be more likely."


@dataclass(frozen=True)
class GuardedMessage:
    """A user message before it enters the history, and what it is checked against."""

    text: str
    history: Sequence[Message] = ()
    "The dialogue so far."
    hidden_notes: Sequence[str] = ()
    "Texts about the person that the model was given and must not read out."
    facts: Sequence[str] = ()
    "Facts about the person that the dialogue may reveal, a phrase each."
    disclosure: str = "free"
    "How much the person reveals about themselves, as the recipe sets it."
    finish: Finish = Finish.stop

    def objections(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """Returns the guards' findings by guard name, in the order of the guards."""
        findings = (
            (name, GUARDS[name].check(self))
            for name in (GUARDS if names is None else names)
        )
        return {name: finding for name, finding in findings if finding is not None}

    @cached_property
    def words(self) -> list[str]:
        return WORD.findall(self.text.lower())

    @cached_property
    def earlier_messages(self) -> list[str]:
        """The user's messages so far."""
        return [message.content for message in self.history if message.role == "user"]

    @property
    def last_answer(self) -> str:
        """The assistant's last answer."""
        return next(
            (
                message.content
                for message in reversed(self.history)
                if message.role == "assistant"
            ),
            "",
        )


def _empty(message: GuardedMessage) -> str | None:
    return None if message.words else "no words"


def _truncated(message: GuardedMessage) -> str | None:
    if message.finish == Finish.thought:
        return "the model only thought"
    if message.finish == Finish.content_filter:
        return "the server's filter cut it"
    return "it ends at the token limit" if message.finish == Finish.length else None


def _phrase(name: str) -> Callable[[GuardedMessage], str | None]:
    """Returns a check for the phrases of one kind in `personas/speech/phrases.yaml`."""
    return lambda message: find_phrase(name, message.text)


def _too_long(message: GuardedMessage) -> str | None:
    return (
        f"{len(message.words)} words"
        if len(message.words) > MAX_MESSAGE_WORDS
        else None
    )


def _role_flip(message: GuardedMessage) -> str | None:
    """Finds an assistant's phrase; in a longer message, also asks the classifier."""
    finding = find_phrase("role_flip", message.text)
    if finding is not None or len(message.words) <= MIN_CLASSIFIER_WORDS:
        return finding
    p = role_probability("role_flip", message.text)
    return (
        f"it reads like an assistant's message (p {p:.2f})"
        if p > ROLE_FLIP_PROBABILITY and language(message.text) == "en"
        else None
    )


def _both_roles(message: GuardedMessage) -> str | None:
    """Finds speaker labels or, without labels, a person's words followed by an assistant's."""
    labelled = find_phrase("both_roles", message.text)
    if labelled is not None:
        return labelled
    for sentence_end in _SENTENCE_ENDS.finditer(message.text):
        head, rest = (
            message.text[: sentence_end.end()],
            message.text[sentence_end.end() :],
        )
        if (
            len(WORD.findall(head)) < 3
            or len(WORD.findall(rest)) < 6
            or not _PERSONAL_WORDS.search(head)
        ):
            continue
        opening = find_phrase("role_flip", rest.strip()[:90]) or find_phrase(
            "reply", rest.strip()
        )
        if opening is not None or (
            "\n" in sentence_end[0]
            and role_probability("role_flip", rest) > ROLE_FLIP_PROBABILITY
        ):
            return f"{head.strip()[-40:]} / {rest.strip()[:40]}"
    return None


def _refusal(message: GuardedMessage) -> str | None:
    """Finds a known phrase of refusal; otherwise asks the classifier."""
    finding = find_phrase("refusal", message.text)
    if finding is not None or len(message.words) < MIN_LANGUAGE_WORDS:
        return finding
    p = role_probability("refusal", message.text)
    return (
        f"it reads like a message out of role (p {p:.2f})"
        if p > REFUSAL_PROBABILITY and language(message.text) == "en"
        else None
    )


def _leak(message: GuardedMessage) -> str | None:
    """Finds a run of words that also occurs in the notes."""
    runs = _word_runs(tuple(message.words), LEAK_WORDS)
    for notes in message.hidden_notes:
        shared = runs & _word_runs(tuple(WORD.findall(notes.lower())), LEAK_WORDS)
        if shared:
            return " ".join(min(shared))
    return None


def _recital(message: GuardedMessage) -> str | None:
    """Finds an opening that describes the person instead of asking a question."""
    if message.earlier_messages or message.disclosure == "up_front":
        return None
    revealed = [fact for fact in message.facts if reveals(message.text, fact)]
    if len(revealed) >= RECITAL_FACTS:
        return "; ".join(revealed)
    if message.disclosure == "gradually":  # in this case one fact was asked for
        return None
    return (
        find_phrase("recital", message.text) if revealed or not message.facts else None
    )


def _repetition(message: GuardedMessage) -> str | None:
    """Finds nearly the same words as in any earlier message, or nearly the same letters as in
    the last one."""
    message_words = set(message.words)
    for back, earlier in enumerate(
        reversed(message.earlier_messages) if len(message_words) > 2 else ()
    ):
        other = set(WORD.findall(earlier.lower()))
        same_words = len(message_words) > 3 and len(
            message_words & other
        ) > REPEAT_WORD_SIMILARITY * len(message_words | other)
        if same_words or (
            back == 0 and _similar_spelling(message.text.lower(), earlier.lower())
        ):
            return f"it repeats: {earlier[:60]}"
    return None


def _similar_spelling(text: str, other: str) -> bool:
    """Returns whether most letters match; two quick upper bounds avoid the slow comparison in
    most cases."""
    match = SequenceMatcher(None, text, other)
    return all(
        bound() > REPEAT_LETTER_SIMILARITY
        for bound in (match.real_quick_ratio, match.quick_ratio, match.ratio)
    )


def _echo(message: GuardedMessage) -> str | None:
    """Finds a user who mirrors the answer (SPASM, arXiv 2604.09212, calls it echoing)."""
    runs = [
        tuple(message.words[start : start + 5])
        for start in range(len(message.words) - 4)
    ]
    answer_runs = _word_runs(tuple(WORD.findall(message.last_answer.lower())), 5)
    shared_runs = [run for run in runs if run in answer_runs]
    return (
        " ".join(shared_runs[0])
        if shared_runs and len(shared_runs) > MAX_ECHO_SHARE * len(runs)
        else None
    )


def _loop(message: GuardedMessage) -> str | None:
    """Finds two messages in a row that are only courtesies, or that say nothing new."""
    if not message.earlier_messages:
        return None
    last = message.earlier_messages[-1]
    last_two = last, message.text
    if any(map(is_courtesy, last_two)) and all(
        is_courtesy(text) or _has_no_content(text) for text in last_two
    ):
        return "courtesies, twice in a row"
    if (
        len(message.earlier_messages) > 1
        and _adds_nothing(message.text, message.earlier_messages)
        and _adds_nothing(last, message.earlier_messages[:-1])
    ):
        return "nothing new, twice in a row"
    return None


def _language(message: GuardedMessage) -> str | None:
    """Finds a language other than the one in which the person wrote before."""
    before = next(
        (
            text
            for text in message.earlier_messages
            if len(WORD.findall(text)) > 2 * MIN_LANGUAGE_WORDS
        ),
        " ".join(message.earlier_messages),
    )
    if len(message.words) < MIN_LANGUAGE_WORDS or not before:
        return (
            None
            if not before
            or dominant_script(message.text) in ("", dominant_script(before))
            else dominant_script(message.text).lower()
        )
    previous_language, current_language = language(before), language(message.text)
    if (
        previous_language is None
        or current_language is None
        or previous_language == current_language
        or _is_plausible(message.text, previous_language, current_language)
    ):
        return None
    return f"{current_language} after {previous_language}"


@dataclass(frozen=True, slots=True)
class Guard:
    """A check for one kind of failure."""

    check: Callable[[GuardedMessage], str | None]
    "Returns the finding in words, or `None`."
    meaning: str
    "Meaning of an objection, in words."
    policy: Policy
    "Policy if the recipe sets none."
    hint: str
    "Hint to the model when the message is asked for again."


GUARDS: dict[str, Guard] = {
    "empty": Guard(
        _empty, "no words", "repair", "It was empty. Write what the person says."
    ),
    "truncated": Guard(
        _truncated,
        "cut off at the token limit",
        "nudge",
        "It was too long. Say it in one sentence.",
    ),
    "template": Guard(
        _phrase("template"),
        "template tokens or notes read aloud",
        "repair",
        "No markup: plain words.",
    ),
    "reasoning": Guard(
        _phrase("reasoning"),
        "thinks aloud about what the person would say",
        "repair",
        "Only what the person types, and no thoughts about it.",
    ),
    "both_roles": Guard(
        _both_roles, "both speakers in one message", "repair", "Only the person speaks."
    ),
    "role_flip": Guard(
        _role_flip,
        "speaks as the assistant",
        "repair",
        "The person asks; they do not help.",
    ),
    "refusal": Guard(
        _refusal,
        "refuses, or calls itself an AI",
        "repair",
        "The person is human. Go on.",
    ),
    "stage": Guard(
        _phrase("stage"),
        "stage directions",
        "repair",
        "Only what the person types, and no actions.",
    ),
    "leak": Guard(
        _leak,
        "reads out the hidden notes",
        "repair",
        "Do not copy the notes. Use the person's own words.",
    ),
    "recital": Guard(
        _recital,
        "recites the persona in the opening",
        "repair",
        "Do not introduce the person. Just ask.",
    ),
    "language": Guard(
        _language,
        "changes the language",
        "repair",
        "Keep to the language of the conversation.",
    ),
    "repetition": Guard(
        _repetition,
        "says the same again",
        "repair",
        "That was said before. Say something new.",
    ),
    "echo": Guard(
        _echo,
        "mirrors the last answer",
        "nudge",
        "Do not repeat the assistant's words. Say something new.",
    ),
    "loop": Guard(_loop, "courtesies or nothing new, twice in a row", "cut", ""),
    "structured": Guard(
        _phrase("structured"),
        "headings, lists or bold",
        "nudge",
        "Plain text, without lists.",
    ),
    "too_long": Guard(
        _too_long,
        f"more than {MAX_MESSAGE_WORDS} words",
        "nudge",
        "That was too long. Say it in one sentence.",
    ),
}
"All guards by name, in the order in which they run."


def reveals(text: str, fact: str) -> bool:
    """Returns whether a text reveals a fact: whether it contains at least half of the fact's
    content words, compared by their first five letters."""
    telling = _content_stems(fact)
    return bool(telling) and len(telling & _stems(text)) * 2 >= len(telling)


def is_courtesy(text: str) -> bool:
    """Returns whether a message only thanks, praises or takes leave: courtesies, and hardly any
    content words besides them."""
    message_words, phrases = WORD.findall(text.lower().replace("’", "'")), _phrases()
    if asks(text) or not message_words:
        return False
    other_words = [
        word
        for word in message_words
        if word not in phrases.courtesy_fillers and is_content_word(word, 2)
    ]
    return len(other_words) <= max(1, len(message_words) // 4) and any(
        word in phrases.courtesy_words for word in message_words
    )


def role_probability(name: str, text: str) -> float:
    """Probability that a message is an assistant's (`role_flip`) or steps out of the role
    (`refusal`) instead of being a person's. Uses logistic regressions over runs of 2 to 5
    characters, trained on messages written for this purpose (`personas/speech/roles.jsonl`)."""
    learnt = _classifiers()[name]
    counts = Counter(gram for gram in character_runs(text) if gram in learnt.weights)
    size = score = 0.0
    for gram, times in counts.items():
        weight, idf = learnt.weights[gram]
        value = (1 + math.log(times)) * idf
        size += value * value
        score += value * weight
    size = math.sqrt(size)
    return 1 / (1 + math.exp(-(learnt.bias + score / (size or 1.0))))


def character_runs(text: str) -> Iterator[str]:
    """Yields the runs of 2 to 5 characters in each word, padded with a space on both sides, as
    scikit-learn's `char_wb` does."""
    for word in " ".join(text.lower().split()).split(" "):
        padded = f" {word} "
        for length in range(2, 6):
            if len(padded) <= length:
                yield padded
                break
            for start in range(len(padded) - length + 1):
                yield padded[start : start + length]


@dataclass(frozen=True, slots=True)
class _LogisticModel:
    bias: float
    weights: dict[str, tuple[float, float]] = field(default_factory=dict)
    "For each run of characters: its coefficient and its inverse document frequency."


@cache
def _classifiers() -> dict[str, _LogisticModel]:
    raw = json.loads(catalog.entry("personas", "speech/roles").text)
    return {
        name: _LogisticModel(
            parameters["bias"],
            {
                gram: (weight, idf)
                for gram, (weight, idf) in parameters["weights"].items()
            },
        )
        for name, parameters in raw.items()
    }


def find_phrase(name: str, text: str) -> str | None:
    """Finds the first of a guard's phrases that occurs in a text."""
    text = _BLANK_LINES.sub("\n\n", text[:MAX_SEARCHED_CHARACTERS]).replace("’", "'")
    for pattern in _phrases().patterns[name]:
        if match := pattern.search(text):
            return " ".join(match[0].split())[:80] or "markup"
    return None


@dataclass(frozen=True, slots=True)
class _Phrases:
    patterns: dict[str, list[re.Pattern[str]]]
    courtesy_words: frozenset[str]
    "Words of which a courtesy contains at least one."
    courtesy_fillers: frozenset[str]
    "Words that a courtesy may contain besides these."
    common_words: frozenset[str]
    "Words that reveal nothing about anybody."


@cache
def _phrases() -> _Phrases:
    entry = catalog.entry("personas", "speech/phrases")
    raw = documents.read(entry.text, entry.label).value
    acts = re.sub(r"\s+", "", raw["act"])
    patterns: dict[str, list[re.Pattern[str]]] = {}
    for name, flags, phrase_texts in (
        *(
            (name, re.MULTILINE | re.IGNORECASE, texts)
            for name, texts in raw.items()
            if isinstance(texts, list)
        ),
        *((name, re.MULTILINE, texts) for name, texts in raw["exact"].items()),
    ):
        expanded = [
            text.replace("LABEL", raw["label"]).replace("ACT", acts)
            for text in phrase_texts
        ]
        patterns.setdefault(name, []).extend(
            re.compile(text, flags) for text in expanded
        )
    words = (
        frozenset(raw[name].split()) for name in ("courtesy", "courteous", "common")
    )
    return _Phrases(patterns, *words)


@lru_cache(maxsize=1024)
def _word_runs(words: tuple[str, ...], length: int) -> frozenset[tuple[str, ...]]:
    return frozenset(
        words[start : start + length] for start in range(len(words) - length + 1)
    )


def _stems(text: str) -> set[str]:
    return {word[:5] for word in WORD.findall(text.lower())}


@lru_cache(maxsize=65_536)
def _content_stems(fact: str) -> frozenset[str]:
    words = WORD.findall(fact.lower())
    return frozenset(
        word[:5]
        for word in words
        if (is_content_word(word, 3) or word.isdigit())
        and word not in _phrases().common_words
    )


def _has_no_content(text: str) -> bool:
    """Returns whether a message is short and has no content words."""
    message_words = WORD.findall(text.lower().replace("’", "'"))
    return (
        not asks(text)
        and len(message_words) < SHORT_MESSAGE_WORDS
        and all(
            word in _phrases().courtesy_fillers
            for word in message_words
            if is_content_word(word, 2)
        )
    )


def _adds_nothing(text: str, before: Sequence[str]) -> bool:
    """Returns whether fewer than 15 % of a message's content words are missing from the
    person's earlier messages."""
    content_words = {
        word
        for word in WORD.findall(text.lower())
        if is_content_word(word, 3) and word not in _phrases().common_words
    }
    earlier_words = set(WORD.findall(" ".join(before).lower()))
    return bool(content_words) and len(content_words - earlier_words) < 0.15 * len(
        content_words
    )


def _is_plausible(text: str, previous: str, current: str) -> bool:
    """Returns whether the earlier language is nearly as likely as the new one: the detector
    errs on short messages."""
    ranked = likelihoods(text)
    return ranked.get(previous, -math.inf) > ranked[current] - LANGUAGE_MARGIN


_BLANK_LINES = re.compile(r"[ \t]*\n(?:[ \t]*\n)+")
"Blank lines, any number: patterns that begin at a line start would rescan them from each."


_SENTENCE_ENDS = re.compile(r"[.?!][\"')]*\s+(?:[→>-]+\s*)?|\n\s*\n")


_PERSONAL_WORDS = re.compile(
    r"\?|\b(?:i|i'm|i'd|i've|my|me|we|our|yes|no|please|hi|hello|let's|thanks|thank)\b",
    re.IGNORECASE,
)
"Signs of a person's own words, before the assistant's begin."
