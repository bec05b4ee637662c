"""Languages: which one a text is written in, by py3langid (after Lui and Baldwin 2012)."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from simforge.text.measures import dominant_script

LANGUAGES = (
    "ar bg bn ca cs da de el en es et fa fi fr gu he hi hr hu id it ja kk ko lt lv mk "
    "ml mr nl no pa pl pt ro ru sk sl sr sv sw ta te th tl tr uk ur vi zh"
).split()
"ISO codes of the candidate languages: with every small one, short English is taken for creole."


@lru_cache(maxsize=4096)
def language(text: str) -> str | None:
    """Returns the ISO code of a text's language; `None` without letters."""
    if not dominant_script(text):
        return None
    return next(iter(likelihoods(text)))


@lru_cache(maxsize=4096)
def likelihoods(text: str) -> dict[str, float]:
    """Log-likelihood of each language, the most likely first."""
    return {name: float(likelihood) for name, likelihood in _identifier().rank(text)}


@cache
def _identifier() -> Any:
    """Returns py3langid with its model loaded, limited to `LANGUAGES`."""
    import py3langid

    py3langid.set_languages(LANGUAGES)
    return py3langid
