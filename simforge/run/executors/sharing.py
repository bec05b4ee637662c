"""Division of a run's limits among its workers: calls in flight, tokens per minute, budget.

Plain functions from the statuses of the workers to the control message of each, once a second.
The workers' gates learn how much load an endpoint can take. Here their limits are added up and
divided again by the work that each worker has, so that a worker with little work does not hold
places that another needs, and the user's limits hold for all workers together.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from simforge.models.budget import Budget
from simforge.models.rate_limits import MAX_IN_FLIGHT, Bounds, GateState
from simforge.run.shards import Control, Share, Status

Key = TypeVar("Key", bound=Hashable)


MAX_STEP = 2.0
"Maximum factor by which a limit changes at a time."


@dataclass(frozen=True, slots=True)
class Allowances(Generic[Key]):
    """The division of a run's budget among its workers."""

    spent: float
    by_worker: Mapping[Key, float]
    "Amount that each worker may spend in total since its start."
    exhausted: bool
    "True if the remaining budget may not be enough for another call."


def controls(
    number: int,
    statuses: Mapping[Key, Status],
    bounds: Bounds,
    allowances: Allowances[Key] | None,
    urls: Mapping[str, tuple[str, ...]],
) -> dict[Key, Control]:
    """Compute the control message of each worker."""
    shares: dict[Key, dict[str, dict[str, Share]]] = {key: {} for key in statuses}
    rates: dict[Key, dict[str, float]] = {key: {} for key in statuses}
    for reference in {name for status in statuses.values() for name in status.gates}:
        states = {
            key: status.gates.get(reference, {}) for key, status in statuses.items()
        }
        all_urls = {url for by_url in states.values() for url in by_url}
        for url in all_urls:
            states_at_url = {
                key: by_url[url] for key, by_url in states.items() if url in by_url
            }
            wanted = sum(state.demand + 1 for state in states_at_url.values())
            total = sum(state.limit for state in states_at_url.values())
            parts = {
                key: (state.demand + 1) / wanted for key, state in states_at_url.items()
            }
            maximum = _divide_limit(
                states_at_url,
                parts,
                (bounds.in_flight or MAX_IN_FLIGHT * len(states_at_url))
                / len(all_urls),
            )
            for key, state in states_at_url.items():
                factor = min(
                    MAX_STEP, max(1 / MAX_STEP, total * parts[key] / state.limit)
                )
                shares[key].setdefault(reference, {})[url] = Share(factor, maximum[key])
        if bounds.tokens_per_minute:
            demand = {
                key: 1 + sum(state.demand for state in by_url.values())
                for key, by_url in states.items()
            }
            for key, worker_demand in demand.items():
                rates[key][reference] = (
                    bounds.tokens_per_minute / 60 * worker_demand / sum(demand.values())
                )
    amounts = dict(allowances.by_worker) if allowances is not None else {}
    return {
        key: Control(number, amounts.get(key), shares[key], rates[key], urls)
        for key in statuses
    }


def _divide_limit(
    states: Mapping[Key, GateState], parts: Mapping[Key, float], bound: float
) -> dict[Key, float]:
    """Divide a limit on the calls in flight among the workers, at least one each. Places that
    one worker gives up go to another only after the first has confirmed it, so that the sum
    never exceeds the limit."""
    target = {key: max(1.0, bound * part) for key, part in parts.items()}
    growing = {key for key, state in states.items() if target[key] > state.held}
    free = max(0.0, bound - sum(state.held for state in states.values()))
    wanted = sum(target[key] - states[key].held for key in growing)
    step = min(1.0, free / wanted) if wanted else 0.0
    return {
        key: states[key].held + step * (target[key] - states[key].held)
        if key in growing
        else target[key]
        for key in states
    }


def divide_budget(
    budget: Budget,
    statuses: Mapping[Key, Status],
    granted: Mapping[Key, float],
    spent_by_lost: float,
) -> Allowances[Key]:
    """Divide the remaining budget evenly. If no worker with work can pay for a call from an
    even part, the worker whose next call is cheapest gets everything.

    `granted` is the allowance last sent to each worker; `spent_by_lost` is the amount that lost
    workers may have spent. A worker that has not answered may spend all that it was granted, so
    an amount that one worker gives up goes to another only after the first has confirmed it.
    """
    spent = (
        budget.spent + spent_by_lost + sum(status.spent for status in statuses.values())
    )
    remaining = max(0.0, budget.limit - spent)
    waiting_costs = {
        key: status.short for key, status in statuses.items() if status.short
    }
    part = {key: remaining / max(1, len(statuses)) for key in statuses}
    reached = False
    if waiting_costs and not any(status.reserved for status in statuses.values()):
        cheapest = min(waiting_costs, key=lambda key: waiting_costs[key])
        part = {key: remaining if key == cheapest else 0.0 for key in statuses}
        reached = waiting_costs[cheapest] > remaining
    target = {key: status.spent + part[key] for key, status in statuses.items()}
    held = {
        key: max(status.spent, status.allowance, granted.get(key, 0.0))
        for key, status in statuses.items()
    }
    free = max(0.0, budget.limit - budget.spent - spent_by_lost - sum(held.values()))
    wanted = sum(max(0.0, target[key] - held[key]) for key in statuses)
    step = min(1.0, free / wanted) if wanted else 0.0
    by_worker = {
        key: min(target[key], held[key] + step * (target[key] - held[key]))
        for key in statuses
    }
    return Allowances(spent, by_worker, reached)


def initial_bounds(bounds: Bounds, workers: int) -> Bounds:
    """Return the limits of one of `workers` workers until its first control message."""
    in_flight = max(1, (bounds.in_flight or MAX_IN_FLIGHT) // workers)
    tokens = bounds.tokens_per_minute
    return Bounds(in_flight, max(1, tokens // workers) if tokens else None, workers)


def late_bounds(bounds: Bounds, workers: int) -> Bounds:
    """Return the limits of a late worker until its first control message: minimal, since the
    others hold the rest."""
    return replace(initial_bounds(bounds, 10 * workers), in_flight=1)
