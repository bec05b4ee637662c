"""Admission: how many calls an endpoint gets at once, and when one is asked again.

A gate stands before each endpoint. It starts small and doubles while all goes well; when the endpoint answers that it
is overloaded (429, 503, 529) it halves, then grows slowly. A share of refusals that stays the same when fewer calls are
in flight does not come from the load, so the gate learns to live with it: one call in ten that is refused whatever one
does must not bring a run down to a crawl. `Retry-After` holds back the one call that was told to wait.

Several workers share an endpoint. Each gate learns by itself; the driver hears what they learnt and gives each the
part of the sum that its work asks for (`Gate.share`), so that a bound for the run stays a bound for the run.

A deadline bounds every call: ten times the usual latency once that is known, twice as long for a call that reached it
before, so a call that hangs is abandoned and asked again. While an endpoint cannot be reached at all, its calls try
again with growing pauses, or go to the model's other URLs; when all of them were unreachable for `PATIENCE` seconds,
the run stops.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

MOST = 4096
"Calls in flight that are never exceeded, whatever the endpoint takes."
START = 16
"Calls in flight at first."
EPOCH = 20
"Fewest answers between two decisions about the limit."
PATIENCE = 120.0
"Seconds without any answer after which an endpoint counts as gone."
FIRST_DEADLINE = 300.0
"Seconds that a call may take while the usual latency is not known yet."
LEAST_DEADLINE = 2.0
CHANCE = 0.25
"Largest share of refusals that can count as independent of the load."
PROBE = 5.0
"Seconds for which calls avoid a URL that could not be reached."
SERVING = 30.0
"Seconds since its last answer for which an endpoint counts as serving."
BURST = 5.0
"Seconds of tokens that may be used at once."
SAMPLES = 50
"Latencies needed to know the usual one."


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the user allows at each model, over all workers; `None` is no bound."""

    in_flight: int | None = None
    "Calls at once."
    tokens_per_minute: int | None = None
    "Prompt and completion together."
    among: int = 1
    "Workers that ask: they begin with so much smaller a part each."


FREE = Bounds()


@dataclass(frozen=True, slots=True)
class GateState:
    """What a gate has learnt, for the driver."""

    limit: float
    demand: int
    "Calls in flight or waiting to be."
    most: float
    "Calls that may be in flight, or are where they are more: what is taken of the bound of all workers."


class Gate:
    """Adaptive bound on the calls in flight at one endpoint."""

    def __init__(self, most: float = MOST, deadline: float = FIRST_DEADLINE, among: int = 1) -> None:
        self.limit = max(1.0, min(START / among, most))
        self.in_flight = 0
        self._most, self._longest = float(most), deadline
        self.seconds = deadline
        "That a call may take."
        self._bounds: dict[asyncio.Timeout, tuple[float, int]] = {}
        "The bounds of the calls under way: when each began, and how often it had reached its deadline before."
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._latencies: deque[float] = deque(maxlen=512)
        self._answered = self._refused = 0
        self._used = 0
        "Most calls in flight since the last decision: a limit that is not reached proves nothing and does not grow."
        self._doubling = True
        self._innocent = True
        "Whether no refusal has ever come from the load: then the limit may go on doubling."
        self._before: tuple[float, float] | None = None
        "Limit and share of refusals before the last cut, until it is known whether the cut helped."
        self._floor = 0.0
        "Share of refusals that does not depend on the load."
        self._gone_since: float | None = None
        "When the endpoint was first found unreachable, since it last answered."
        self._tried = 0.0
        self._last_answer = 0.0

    def deadline(self, timeouts: int = 0) -> asyncio.Timeout:
        """A context that raises `TimeoutError` once its body took too long; calls under way follow what is learnt. It
        is handed to `settled` at its end.

        A call that reached its deadline before gets twice as long each time, so that a server which has become slow is
        heard at last, and the deadline with it.
        """
        bound = asyncio.timeout(self._allowed(timeouts))
        self._bounds[bound] = asyncio.get_running_loop().time(), timeouts
        return bound

    def settled(self, bound: asyncio.Timeout) -> None:
        """The call of a deadline is over."""
        del self._bounds[bound]

    async def enter(self) -> None:
        """Take one place in flight; waits while all are taken. Whoever enters leaves."""
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
        self._used = max(self._used, self.in_flight)

    def leave(self) -> None:
        """Give the place back."""
        self.in_flight -= 1
        self._wake()

    @property
    def demand(self) -> int:
        """Calls that are in flight or wait to be."""
        return self.in_flight + len(self._waiting)

    @property
    def state(self) -> GateState:
        return GateState(self.limit, self.demand, max(self._most, self.in_flight))

    def share(self, factor: float, most: float) -> None:
        """Take on this gate's part of what all gates before the endpoint learnt."""
        self._most = most
        self.limit = min(most, max(1.0, self.limit * factor))
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
    def has_served(self) -> bool:
        """Whether it has ever answered."""
        return self._last_answer > 0

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
        full, self._used = self._used >= 0.8 * int(self.limit), self.in_flight
        if len(self._latencies) >= SAMPLES:
            usual = sorted(self._latencies)[int(len(self._latencies) * 0.95)]
            self.seconds = min(self._longest, max(LEAST_DEADLINE, 10 * usual))
            for bound, (start, timeouts) in self._bounds.items():
                if bound.expired():  # on its way out
                    continue
                bound.reschedule(start + self._allowed(timeouts))
        if self._before is not None:
            limit, earlier = self._before
            self._before = None
            if share > 0.5 * earlier and earlier <= CHANCE:  # the cut did not help, so they do not come from the load
                self._floor = min(CHANCE, max(share, earlier) * 1.5)
                self._doubling = self._innocent
                self.limit = min(self._most, limit)
                self._wake()
                return
            self._innocent = False
        self._floor *= 0.98
        chance = 2 * math.sqrt(self._floor * (1 - self._floor) / seen)
        if share > self._floor + chance:
            self._before = (self.limit, share)
            self._doubling = False
            self.limit = max(1.0, self.limit / 2)
        elif full:
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


class Pace:
    """Tokens a minute: a bucket that fills evenly and holds a few seconds' worth.

    A call takes what it will probably use before it is sent, and waits in turn until nothing is owed; what it did use
    is settled afterwards.
    """

    def __init__(self, per_minute: float) -> None:
        self.rate = per_minute / 60
        self._free = self.rate * BURST
        self._at = time.monotonic()
        self._usual = 0.0
        "Completion tokens that a call takes on average."
        self._turn = asyncio.Lock()
        self.waiting = 0
        "Calls that wait for tokens."

    async def take(self, characters: int, most: int) -> float:
        """Take the tokens that a call will probably use, from its prompt's length and the most that it may say, once
        nothing is owed; gives how many. The rate may change while one waits."""
        self.waiting += 1
        try:
            async with self._turn:
                while self._filled() < 0:
                    await asyncio.sleep(min(1.0, -self._free / self.rate))
                tokens = characters / 4 + (self._usual or most)
                self._free -= tokens
                return tokens
        finally:
            self.waiting -= 1

    def settle(self, unused: float) -> None:
        """Give back what a call took and did not use; negative where it used more."""
        self._free += unused

    def heard(self, usage: Mapping[str, int]) -> float:
        """Learn how long answers are, from what a server counted; gives the tokens that the call did use."""
        completion = float(usage.get("completion_tokens") or 0)
        self._usual = 0.95 * self._usual + 0.05 * completion if self._usual else completion
        return (usage.get("prompt_tokens") or 0) + completion

    def _filled(self) -> float:
        now = time.monotonic()
        self._free = min(self.rate * BURST, self._free + (now - self._at) * self.rate)
        self._at = now
        return self._free


def backoff(attempt: int, told: float | None) -> float:
    """Seconds before the next attempt: as told, else doubling from a quarter of a second; jittered.

    The jitter is real randomness on purpose: it must differ between workers, and it decides no content.
    """
    usual = min(20.0, 0.25 * 2**attempt) * random.uniform(0.5, 1.5)
    return float(usual if told is None else max(usual, min(told, PATIENCE) * random.uniform(1.0, 1.25)))
