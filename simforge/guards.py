"""Guards: what a simulated user's message must not be.

A model that plays a person slips in known ways: it turns into the assistant, reads its notes aloud, narrates, mirrors
the last answer, thanks for ever. Each guard looks for one of them and says what it found, or nothing.

    Guarded(text, before=history, hidden=(persona,)).objections()  ->  {"stage": "*sighs*"}

They are rules over the text, with thresholds below which people stay (measured on human messages), and one small
classifier for the role flip, which few phrases give away. What follows is the recipe's policy, not the guard's affair.
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
from typing import Any, Literal

from simforge import catalog, documents
from simforge.measures import WORD, script
from simforge.types import Finish, Message

Policy = Literal["repair", "nudge", "flag", "cut", "discard", "off"]
"""What follows an objection. `repair`: asked once more with a hint, and the dialogue ends before the message if that
does not help. `nudge`: asked once more, and kept with its flag if that does not help. `flag`: kept with its flag.
`cut`: the dialogue ends before the message. `discard`: so it does, and makes no pairs (in a tree: its line). `off`: not
looked for."""

LEAK = 10
"Words in a row that a message may not share with the hidden notes; people shared 9 at most."
ECHO = 0.3
"Share of a message's runs of five words that may stand in the last answer."
ALIKE = 0.7
"Jaccard similarity of words above which two messages are one said twice."
RECITED = 3
"Facts about themselves that people do not tell all in their first message."
SPELT_ALIKE = 0.75
"Share of matching letters above which a message is the last one over again."
LOOKED_AT = 4_000
"Characters of a message that are searched for phrases: more is too long anyway."
LONG = 80
"Words of a message; 0 to 8 % of human ones are longer."
SHORT = 12
"Words of a courtesy."
FLIP = 0.9
"Probability that an assistant wrote it, above which the classifier objects."
OUT_OF_ROLE = 0.95
"Probability that a model steps out of the role, above which the classifier objects."
FLIP_WORDS = 25
"Words that the classifier needs: below, people and assistants are too much alike."
FOREIGN_WORDS = 4
"Words that are needed to tell a language."
CLEAR = 12.0
"Log-likelihood by which another language must be the likelier one."
LANGUAGES = (
    "ar bg bn ca cs da de el en es et fa fi fr gu he hi hr hu id it ja kk ko lt lv mk ml mr nl no pa pl pt ro ru sk sl "
    "sr sv sw ta te th tl tr uk ur vi zh"
).split()
"ISO codes of the languages that are told apart: with every small one, short English is often taken for a creole."


@dataclass(frozen=True)
class Guarded:
    """A user message before it enters the history, and what it is held against."""

    text: str
    before: Sequence[Message] = ()
    "The dialogue so far."
    hidden: Sequence[str] = ()
    "What the model was told about the person and shall not read out."
    facts: Sequence[str] = ()
    "What there is to tell about the person, a phrase each."
    disclosure: str = "free"
    "How much the person is to tell about themselves, as the recipe has it."
    finish: Finish = Finish.stop

    def objections(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """What the guards found, by their names, in their order."""
        found = ((name, GUARDS[name].look(self)) for name in (GUARDS if names is None else names))
        return {name: what for name, what in found if what is not None}

    @cached_property
    def words(self) -> list[str]:
        return WORD.findall(self.text.lower())

    @cached_property
    def own(self) -> list[str]:
        """The user's messages so far."""
        return [message.content for message in self.before if message.role == "user"]

    @property
    def answer(self) -> str:
        """The last answer."""
        return next((one.content for one in reversed(self.before) if one.role == "assistant"), "")


def _empty(one: Guarded) -> str | None:
    return None if one.words else "no words"


def _truncated(one: Guarded) -> str | None:
    return "it ends at the token limit" if one.finish == Finish.length else None


def _phrase(name: str) -> Callable[[Guarded], str | None]:
    """Looks for the phrases of `personas/speech/phrases.yaml`."""
    return lambda one: phrase(name, one.text)


def _too_long(one: Guarded) -> str | None:
    return f"{len(one.words)} words" if len(one.words) > LONG else None


def _role_flip(one: Guarded) -> str | None:
    """An assistant's phrase; or, of a longer message, the classifier's word for it."""
    said = phrase("role_flip", one.text)
    if said is not None or len(one.words) <= FLIP_WORDS:
        return said
    p = likeness("role_flip", one.text)
    return f"it reads as an assistant's (p {p:.2f})" if p > FLIP and language(one.text) == "en" else None


def _both_roles(one: Guarded) -> str | None:
    """Labels; or, without any, a person's words and then an assistant's."""
    labelled = phrase("both_roles", one.text)
    if labelled is not None:
        return labelled
    for end in _ENDS.finditer(one.text):
        head, rest = one.text[: end.end()], one.text[end.end() :]
        if len(WORD.findall(head)) < 3 or len(WORD.findall(rest)) < 6 or not _PERSONAL.search(head):
            continue
        opening = phrase("role_flip", rest.strip()[:90]) or phrase("reply", rest.strip())
        if opening is not None or ("\n" in end[0] and likeness("role_flip", rest) > FLIP):
            return f"{head.strip()[-40:]} / {rest.strip()[:40]}"
    return None


def _refusal(one: Guarded) -> str | None:
    """A known phrase; or the classifier's word for it."""
    said = phrase("refusal", one.text)
    if said is not None or len(one.words) < FOREIGN_WORDS:
        return said
    p = likeness("refusal", one.text)
    return f"it reads as out of role (p {p:.2f})" if p > OUT_OF_ROLE and language(one.text) == "en" else None


def _leak(one: Guarded) -> str | None:
    """A run of words that stands in the notes too."""
    runs = _runs(tuple(one.words), LEAK)
    for notes in one.hidden:
        shared = runs & _runs(tuple(WORD.findall(notes.lower())), LEAK)
        if shared:
            return " ".join(min(shared))
    return None


def _recital(one: Guarded) -> str | None:
    """In the opening, a description of oneself in place of a question."""
    if one.own or one.disclosure == "up_front":
        return None
    told = [fact for fact in one.facts if tells(one.text, fact)]
    if len(told) >= RECITED:
        return "; ".join(told)
    if one.disclosure == "gradually":  # then one fact was asked for
        return None
    return phrase("recital", one.text) if told or not one.facts else None


def _repetition(one: Guarded) -> str | None:
    """Much the same words as in an earlier message, or much the same letters as in the last."""
    said = set(one.words)
    for back, earlier in enumerate(reversed(one.own) if len(said) > 2 else ()):
        other = set(WORD.findall(earlier.lower()))
        same = len(said) > 3 and len(said & other) > ALIKE * len(said | other)
        if same or (back == 0 and _spelt_alike(one.text.lower(), earlier.lower())):
            return f"it was said before: {earlier[:60]}"
    return None


def _spelt_alike(one: str, other: str) -> bool:
    """Whether most letters match; two quick upper bounds spare most the slow comparison."""
    match = SequenceMatcher(None, one, other)
    return all(bound() > SPELT_ALIKE for bound in (match.real_quick_ratio, match.quick_ratio, match.ratio))


def _echo(one: Guarded) -> str | None:
    """The user mirrors the answer (SPASM, arXiv 2604.09212, calls it echoing)."""
    runs = [tuple(one.words[at : at + 5]) for at in range(len(one.words) - 4)]
    there = _runs(tuple(WORD.findall(one.answer.lower())), 5)
    mirrored = [run for run in runs if run in there]
    return " ".join(mirrored[0]) if mirrored and len(mirrored) > ECHO * len(runs) else None


def _loop(one: Guarded) -> str | None:
    """Twice in a row a courtesy, or nothing that was not said before."""
    if not one.own:
        return None
    last = one.own[-1]
    both = last, one.text
    if any(map(courteous, both)) and all(courteous(text) or _idle(text) for text in both):
        return "courtesies, twice in a row"
    if len(one.own) > 1 and _nothing_new(one.text, one.own) and _nothing_new(last, one.own[:-1]):
        return "nothing new, twice in a row"
    return None


def _language(one: Guarded) -> str | None:
    """Another language than the person wrote before."""
    before = next((text for text in one.own if len(WORD.findall(text)) > 2 * FOREIGN_WORDS), " ".join(one.own))
    if len(one.words) < FOREIGN_WORDS or not before:
        return None if not before or script(one.text) in ("", script(before)) else script(one.text).lower()
    was, now = language(before), language(one.text)
    if was is None or now is None or was == now or _closer(one.text, was, now):
        return None
    return f"{now} after {was}"


@dataclass(frozen=True, slots=True)
class Guard:
    """One way to slip."""

    look: Callable[[Guarded], str | None]
    "What it found, in words, or `None`."
    about: str
    "What it means."
    policy: Policy
    "What follows where the recipe does not say."
    hint: str
    "What the model is told when it is asked again."


GUARDS: dict[str, Guard] = {
    "empty": Guard(_empty, "no words", "repair", "It was empty. Write what the person says."),
    "truncated": Guard(_truncated, "cut off at the token limit", "nudge", "It was too long. Say it in one sentence."),
    "template": Guard(_phrase("template"), "template tokens or notes read aloud", "repair", "No markup: plain words."),
    "both_roles": Guard(_both_roles, "both speakers in one message", "repair", "Only the person speaks."),
    "role_flip": Guard(_role_flip, "speaks as the assistant", "repair", "The person asks; they do not help."),
    "refusal": Guard(_refusal, "refuses, or calls itself an AI", "repair", "The person is human. Go on."),
    "stage": Guard(_phrase("stage"), "stage directions", "repair", "Only what the person types, and no actions."),
    "leak": Guard(_leak, "reads out the hidden notes", "repair", "Do not copy the notes. Use the person's own words."),
    "recital": Guard(
        _recital, "recites the persona in the opening", "repair", "Do not introduce the person. Just ask."
    ),
    "language": Guard(_language, "changes the language", "repair", "Keep to the language of the conversation."),
    "repetition": Guard(_repetition, "says the same again", "repair", "That was said before. Say something new."),
    "echo": Guard(_echo, "mirrors the last answer", "nudge", "Do not repeat the assistant's words. Say something new."),
    "loop": Guard(_loop, "courtesies or nothing new, twice in a row", "cut", ""),
    "structured": Guard(_phrase("structured"), "headings, lists or bold", "nudge", "Plain text, without lists."),
    "too_long": Guard(_too_long, f"more than {LONG} words", "nudge", "That was too long. Say it in one sentence."),
}
"All guards by name, in the order in which they are asked."


def tells(text: str, fact: str) -> bool:
    """Whether a text tells a fact: at least half of the fact's telling words, by their first five letters."""
    telling = _telling(fact)
    return bool(telling) and len(telling & _stems(text)) * 2 >= len(telling)


def courteous(text: str) -> bool:
    """Whether a message only thanks, praises or takes leave: courtesies, and hardly a word of content beside them."""
    said, known = WORD.findall(text.lower().replace("’", "'")), _phrases()
    if "?" in text or not said:
        return False
    rest = [word for word in said if word not in known.courteous and len(word) > 2]
    return len(rest) <= max(1, len(said) // 4) and any(word in known.courtesy for word in said)


@lru_cache(maxsize=4096)
def language(text: str) -> str | None:
    """ISO code of a text's language, by py3langid (after Lui and Baldwin 2012); `None` where there are no letters."""
    if not script(text):
        return None
    return next(iter(_ranked(text)))


def likeness(name: str, text: str) -> float:
    """Probability that a message is an assistant's (`role_flip`) or steps out of the role (`refusal`), and not a
    person's: logistic regressions over runs of 2 to 5 characters, learnt from messages that were written for it
    (`personas/speech/roles.jsonl`)."""
    learnt = _classifiers()[name]
    counts = Counter(gram for gram in grams(text) if gram in learnt.weights)
    size = score = 0.0
    for gram, times in counts.items():
        weight, idf = learnt.weights[gram]
        value = (1 + math.log(times)) * idf
        size += value * value
        score += value * weight
    size = math.sqrt(size)
    return 1 / (1 + math.exp(-(learnt.bias + score / (size or 1.0))))


def grams(text: str) -> Iterator[str]:
    """Runs of 2 to 5 characters inside each word, with a space at its ends, as scikit-learn's `char_wb` makes them."""
    for word in " ".join(text.lower().split()).split(" "):
        padded = f" {word} "
        for length in range(2, 6):
            if len(padded) <= length:
                yield padded
                break
            for start in range(len(padded) - length + 1):
                yield padded[start : start + length]


@dataclass(frozen=True, slots=True)
class _Learnt:
    bias: float
    weights: dict[str, tuple[float, float]] = field(default_factory=dict)
    "By run of characters: its coefficient, and its inverse document frequency."


@cache
def _classifiers() -> dict[str, _Learnt]:
    raw = json.loads(catalog.entry("personas", "speech/roles").text)
    return {
        name: _Learnt(one["bias"], {gram: (weight, idf) for gram, (weight, idf) in one["weights"].items()})
        for name, one in raw.items()
    }


def phrase(name: str, text: str) -> str | None:
    """The first of a guard's phrases that stands in a text."""
    text = _BLANK.sub("\n\n", text[:LOOKED_AT]).replace("’", "'")
    for pattern in _phrases().patterns[name]:
        if match := pattern.search(text):
            return " ".join(match[0].split())[:80] or "markup"
    return None


@dataclass(frozen=True, slots=True)
class _Phrases:
    patterns: dict[str, list[re.Pattern[str]]]
    courtesy: frozenset[str]
    "Words of which a courtesy has at least one."
    courteous: frozenset[str]
    "Words that it may have beside it."
    common: frozenset[str]
    "Words that tell nothing about anybody."


@cache
def _phrases() -> _Phrases:
    found = catalog.entry("personas", "speech/phrases")
    raw = documents.read(found.text, found.label).value
    acts = re.sub(r"\s+", "", raw["act"])
    patterns: dict[str, list[re.Pattern[str]]] = {}
    for name, flags, given in (
        *((name, re.MULTILINE | re.IGNORECASE, texts) for name, texts in raw.items() if isinstance(texts, list)),
        *((name, re.MULTILINE, texts) for name, texts in raw["exact"].items()),
    ):
        whole = [text.replace("LABEL", raw["label"]).replace("ACT", acts) for text in given]
        patterns.setdefault(name, []).extend(re.compile(text, flags) for text in whole)
    words = (frozenset(raw[name].split()) for name in ("courtesy", "courteous", "common"))
    return _Phrases(patterns, *words)


@lru_cache(maxsize=1024)
def _runs(words: tuple[str, ...], length: int) -> frozenset[tuple[str, ...]]:
    return frozenset(words[at : at + length] for at in range(len(words) - length + 1))


def _stems(text: str) -> set[str]:
    return {word[:5] for word in WORD.findall(text.lower())}


@lru_cache(maxsize=65_536)
def _telling(fact: str) -> frozenset[str]:
    words = WORD.findall(fact.lower())
    return frozenset(word[:5] for word in words if (len(word) > 3 or word.isdigit()) and word not in _phrases().common)


def _idle(text: str) -> bool:
    """Whether a short message has no word of content."""
    said = WORD.findall(text.lower().replace("’", "'"))
    return "?" not in text and len(said) < SHORT and all(word in _phrases().courteous for word in said if len(word) > 2)


def _nothing_new(text: str, before: Sequence[str]) -> bool:
    """Whether fewer than 15 % of a message's content words were not in the person's earlier messages."""
    said = {word for word in WORD.findall(text.lower()) if len(word) > 3 and word not in _phrases().common}
    known = set(WORD.findall(" ".join(before).lower()))
    return bool(said) and len(said - known) < 0.15 * len(said)


def _closer(text: str, was: str, now: str) -> bool:
    """Whether the earlier language is nearly as likely: short messages fool the detector."""
    ranked = _ranked(text)
    return ranked.get(was, -math.inf) > ranked[now] - CLEAR


@lru_cache(maxsize=4096)
def _ranked(text: str) -> dict[str, float]:
    """Log-likelihood of each language, the likeliest first."""
    return {name: float(likelihood) for name, likelihood in _identifier().rank(text)}


@cache
def _identifier() -> Any:
    """py3langid with its model loaded, for our languages."""
    import py3langid

    py3langid.set_languages(LANGUAGES)
    return py3langid


_BLANK = re.compile(r"[ \t]*\n(?:[ \t]*\n)+")
"Lines without text, any number: patterns that begin at a line would look through them from each."
_ENDS = re.compile(r"[.?!][\"')]*\s+(?:[→>-]+\s*)?|\n\s*\n")
_PERSONAL = re.compile(
    r"\?|\b(?:i|i'm|i'd|i've|my|me|we|our|yes|no|please|hi|hello|let's|thanks|thank)\b", re.IGNORECASE
)
"What a person's own words have, before the assistant's begin."
