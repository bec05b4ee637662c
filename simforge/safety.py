"""Safety: a constraint on what people may want, not one of the things that they differ in.

Nobody's wishes make an unsafe answer the chosen one, and no preference space may ask for one, unless the recipe says
that it studies just that (`filters.safety: studied`). The rules know plain cases, in English, and are no classifier:
help with harming people that was asked for in so many words, and answers that tell somebody to hurt themselves or
insult a group. A model that judges safety belongs behind an endpoint that refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from simforge.preferences import Space

_ASKS_FOR_HARM = re.compile(
    r"\b(?:how (?:do|can|could|would|to)|help me|teach me|tell me how|instructions?|steps|ways?|recipe|guide"
    r"|explain how|write|give me)\b[^.?!]{0,80}?\b(?:"
    r"(?:make|build|construct|assemble|synthesi[sz]e|cook|produce|3d.?print)\b[^.?!]{0,30}\b(?:(?<!bath )(?<!cherry )"
    r"(?<!glitter )(?<!seed )(?<!cocoa )(?<!chocolate )bombs?|explosives?|grenades?|nerve (?:gas|agent)s?"
    r"|chemical weapons?|bioweapons?|meth(?:amphetamine)?|fentanyl|ghost guns?|malware|ransomware|keyloggers?)"
    r"|(?:kill|poison|murder|strangle|stalk|kidnap|blackmail|drug|rape|molest|groom)\b (?:some(?:one|body)|people|him"
    r"|them|(?:(?:my|a|the|his|her|their) (?:\w+ )?)?(?:wife|husband|partner|girlfriend|boyfriend|neighbou?rs?"
    r"|sister|brother|mother|father|parents?|child(?:ren)?|kids?|baby|girls?|boys?|teacher|classmates?|colleagues?))"
    r"|(?:kill|hurt|cut|harm|starve) (?:myself|yourself|themselves|himself|herself)"
    r"|commit (?:suicide|murder|arson|fraud)|launder money|counterfeit (?:money|bills)"
    r"|(?:hack|break) into (?:my|a|the|his|her|their|someone(?:'s)?|somebody(?:'s)?) (?:[\w']+ )?(?:house|home|flat"
    r"|apartment|car|account|phone|e-?mail|computer|laptop|network|wi-?fi|server|bank|safe|school)"
    r"|steal (?:a car|cars|credit cards?|identit(?:y|ies)|passwords?))\b",
    re.IGNORECASE,
)
_PLAY = re.compile(r"\b(?:games?|level|raid|minecraft|chess|novel|in my story)\b", re.IGNORECASE)
_HARMS = re.compile(
    r"\b(?:you should|you ought to|just|go(?: and)?|please) (?:kill|hurt|harm|cut|starve|hang) yourself\b"
    r"|\bkill yourself\b|\byou(?:'d| would) be better off dead\b|\b(?:nobody|no one) would miss you\b"
    r"|\bstop taking your (?:medication|medicine|insulin|pills)\b(?! without)"
    r"|\b(?:all|those|these) (?:women|men|jews|muslims|christians|blacks|whites|asians|immigrants|gays|foreigners"
    r"|disabled people) (?:are|deserve) (?:stupid|inferior|vermin|animals|scum|subhuman|to die|to suffer)\b",
    re.IGNORECASE,
)
_HELPS = re.compile(
    r"\b(?:first|step 1|1\.|you(?:'ll| will) need|start by|begin by|mix|gather|ingredients|materials)\b", re.IGNORECASE
)
_ASKS_FOR_UNSAFE = re.compile(
    r"(?:^|[.;,:] |\b(?:and|to|prefers|should|that are) )(?:be|being|sound|act|use|using|give|include|write|add)s?\b"
    r"(?:(?!no\b|not\b|never\b|without\b|avoid)[\w'-]+ ?| ){0,5}\b(?:hateful|racist|sexist|slurs?|toxic|illegal|unsafe"
    r"|harmful|violent|dangerous advice|insults)\b"
    r"|\bignor\w+ (?:all |any )?(?:safety|the law|ethics)\b|\bwithout (?:any )?regard (?:for|to) safety\b"
    r"|(?:^|[.;,:] )(?:never|don't|do not) (?:refuse|warn)\b",
    re.IGNORECASE,
)


def unsafe(asked: str, answer: str) -> bool:
    """Whether an answer harms, or helps with the harm that it was asked for."""
    if _HARMS.search(answer):
        return True
    return bool(_ASKS_FOR_HARM.search(asked) and _HELPS.search(answer)) and not _PLAY.search(asked)


def asking(space: Space) -> Iterable[tuple[str, str, str]]:
    """Dimension, pole and sentence of each wish for unsafe answers that a space has."""
    for dimension, poles in space.poles.items():
        for name, pole in poles.items():
            for text in (pole.steer, pole.wants):
                if _ASKS_FOR_UNSAFE.search(text):
                    yield dimension, name, text
                    break
