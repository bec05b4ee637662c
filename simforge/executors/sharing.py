"""How workers share what a run may use: calls in flight, tokens a minute, money.

A plain function from what the workers report to what each is told, once a second. What an endpoint bears is learnt by
the workers' gates; here their limits are added up and dealt out again by what each worker has to do, so that a worker
with little work does not sit on places that another needs, and what the user allows holds for all of them together.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from simforge.models.admission import MOST, Bounds, GateState
from simforge.money import Purse
from simforge.shards import Orders, Report, Share

Key = TypeVar("Key", bound=Hashable)

STEP = 2.0
"Most that a limit changes at a time, as a factor."


@dataclass(frozen=True, slots=True)
class Budget(Generic[Key]):
    """Where a run's money is."""

    spent: float
    by_worker: Mapping[Key, float]
    "What each worker may have spent since its start."
    reached: bool
    "Whether so little is left that it may not pay another call."


def orders(
    number: int,
    reports: Mapping[Key, Report],
    bounds: Bounds,
    budget: Budget[Key] | None,
    urls: Mapping[str, tuple[str, ...]],
) -> dict[Key, Orders]:
    """What each worker is told."""
    shares: dict[Key, dict[str, dict[str, Share]]] = {key: {} for key in reports}
    rates: dict[Key, dict[str, float]] = {key: {} for key in reports}
    for reference in {name for report in reports.values() for name in report.gates}:
        states = {key: report.gates.get(reference, {}) for key, report in reports.items()}
        everywhere = {url for by_url in states.values() for url in by_url}
        for url in everywhere:
            known = {key: by_url[url] for key, by_url in states.items() if url in by_url}
            wanted = sum(state.demand + 1 for state in known.values())
            total = sum(state.limit for state in known.values())
            parts = {key: (state.demand + 1) / wanted for key, state in known.items()}
            most = _most(known, parts, (bounds.in_flight or MOST * len(known)) / len(everywhere))
            for key, state in known.items():
                factor = min(STEP, max(1 / STEP, total * parts[key] / state.limit))
                shares[key].setdefault(reference, {})[url] = Share(factor, most[key])
        if bounds.tokens_per_minute:
            demand = {key: 1 + sum(state.demand for state in by_url.values()) for key, by_url in states.items()}
            for key, own in demand.items():
                rates[key][reference] = bounds.tokens_per_minute / 60 * own / sum(demand.values())
    allowed = dict(budget.by_worker) if budget is not None else {}
    return {key: Orders(number, allowed.get(key), shares[key], rates[key], urls) for key in reports}


def _most(states: Mapping[Key, GateState], parts: Mapping[Key, float], bound: float) -> dict[Key, float]:
    """Each worker's part of a bound on the calls in flight, at least one. What one gives up another may have only once
    the first has said that it let go, so that at no time they are more together."""
    target = {key: max(1.0, bound * part) for key, part in parts.items()}
    growing = {key for key, state in states.items() if target[key] > state.most}
    free = max(0.0, bound - sum(state.most for state in states.values()))
    wanted = sum(target[key] - states[key].most for key in growing)
    step = min(1.0, free / wanted) if wanted else 0.0
    return {
        key: states[key].most + step * (target[key] - states[key].most) if key in growing else target[key]
        for key in states
    }


def budgeted(purse: Purse, reports: Mapping[Key, Report], promised: Mapping[Key, float], gone: float) -> Budget[Key]:
    """What is left of the purse, dealt out evenly; where nobody who has work can pay for a call from an even part, the
    one who needs least gets all.

    `promised` is what each worker was last told, `gone` what workers that are no more may have spent. A worker that has
    not been heard of may spend all that it was told, so what one gives up another gets only once the first has said so.
    """
    spent = purse.spent + gone + sum(report.spent for report in reports.values())
    left = max(0.0, purse.limit - spent)
    stuck = {key: report.short for key, report in reports.items() if report.short}
    part = {key: left / max(1, len(reports)) for key in reports}
    reached = False
    if stuck and not any(report.reserved for report in reports.values()):
        least = min(stuck, key=lambda key: stuck[key])
        part = {key: left if key == least else 0.0 for key in reports}
        reached = stuck[least] > left
    target = {key: report.spent + part[key] for key, report in reports.items()}
    held = {key: max(report.spent, report.allowance, promised.get(key, 0.0)) for key, report in reports.items()}
    free = max(0.0, purse.limit - purse.spent - gone - sum(held.values()))
    wanted = sum(max(0.0, target[key] - held[key]) for key in reports)
    step = min(1.0, free / wanted) if wanted else 0.0
    by_worker = {key: min(target[key], held[key] + step * (target[key] - held[key])) for key in reports}
    return Budget(spent, by_worker, reached)


def shared(bounds: Bounds, workers: int) -> Bounds:
    """What one of so many workers may do until it is told."""
    in_flight = max(1, (bounds.in_flight or MOST) // workers)
    tokens = bounds.tokens_per_minute
    return Bounds(in_flight, max(1, tokens // workers) if tokens else None, workers)


def waiting(bounds: Bounds, workers: int) -> Bounds:
    """What a worker that comes later may do until it is told: next to nothing, since the others have all there is."""
    return replace(shared(bounds, 10 * workers), in_flight=1)
