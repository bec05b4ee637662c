"""The budget: what calls cost, and when to stop.

Prices are set by the user in a YAML file: a model reference (or its beginning and `*`) and
prices per million tokens. Prices are never guessed: the cost of a model without a price is
unknown, and a budget for a run with such a model is refused.

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

from simforge.catalog import documents
from simforge.catalog.documents import Strict
from simforge.errors import BudgetReached, RecipeError, SourceError, UsageError
from simforge.types import ChatRequest, Usage

POLL_SECONDS = 0.1
"Seconds between two checks of an allowance that is used up."


Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Price(Strict):
    """The prices of one model, per million tokens, in the user's currency."""

    prompt: Amount
    cached: Amount | None = None
    "Price of prompt tokens from the prefix cache; the `prompt` price if not given."
    completion: Amount

    def cost_of(self, used: Usage) -> float:
        cached = self.prompt if self.cached is None else self.cached
        fresh = max(0, used.prompt_tokens - used.cached_tokens)
        return (
            fresh * self.prompt
            + used.cached_tokens * cached
            + used.completion_tokens * self.completion
        ) / 1e6


def load_prices(path: Path | None) -> dict[str, Price]:
    """Load the prices from a file, by reference or pattern. Raises `UsageError`, or
    `RecipeError` with all mistakes."""
    if path is None:
        return {}
    try:
        document = documents.read_file(path)
    except SourceError as problem:
        raise UsageError(f"--prices cannot be read: {problem}") from None
    prices, mistakes = {}, []
    for name, value in document.value.items():
        part = documents.Document(
            document.label,
            value,
            {
                key[1:]: line
                for key, line in document.lines.items()
                if key[:1] == (name,)
            },
        )
        price, part_mistakes = (
            documents.check(part, Price) if isinstance(value, dict) else (None, [])
        )
        mistakes += part_mistakes or (
            [] if price else [document.mistake((name,), "must be a mapping of prices")]
        )
        if price is not None:
            prices[name] = price
    if mistakes:
        raise RecipeError(mistakes)
    return prices


def price_of(reference: str, prices: Mapping[str, Price]) -> Price | None:
    """Return the price of a model: its own, else that of the longest matching pattern."""
    matching = [name for name in prices if fnmatchcase(reference, name)]
    return prices[max(matching, key=len)] if matching else None


def budget_reached(limit: float, spent: float) -> BudgetReached:
    return BudgetReached(
        f"the budget of {limit:g} is reached: {spent:.4g} is spent, and the rest may "
        "not pay for another call. All answers so far are kept."
    )


@dataclass(slots=True)
class Budget:
    """The budget of a run: its limit, and what has been spent and reserved."""

    limit: float
    prices: dict[str, Price]
    "Prices by model reference, for every model of the run."
    spent: float = 0.0
    allowance: float | None = None
    """Amount that one of several workers may spend in total before it waits for more; `None`
    means the whole limit. The driver repeatedly divides the remaining budget among the workers,
    so that together they never exceed it."""
    reserved: float = 0.0
    "Maximum cost of the calls in flight."
    in_flight: int = 0
    waiting_costs: list[float] = field(default_factory=list)
    "Maximum cost of each call that waits for budget."

    @property
    def shortfall(self) -> float:
        """Maximum cost of the cheapest waiting call, if no call in flight could still free
        budget for it; else 0."""
        return min(self.waiting_costs, default=0.0) if not self.reserved else 0.0

    async def reserve(self, reference: str, request: ChatRequest) -> float:
        """Reserve the maximum cost of a new call, so that the calls in flight can never exceed
        the limit. Waits while calls in flight may still free budget. Raises `BudgetReached` if
        they cannot."""
        characters = sum(len(message.content) for message in request.messages)
        maximum = Usage(1, characters // 3, 0, request.n * request.sampling.max_tokens)
        cost = self.prices[reference].cost_of(maximum)
        self.waiting_costs.append(cost)
        try:
            while self.spent + self.reserved + cost > (
                self.limit if self.allowance is None else self.allowance
            ):
                if self.allowance is None and not self.reserved:
                    raise budget_reached(self.limit, self.spent)
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self.waiting_costs.remove(cost)
        self.reserved += cost
        self.in_flight += 1
        return cost

    def release(self, cost: float) -> None:
        """Release the reserved cost of a call that is over."""
        self.in_flight -= 1
        self.reserved = (
            self.reserved - cost if self.in_flight else 0.0
        )  # no rounding errors remain

    def charge(self, reference: str, used: Usage) -> None:
        self.spent += self.prices[reference].cost_of(used)
