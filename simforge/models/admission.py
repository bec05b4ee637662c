"""Admission: how many calls an endpoint gets at once, and when one is asked again.

A gate stands before each endpoint. It starts small and doubles while all goes well; when the endpoint answers that it
is overloaded (429, 503, 529) it halves, then grows slowly. A share of refusals that stays the same when fewer calls are
in flight does not come from the load, so the gate learns to live with it: one call in ten that is refused whatever one
does must not bring a run down to a crawl. `Retry-After` holds back the one call that was told to wait.

A deadline bounds every call: ten times the usual latency once that is known, twice as long for a call that reached it
before, so a call that hangs is abandoned and asked again. While an endpoint cannot be reached at all, its calls try
again with growing pauses, or go to the model's other URLs; when all of them were unreachable for `PATIENCE` seconds,
the run stops.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

START = 16
"Calls in flight at first."
EPOCH = 20
"Fewest answers between two decisions about the limit."
PATIENCE = 120.0
"Seconds without any answer after which an endpoint counts as gone."
FIRST_DEADLINE = 300.0
"Seconds that a call may take while the usual latency is not known yet."
LEAST_DEADLINE = 5.0
CHANCE = 0.25
"Largest share of refusals that can count as independent of the load."
PROBE = 5.0
"Seconds for which calls avoid a URL that could not be reached."
SERVING = 30.0
"Seconds since its last answer for which an endpoint counts as serving."
SAMPLES = 50
"Latencies needed to know the usual one."


class Gate:
    """Adaptive bound on the calls in flight at one endpoint."""

    def __init__(self, most: int = 4096, deadline: float = FIRST_DEADLINE) -> None:
        self.limit = float(min(START, most))
        self.in_flight = 0
        self._most, self._longest = float(most), deadline
        self.seconds = deadline
        "That a call may take."
        self._bounds: dict[asyncio.Timeout, tuple[float, int]] = {}
        "The bounds of the calls under way: when each began, and how often it had reached its deadline before."
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._latencies: deque[float] = deque(maxlen=512)
        self._answered = self._refused = 0
        self._doubling = True
        self._before: tuple[float, float] | None = None
        "Limit and share of refusals before the last cut, until it is known whether the cut helped."
        self._floor = 0.0
        "Share of refusals that does not depend on the load."
        self._gone_since: float | None = None
        "When the endpoint was first found unreachable, since it last answered."
        self._tried = 0.0
        self._last_answer = 0.0

    @asynccontextmanager
    async def deadline(self, timeouts: int = 0) -> AsyncIterator[None]:
        """Raises `TimeoutError` in its body once that took too long; calls under way follow what is learnt.

        A call that reached its deadline before gets twice as long each time, so that a server which has become slow is
        heard at last, and the deadline with it.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.timeout(self._allowed(timeouts)) as bound:
            self._bounds[bound] = start, timeouts
            try:
                yield
            finally:
                del self._bounds[bound]

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """One place in flight; waits while all are taken."""
        if self.in_flight < int(self.limit) and not self._waiting:
            self.in_flight += 1
        else:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn  # who wakes it has taken the place for it, so that nobody overtakes
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.in_flight -= 1
                    self._wake()
                raise
        try:
            yield
        finally:
            self.in_flight -= 1
            self._wake()

    def answered(self, seconds: float) -> None:
        """An answer came after so many seconds."""
        self.reached()
        self._last_answer = time.monotonic()
        self._latencies.append(seconds)
        self._answered += 1
        self._decide()

    def refused(self) -> None:
        """The endpoint said that it is overloaded."""
        self.reached()
        self._refused += 1
        self._decide()

    def reached(self) -> None:
        """Something came back, if only an error."""
        self._gone_since = None

    def _allowed(self, timeouts: int) -> float:
        return float(min(self._longest, self.seconds * 2**timeouts))

    def unreachable(self) -> None:
        """A call did not get through."""
        self._tried = time.monotonic()
        if self._gone_since is None:
            self._gone_since = self._tried

    @property
    def gone(self) -> float:
        """Seconds for which the endpoint has been unreachable; 0 where it is not known to be."""
        return 0.0 if self._gone_since is None else time.monotonic() - self._gone_since

    @property
    def avoided(self) -> bool:
        """Whether calls should go elsewhere; now and then one may try."""
        return self._gone_since is not None and time.monotonic() - self._tried < PROBE

    @property
    def serves(self) -> bool:
        """Whether calls have been answered lately, whatever happened to others."""
        return time.monotonic() - self._last_answer < SERVING

    def _decide(self) -> None:
        """At the end of an epoch (about as many answers as calls are allowed in flight), move the limit."""
        seen = self._answered + self._refused
        if seen < max(EPOCH, self.limit):
            return
        share = self._refused / seen
        self._answered = self._refused = 0
        if len(self._latencies) >= SAMPLES:
            usual = sorted(self._latencies)[int(len(self._latencies) * 0.95)]
            self.seconds = min(self._longest, max(LEAST_DEADLINE, 10 * usual))
            for bound, (start, timeouts) in self._bounds.items():
                bound.reschedule(start + self._allowed(timeouts))
        if self._before is not None:
            limit, earlier = self._before
            self._before = None
            if share > 0.5 * earlier and earlier <= CHANCE:  # the cut did not help, so they do not come from the load
                self._floor = min(CHANCE, max(share, earlier) * 1.5)
                self.limit = limit
                return
        self._floor *= 0.98
        if share > self._floor:
            self._before = (self.limit, share)
            self._doubling = False
            self.limit = max(1.0, self.limit / 2)
        else:
            self.limit = min(self._most, self.limit * 2 if self._doubling else self.limit * 1.05 + 1)
            self._wake()

    def _wake(self) -> None:
        free = int(self.limit) - self.in_flight
        while free > 0 and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self.in_flight += 1
                free -= 1


def backoff(attempt: int, told: float | None) -> float:
    """Seconds before the next attempt: as told, else doubling from a quarter of a second; jittered.

    The jitter is real randomness on purpose: it must differ between workers, and it decides no content.
    """
    usual = min(20.0, 0.25 * 2**attempt) * random.uniform(0.5, 1.5)
    return float(usual if told is None else max(usual, min(told, PATIENCE) * random.uniform(1.0, 1.25)))
