"""Money: what calls cost, and where to stop.

Prices are the user's, in a YAML file: a model reference (or its beginning and `*`) and prices per million tokens.
Nothing is guessed: what a model without a price costs is unknown, and a budget over such a model is refused.

    openai:gpt-5-mini*: {prompt: 0.25, cached: 0.025, completion: 2.0}
    local:*: {prompt: 0, completion: 0}
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

from pydantic import Field

from simforge import documents
from simforge.documents import Strict
from simforge.errors import BudgetReached, RecipeError, UsageError
from simforge.types import ChatRequest, Usage

WAIT = 0.1
"Seconds between two looks at an allowance that is used up."
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Price(Strict):
    """Of one model, per million tokens, in the user's currency."""

    prompt: Amount
    cached: Amount | None = None
    "Of prompt tokens from the prefix cache; like any other where not given."
    completion: Amount

    def of(self, used: Usage) -> float:
        cached = self.prompt if self.cached is None else self.cached
        fresh = max(0, used.prompt_tokens - used.cached_tokens)
        return (fresh * self.prompt + used.cached_tokens * cached + used.completion_tokens * self.completion) / 1e6


def load(path: Path | None) -> dict[str, Price]:
    """The prices of a file, by reference or pattern. Raises `UsageError`, and `RecipeError` with all mistakes."""
    if path is None:
        return {}
    try:
        document = documents.read(path.read_text(encoding="utf-8"), str(path))
    except OSError as problem:
        raise UsageError(f"--prices {path} cannot be read: {problem.strerror or problem}.") from None
    prices, mistakes = {}, []
    for name, value in document.value.items():
        part = documents.Document(
            document.label, value, {key[1:]: line for key, line in document.lines.items() if key[:1] == (name,)}
        )
        price, wrong = documents.check(part, Price) if isinstance(value, dict) else (None, [])
        mistakes += wrong or ([] if price else [document.mistake((name,), "must be a mapping of prices")])
        if price is not None:
            prices[name] = price
    if mistakes:
        raise RecipeError(mistakes)
    return prices


def price_of(reference: str, prices: Mapping[str, Price]) -> Price | None:
    """The price of a model: its own, else that of the longest pattern that fits."""
    fitting = [name for name in prices if fnmatchcase(reference, name)]
    return prices[max(fitting, key=len)] if fitting else None


def reached(limit: float, spent: float) -> BudgetReached:
    return BudgetReached(
        f"the budget of {limit:g} is reached: {spent:.4g} is spent, and the rest may not pay another call. What was "
        "answered is kept."
    )


@dataclass(slots=True)
class Purse:
    """What may be spent, and what was."""

    limit: float
    prices: dict[str, Price]
    "By model reference, one for every model of the run."
    spent: float = 0.0
    allowance: float | None = None
    """What one of several workers may have spent before it waits for more; `None` is all of the limit. The driver
    divides what is left again and again, so that together they never exceed it."""
    reserved: float = 0.0
    "The most that the calls under way can cost."
    under_way: int = 0
    waiting: list[float] = field(default_factory=list)
    "The most that each call can cost that waits for money."

    @property
    def short(self) -> float:
        """What the cheapest waiting call needs, where nothing is under way that could leave it something; else 0."""
        return min(self.waiting, default=0.0) if not self.reserved else 0.0

    async def reserve(self, reference: str, request: ChatRequest) -> float:
        """Put aside the most that a new call can cost, so that no call under way can exceed the limit; waits while
        others may still leave something. Raises `BudgetReached` where they cannot."""
        characters = sum(len(message.content) for message in request.messages)
        most = Usage(1, characters // 3, 0, request.n * request.sampling.max_tokens)
        cost = self.prices[reference].of(most)
        self.waiting.append(cost)
        try:
            while self.spent + self.reserved + cost > (self.limit if self.allowance is None else self.allowance):
                if self.allowance is None and not self.reserved:
                    raise reached(self.limit, self.spent)
                await asyncio.sleep(WAIT)
        finally:
            self.waiting.remove(cost)
        self.reserved += cost
        self.under_way += 1
        return cost

    def land(self, cost: float) -> None:
        """A call is over for which so much was put aside."""
        self.under_way -= 1
        self.reserved = self.reserved - cost if self.under_way else 0.0  # no remains of rounding

    def pay(self, reference: str, used: Usage) -> None:
        self.spent += self.prices[reference].of(used)
