"""Words of Faker's providers, with their weights, identical in every process."""

from __future__ import annotations

import importlib
from collections import Counter
from decimal import Decimal
from functools import lru_cache
from typing import Any

FAKER_POOL_SIZE = 2_000
"Number of words sampled from a Faker provider that has no list of its own."


@lru_cache(maxsize=512)
def faker_words(
    locale: str, provider: str, sex: str, probe_only: bool = False
) -> tuple[list[str], list[float]] | None:
    """Return a Faker provider's words in a locale with their weights, or `None` if the provider
    does not exist or needs arguments.

    First and last names come from the locale's own lists (in Latin letters if the locale has
    such a list); first names from the list of the given sex. Other words come from a pool
    that Faker samples once, identical in every process.
    """
    names = importlib.import_module(f"faker.providers.person.{locale}").Provider
    if provider in ("first_name", "last_name"):
        return _name_list(names, provider, sex)
    from faker import Faker as RealFaker
    from faker.exceptions import BaseFakerException
    from faker.providers.date_time import Provider as Clock

    if hasattr(Clock, provider):  # the result depends on the current date
        return None
    instance = RealFaker(locale)
    instance.seed_instance(0)
    try:
        words = [
            getattr(instance, provider)()
            for _ in range(1 if probe_only else FAKER_POOL_SIZE)
        ]
    except (AttributeError, TypeError, BaseFakerException):
        return None
    if not all(isinstance(word, str | int | float | Decimal) for word in words):
        return None  # a set or an object has no text that is identical in every process
    pool = Counter(map(str, words))
    return list(pool), [float(weight) for weight in pool.values()]


def _name_list(
    names: Any, provider: str, sex: str
) -> tuple[list[str], list[float]] | None:
    kind, romanised = f"{provider}s", f"{provider.replace('_', '_romanized_')}s"
    sex_specific = (
        [[f"{romanised}_{sex}"], [romanised], [f"{kind}_{sex}"]]
        if sex
        else [[romanised]]
    )
    for attributes in [
        *sex_specific,
        [kind],
        [f"unisex_{kind}"],
        [f"{kind}_female", f"{kind}_male"],
    ]:
        weights: dict[str, float] = {}
        for attribute in attributes:
            weights |= _locale_list(names, attribute)
        if weights:
            return [word.title() if word.isupper() else word for word in weights], list(
                weights.values()
            )
    return None


def _locale_list(names: Any, attribute: str) -> dict[str, float]:
    """Return a list of a locale with its weights; empty if the locale only inherits Faker's
    default list."""
    from faker.providers.person import Provider as Anywhere

    words = getattr(names, attribute, None)
    if (
        isinstance(words, property) and words.fget is not None
    ):  # lists built per instance
        words = words.fget(names(None))
    if not words or words is getattr(Anywhere, attribute, None):
        return {}
    return (
        {word: float(words[word]) for word in words}
        if isinstance(words, dict)
        else dict.fromkeys(words, 1.0)
    )
