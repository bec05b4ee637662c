"""What a run may spend, and what it has spent."""

from __future__ import annotations

from pathlib import Path

from simforge.errors import UsageError
from simforge.models.budget import Budget, Price, load_prices, price_of
from simforge.models.contract import ModelSpec
from simforge.models.ledger import usage_by_model, usage_of
from simforge.run.options import Options
from simforge.types import Role, Usage


def budget_of(options: Options, specs: dict[Role, ModelSpec]) -> Budget | None:
    """The budget of the run. Raises `UsageError` if a model has no price."""
    prices = load_prices(options.prices)
    if options.budget is None:
        return None
    model_prices = {}
    for spec in specs.values():
        price = price_of(spec.reference, prices)
        if price is None:
            raise UsageError(
                f"--budget needs the price of {spec.reference}: name it in a file of --prices, "
                "per million tokens "
                f'("{spec.reference}": {{prompt: 0.1, completion: 0.4}}).'
            )
        model_prices[spec.reference] = price
    return Budget(options.budget, model_prices)


def paid_usage(ledger: Path | str, specs: dict[Role, ModelSpec]) -> dict[Role, Usage]:
    """The replies that the ledger holds of the models of a run, by the role that asked first:
    each once, however many people used it. A ledger that several runs share holds those of the
    other runs too."""
    fingerprints = {spec.fingerprint for spec in specs.values()}
    usage: dict[Role, Usage] = {}
    for (model, role), used in usage_of(ledger).items():
        if model in fingerprints:
            usage[role] = usage.get(role, Usage()) + used
    return usage


def spent_so_far(
    ledger: Path | str, specs: dict[Role, ModelSpec], prices: dict[str, Price]
) -> float:
    """The cost so far of the replies in the run's ledger."""
    by_fingerprint = {
        spec.fingerprint: prices[spec.reference] for spec in specs.values()
    }
    return sum(
        by_fingerprint[name].cost_of(usage)
        for name, usage in usage_by_model(ledger).items()
        if name in by_fingerprint
    )
