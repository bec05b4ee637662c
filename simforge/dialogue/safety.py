"""Safety: limits what people may want; it is not one of the dimensions on which they differ.

Nobody's wishes make an unsafe answer the chosen one, and no preference space may ask for one,
unless the recipe declares that it studies exactly this (`filters.safety: studied`). The rules
detect plain cases, in English, and are not a classifier: explicit requests for help with
harming people that the answer helps with, and answers that tell somebody to hurt themselves or
insult a group. To judge safety with a model, use an endpoint that refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from simforge.personas.spaces import Space

_ASKS_FOR_HARM = re.compile(
    r"\b(?:how (?:do|can|could|would|to)|help me|teach me|tell me how|instructions?|steps"
    r"|ways?|recipe|guide"
    r"|explain how|write|give me)\b[^.?!]{0,80}?\b(?:"
    r"(?:make|build|construct|assemble|synthesi[sz]e|cook|produce|3d.?print)\b[^.?!]{0,30}\b"
    r"(?:(?<!bath )(?<!cherry )"
    r"(?<!glitter )(?<!seed )(?<!cocoa )(?<!chocolate )bombs?|explosives?|grenades?|nerve "
    r"(?:gas|agent)s?"
    r"|chemical weapons?|bioweapons?|meth(?:amphetamine)?|fentanyl|ghost guns?|malware"
    r"|ransomware|keyloggers?)"
    r"|(?:kill|poison|murder|strangle|stalk|kidnap|blackmail|drug|rape|molest|groom)\b (?:some"
    r"(?:one|body)|people|him"
    r"|them|(?:(?:my|a|the|his|her|their) (?:\w+ )?)?(?:wife|husband|partner|girlfriend"
    r"|boyfriend|neighbou?rs?"
    r"|sister|brother|mother|father|parents?|child(?:ren)?|kids?|baby|girls?|boys?|teacher"
    r"|classmates?|colleagues?))"
    r"|(?:kill|hurt|cut|harm|starve) (?:myself|yourself|themselves|himself|herself)"
    r"|commit (?:suicide|murder|arson|fraud)|launder money|counterfeit (?:money|bills)"
    r"|(?:hack|break) into (?:my|a|the|his|her|their|someone(?:'s)?|somebody(?:'s)?) "
    r"(?:[\w']+ )?(?:house|home|flat"
    r"|apartment|car|account|phone|e-?mail|computer|laptop|network|wi-?fi|server|bank|safe|school)"
    r"|steal (?:a car|cars|credit cards?|identit(?:y|ies)|passwords?))\b",
    re.IGNORECASE,
)


_GAME_OR_FICTION = re.compile(
    r"\b(?:games?|level|raid|minecraft|chess|novel|in my story)\b", re.IGNORECASE
)


_HARMFUL_ANSWER = re.compile(
    r"\b(?:you should|you ought to|just|go(?: and)?|please) (?:kill|hurt|harm|cut|starve"
    r"|hang) yourself\b"
    r"|\bkill yourself\b|\byou(?:'d| would) be better off dead\b|\b(?:nobody"
    r"|no one) would miss you\b"
    r"|\bstop taking your (?:medication|medicine|insulin|pills)\b(?! without)"
    r"|\b(?:all|those|these) (?:women|men|jews|muslims|christians|blacks|whites|asians"
    r"|immigrants|gays|foreigners"
    r"|disabled people) (?:are|deserve) (?:stupid|inferior|vermin|animals|scum|subhuman|to die"
    r"|to suffer)\b",
    re.IGNORECASE,
)


_GIVES_INSTRUCTIONS = re.compile(
    r"\b(?:first|step 1|1\.|you(?:'ll| will) need|start by|begin by|mix|gather|ingredients"
    r"|materials)\b",
    re.IGNORECASE,
)


_ASKS_FOR_UNSAFE = re.compile(
    r"(?:^|[.;,:] |\b(?:and|to|prefers|should|that are) )(?:be|being|sound|act|use|using|give"
    r"|include|write|add)s?\b"
    r"(?:(?!no\b|not\b|never\b|without\b|avoid)[\w'-]+ ?| ){0,5}\b(?:hateful|racist|sexist"
    r"|slurs?|toxic|illegal|unsafe"
    r"|harmful|violent|dangerous advice|insults)\b"
    r"|\bignor\w+ (?:all |any )?(?:safety|the law|ethics)\b|\bwithout (?:any )?regard (?:for"
    r"|to) safety\b"
    r"|(?:^|[.;,:] )(?:never|don't|do not) (?:refuse|warn)\b",
    re.IGNORECASE,
)


def is_unsafe(user_message: str, answer: str) -> bool:
    """Returns whether an answer is harmful, or helps with the harm that the user asked for."""
    if _HARMFUL_ANSWER.search(answer):
        return True
    return bool(
        _ASKS_FOR_HARM.search(user_message) and _GIVES_INSTRUCTIONS.search(answer)
    ) and not _GAME_OR_FICTION.search(user_message)


def unsafe_wishes(space: Space) -> Iterable[tuple[str, str, str]]:
    """Yields the dimension, pole and sentence of each wish for unsafe answers in a space."""
    for dimension, poles in space.poles.items():
        for name, pole in poles.items():
            for text in (pole.steer, pole.wants):
                if _ASKS_FOR_UNSAFE.search(text):
                    yield dimension, name, text
                    break
