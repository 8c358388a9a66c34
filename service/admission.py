"""Who may come in, and when those who may not should come back.

A request is refused before its body is read if as many are inside as may be, or if it could not be answered
in time at the rate at which answers leave. A refused one is told when there will be room: promises are handed
out one after another, a little more slowly than that, so that those who follow them do not all come at once.

A client that comes back with the same request id is recognised. The share of promises that are followed is
learned, and
as much room is kept for those that are due: a promise is worth something even when newcomers arrive without
    end, and costs nothing where nobody follows them. Promises that are seldom followed stand closer together,
    and none is made for a time beyond the horizon.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from math import ceil

from .errors import Overloaded

FORGETTING = 0.95  # weight of an answer in the measured rate, per answer that came after it
SMOOTHING = 0.1  # of the share of promises kept
FEW = 4  # so many inside are never too many: what few answers took says little about the next
SURE_SHARE = (
    0.75  # of the time allowed, what an answer may be expected to take: the rest is for what nobody expects
)
MIN_RETRY_SECONDS = 1.0  # Retry-After counts whole seconds
GRACE_SECONDS = 2.0  # how long after its time a promise holds
PROMISED_SHARE = 0.8  # of the rate at which answers leave; the rest is for newcomers
HORIZON_SECONDS = 600.0
MAX_PROMISES = 50_000
MIN_SHARE_KEPT = 0.01  # of promises: closer than a hundred to an answer they never stand


class Admission:
    """Places for requests; lives on one event loop."""

    def __init__(self, *, max_inside: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_inside, self.num_inside = max_inside, 0
        self._busy_seconds = self._num_answers = 0.0
        self.share_kept = 1.0
        """Of promises, those whose clients came back in time; all, as long as nothing is known."""
        self._clock = clock
        self._last_event = 0.0
        self._promises: dict[str, float] = {}  # request id to promised time, in order of time

    @property
    def seconds_per_answer(self) -> float:
        """Measured while there was work to do, late answers more than early ones; 0 before the first."""
        return self._busy_seconds / self._num_answers if self._num_answers else 0.0

    @property
    def num_promises(self) -> int:
        """Promises that are still to be followed."""
        return len(self._promises)

    @contextmanager
    def place(self, request_id: str, *, seconds_allowed: float) -> Iterator[None]:
        """A place for as long as the context lasts.

        Raises:
            Overloaded: there is none, or no answer in time.
        """
        now = self._clock()
        self._expire(now)
        is_promised = self._promises.pop(request_id, None) is not None
        if is_promised:
            self._learn(kept=True)
        self._check(request_id, now, seconds_allowed, is_promised=is_promised)
        if self.num_inside == 0:
            self._last_event = now
        self.num_inside += 1
        try:
            yield
        finally:
            self._leave()

    def _check(self, request_id: str, now: float, seconds_allowed: float, *, is_promised: bool) -> None:
        # Never more than half: newcomers keep the server busy while promised ones are on their way.
        kept_free = (
            0
            if is_promised
            else min(ceil(self.share_kept * self._num_due(now)), self._most(seconds_allowed) // 2)
        )
        inside = self.num_inside + kept_free
        if inside >= self.max_inside:
            detail = f"{self.num_inside} requests are at work or waiting, at most {self.max_inside} may"
            raise self._refusal(request_id, now, detail, self.seconds_per_answer)
        expected = (inside + 1) * self.seconds_per_answer
        if inside >= FEW and expected > SURE_SHARE * seconds_allowed:
            detail = f"the answer might take {expected / SURE_SHARE:.1f} s, and {seconds_allowed:.1f} s are allowed"
            raise self._refusal(request_id, now, detail, expected - SURE_SHARE * seconds_allowed)

    def _most(self, seconds_allowed: float) -> int:
        """How many requests can be inside if each shall be in time."""
        if not self.seconds_per_answer:
            return self.max_inside
        return min(self.max_inside, max(FEW, int(SURE_SHARE * seconds_allowed / self.seconds_per_answer)))

    def _refusal(self, request_id: str, now: float, detail: str, seconds: float) -> Overloaded:
        promised = now + max(seconds, MIN_RETRY_SECONDS)
        if self._promises:
            spacing = self.seconds_per_answer * max(self.share_kept, MIN_SHARE_KEPT) / PROMISED_SHARE
            promised = max(promised, next(reversed(self._promises.values())) + spacing)
        if promised <= now + HORIZON_SECONDS and len(self._promises) < MAX_PROMISES:
            self._promises[request_id] = promised
        hint = "try again after Retry-After seconds, with the same X-Request-ID"
        return Overloaded(f"{detail}; {hint}", retry_after_seconds=min(promised - now, HORIZON_SECONDS))

    def _leave(self) -> None:
        now = self._clock()
        elapsed, self._last_event = now - self._last_event, now
        self.num_inside -= 1
        self._busy_seconds = FORGETTING * self._busy_seconds + elapsed
        self._num_answers = FORGETTING * self._num_answers + 1

    def _num_due(self, now: float) -> int:
        return sum(
            1 for _ in takewhile(lambda promised: promised - GRACE_SECONDS <= now, self._promises.values())
        )

    def _expire(self, now: float) -> None:
        # Retry-After is rounded up, so who follows it comes up to a second later than promised.
        is_over = takewhile(lambda promise: promise[1] + 1 + GRACE_SECONDS < now, self._promises.items())
        for request_id, _ in list(is_over):
            del self._promises[request_id]
            self._learn(kept=False)

    def _learn(self, *, kept: bool) -> None:
        self.share_kept += SMOOTHING * (kept - self.share_kept)
