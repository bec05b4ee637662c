"""Admission: how many calls an endpoint gets at once, and when a failed call is retried.

Each endpoint has a gate that limits its calls in flight. The limit starts small and doubles
while all calls succeed. When the endpoint answers that it is overloaded (429, 503, 529), or does
not answer within the deadline, the limit is halved and then grows slowly. If the server keeps
refusing the same share of calls at a lower limit, the load is not the cause, so the limit is left
where it was: an endpoint that always refuses one call in ten must not slow a run down to a crawl.
`Retry-After` delays only the call that received it.

Several workers share an endpoint. Each gate learns on its own. The driver collects the gates'
limits and gives each worker the share of their sum that its work needs (`Gate.set_share`), so
that a limit for the run holds for the whole run.

Every call has a deadline: ten times the usual latency once that is known, and twice as long
each time the call has already timed out. A call that hangs is therefore abandoned and retried.
While an endpoint cannot be reached at all, its calls are retried with growing pauses or sent to
the model's other URLs. When all URLs have been unreachable for `UNREACHABLE_TIMEOUT` seconds,
the run stops.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from dataclasses import dataclass

MAX_IN_FLIGHT = 4096
"Maximum number of calls in flight, even if the endpoint accepts more."


INITIAL_IN_FLIGHT = 16
"Initial limit of calls in flight."


MIN_EPOCH = 20
"Minimum number of responses between two changes of the limit."


UNREACHABLE_TIMEOUT = 120.0
"Seconds without any response after which an endpoint counts as down."


INITIAL_DEADLINE = 300.0
"Deadline of a call in seconds while the usual latency is not yet known."


MIN_DEADLINE = 2.0


MAX_DOUBLINGS = 2
"Number of times that the deadline of a call that timed out is doubled."


MAX_BACKGROUND_REFUSALS = 0.25
"Largest share of refusals that can be considered independent of the load."


AVOID_SECONDS = 5.0
"Seconds for which calls avoid a URL after it could not be reached."


SERVING_WINDOW = 30.0
"Seconds after its last answer during which an endpoint counts as serving."


BURST_SECONDS = 5.0
"Seconds' worth of tokens that may be used at once."


MIN_LATENCIES = 50
"Number of latencies needed to determine the usual one."


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits that the user sets for each model, over all workers; `None` means no limit."""

    in_flight: int | None = None
    "Maximum number of calls in flight."
    tokens_per_minute: int | None = None
    "Maximum number of prompt and completion tokens per minute."
    workers: int = 1
    "Number of workers that share the limits; each one's initial limit is divided by it."


UNLIMITED = Bounds()


@dataclass(frozen=True, slots=True)
class GateState:
    """The state of a gate, for the driver."""

    limit: float
    demand: int
    "Calls in flight or waiting."
    held: float
    "Share of the common limit in use: the gate's maximum, or its calls in flight if more."
    in_flight: int = 0
    oldest: float = 0.0
    "Seconds for which the oldest call in flight has been waiting for its answer."
    silent: float = 0.0
    "Seconds without any answer while calls were in flight."
    refusals: int = 0
    "Answers so far that the endpoint is overloaded."
    errors: int = 0
    "Other failed answers so far."
    problem: str = ""
    "The last failure, in words; empty if the last call succeeded."


class Gate:
    """Adaptive limit on the calls in flight at one endpoint."""

    def __init__(
        self,
        max_in_flight: float = MAX_IN_FLIGHT,
        deadline: float = INITIAL_DEADLINE,
        workers: int = 1,
    ) -> None:
        self.limit = max(1.0, min(INITIAL_IN_FLIGHT / workers, max_in_flight))
        self.in_flight = 0
        self._max_in_flight, self._max_deadline = float(max_in_flight), deadline
        self.deadline_seconds = deadline
        "Current deadline of a call."
        self._open_deadlines: dict[asyncio.Timeout, tuple[float, int]] = {}
        "Start time and number of earlier timeouts of each call in flight, by its deadline."
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._latencies: deque[float] = deque(maxlen=512)
        self._answered = self._refused = 0
        self._peak_in_flight = 0
        "Peak of calls in flight since the last change; an unreached limit is not raised."
        self._doubling = True
        self._never_overloaded = True
        "True until the load has caused a refusal; until then the limit may double."
        self._last_cut: tuple[float, float] | None = None
        "Limit and share of refusals before the last cut, until the cut's effect is known."
        self._background_share = 0.0
        "Share of refusals that does not depend on the load."
        self._unreachable_since: float | None = None
        "When the endpoint was first found unreachable since its last response."
        self._last_failure = 0.0
        self._last_answer = 0.0
        self._last_timeout_cut = -math.inf
        self._refusals = self._errors = 0
        "Overloads and other failures since the start."
        self.problem = ""
        "The last failure, in words; empty if the last call succeeded."

    def deadline(self, timeouts: int = 0) -> asyncio.Timeout:
        """Return a context manager that raises `TimeoutError` when its body takes too long.
        Deadlines of calls in flight follow the measured latency. Pass it to `end_deadline` when
        the call is over.

        A call that timed out before gets twice as long each time, so that a server that has
        become slow can answer in the end, and the deadline adapts to it.
        """
        timeout = asyncio.timeout(self._deadline_after(timeouts))
        self._open_deadlines[timeout] = asyncio.get_running_loop().time(), timeouts
        return timeout

    def end_deadline(self, timeout: asyncio.Timeout) -> None:
        """Remove the deadline of a call that is over."""
        del self._open_deadlines[timeout]

    async def enter(self) -> None:
        """Take one place in flight; wait while all are taken. Every `enter` needs a `leave`."""
        if self.in_flight < int(self.limit) and not self._waiting:
            self.in_flight += 1
        else:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                # the waker has already taken the place for this call, so that no other
                # overtakes it
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self.in_flight -= 1
                    self._wake()
                raise
        self._peak_in_flight = max(self._peak_in_flight, self.in_flight)

    def leave(self) -> None:
        """Release the place."""
        self.in_flight -= 1
        self._wake()

    @property
    def demand(self) -> int:
        """Number of calls in flight or waiting."""
        return self.in_flight + len(self._waiting)

    @property
    def state(self) -> GateState:
        now = time.monotonic()
        starts = [start for start, _ in self._open_deadlines.values()]
        oldest = now - min(starts, default=now)
        return GateState(
            limit=self.limit,
            demand=self.demand,
            held=max(self._max_in_flight, self.in_flight),
            in_flight=self.in_flight,
            oldest=oldest,
            silent=min(oldest, now - self._last_answer),
            refusals=self._refusals,
            errors=self._errors,
            problem=self.problem,
        )

    def set_share(self, factor: float, max_in_flight: float) -> None:
        """Apply this gate's share of the limit that all gates of the endpoint have learnt
        together."""
        self._max_in_flight = max_in_flight
        self.limit = min(max_in_flight, max(1.0, self.limit * factor))
        self._wake()

    def record_answer(self, seconds: float) -> None:
        """Record an answer that took this many seconds."""
        self.record_contact()
        self.problem = ""
        self._last_answer = time.monotonic()
        self._latencies.append(seconds)
        self._answered += 1
        self._adjust_limit()

    def record_refusal(self) -> None:
        """Record that the endpoint answered that it is overloaded."""
        self.record_contact()
        self._refused += 1
        self._refusals += 1
        self._adjust_limit()

    def record_timeout(self, started: float) -> None:
        """Record that a call, sent at `started` on the monotonic clock, reached its deadline. A
        server that works on more calls than it can answer in time gets half as many: once for
        the calls that were in flight together, since they time out together."""
        if started < self._last_timeout_cut:
            return
        self._last_timeout_cut = time.monotonic()
        self._answered = self._refused = 0
        self._doubling = self._never_overloaded = False
        self._last_cut = None
        self.limit = max(1.0, min(self.limit, self.in_flight) / 2)

    def answered_since(self, moment: float) -> bool:
        """Return whether the endpoint has answered any call since a moment of the monotonic
        clock."""
        return self._last_answer > moment

    def record_error(self) -> None:
        """Record that the endpoint answered with an error that is not about its load."""
        self.record_contact()
        self._errors += 1

    def record_contact(self) -> None:
        """Record that the endpoint responded, even if with an error."""
        self._unreachable_since = None

    def _deadline_after(self, timeouts: int) -> float:
        return float(self.deadline_seconds * 2 ** min(timeouts, MAX_DOUBLINGS))

    def record_unreachable(self) -> None:
        """Record that a call could not reach the endpoint."""
        self._last_failure = time.monotonic()
        if self._unreachable_since is None:
            self._unreachable_since = self._last_failure

    @property
    def unreachable_seconds(self) -> float:
        """Seconds for which the endpoint has been unreachable; 0 if it is not known to be."""
        return (
            0.0
            if self._unreachable_since is None
            else time.monotonic() - self._unreachable_since
        )

    @property
    def should_avoid(self) -> bool:
        """True if calls should use another URL; a call may still try this one from time to
        time."""
        return (
            self._unreachable_since is not None
            and time.monotonic() - self._last_failure < AVOID_SECONDS
        )

    @property
    def has_served(self) -> bool:
        """True if the endpoint has ever answered."""
        return self._last_answer > 0

    @property
    def is_serving(self) -> bool:
        """True if some calls were answered recently, even if others failed."""
        return time.monotonic() - self._last_answer < SERVING_WINDOW

    def _adjust_limit(self) -> None:
        """Adjust the limit at the end of an epoch (about as many responses as calls allowed in
        flight)."""
        responses = self._answered + self._refused
        if responses < max(MIN_EPOCH, self.limit):
            return
        share = self._refused / responses
        self._answered = self._refused = 0
        limit_was_reached, self._peak_in_flight = (
            self._peak_in_flight >= 0.8 * int(self.limit),
            self.in_flight,
        )
        if len(self._latencies) >= MIN_LATENCIES:
            p95 = sorted(self._latencies)[int(len(self._latencies) * 0.95)]
            self.deadline_seconds = min(self._max_deadline, max(MIN_DEADLINE, 10 * p95))
            for timeout, (start, timeouts) in self._open_deadlines.items():
                if timeout.expired():  # its call is already ending
                    continue
                timeout.reschedule(start + self._deadline_after(timeouts))
        if self._last_cut is not None:
            previous_limit, previous_share = self._last_cut
            self._last_cut = None
            if (
                share > 0.5 * previous_share
                and previous_share <= MAX_BACKGROUND_REFUSALS
            ):  # the cut did not help, so the load is not the cause
                self._background_share = min(
                    MAX_BACKGROUND_REFUSALS, max(share, previous_share) * 1.5
                )
                self._doubling = self._never_overloaded
                self.limit = min(self._max_in_flight, previous_limit)
                self._wake()
                return
            self._never_overloaded = False
        self._background_share *= 0.98
        noise = 2 * math.sqrt(
            self._background_share * (1 - self._background_share) / responses
        )
        if share > self._background_share + noise:
            self._last_cut = (self.limit, share)
            self._doubling = False
            self.limit = max(1.0, self.limit / 2)
        elif limit_was_reached:
            self.limit = min(
                self._max_in_flight,
                self.limit * 2 if self._doubling else self.limit * 1.05 + 1,
            )
            self._wake()

    def _wake(self) -> None:
        free = int(self.limit) - self.in_flight
        while free > 0 and self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self.in_flight += 1
                free -= 1


class TokenBucket:
    """Token bucket for a limit in tokens per minute. It fills evenly and holds a few seconds'
    worth.

    Before a call is sent, it takes the tokens it is expected to use, and waits in order until
    the bucket is not negative. Afterwards the difference from what it did use is refunded.
    """

    def __init__(self, per_minute: float) -> None:
        self.rate = per_minute / 60
        self._available = self.rate * BURST_SECONDS
        self._updated_at = time.monotonic()
        self._mean_completion = 0.0
        "Average number of completion tokens of a call."
        self._lock = asyncio.Lock()
        self.waiting = 0
        "Number of calls that wait for tokens."

    async def take(self, characters: int, max_tokens: int) -> float:
        """Wait until the bucket is not negative, then take the tokens that a call is expected
        to use, estimated from the length of its prompt and its maximum completion. Returns
        their number. The rate may change while calls wait."""
        self.waiting += 1
        try:
            async with self._lock:
                while self._refill() < 0:
                    await asyncio.sleep(min(1.0, -self._available / self.rate))
                tokens = characters / 4 + (self._mean_completion or max_tokens)
                self._available -= tokens
                return tokens
        finally:
            self.waiting -= 1

    def refund(self, unused: float) -> None:
        """Refund tokens that a call took and did not use; negative if it used more."""
        self._available += unused

    def record_usage(self, prompt: int, completion: int) -> float:
        """Learn the usual completion length from the server's counts of tokens. Returns the
        tokens that the call used."""
        self._mean_completion = (
            0.95 * self._mean_completion + 0.05 * completion
            if self._mean_completion
            else completion
        )
        return float(prompt + completion)

    def _refill(self) -> float:
        now = time.monotonic()
        self._available = min(
            self.rate * BURST_SECONDS,
            self._available + (now - self._updated_at) * self.rate,
        )
        self._updated_at = now
        return self._available


def backoff(attempt: int, retry_after: float | None) -> float:
    """Return the seconds to wait before the next attempt: `retry_after` if given, else doubling
    from a quarter of a second; jittered.

    The jitter is deliberately not derived from the seed: it must differ between workers, and it
    does not affect any content.
    """
    delay = min(20.0, 0.25 * 2**attempt) * random.uniform(0.5, 1.5)
    return float(
        delay
        if retry_after is None
        else max(
            delay, min(retry_after, UNREACHABLE_TIMEOUT) * random.uniform(1.0, 1.25)
        )
    )
