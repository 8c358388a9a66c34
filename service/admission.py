"""Who may come in, and when those who may not should come back.

A request is refused before its body is read if as many are inside as may be, or if it could not be answered in time at
the rate at which answers leave. A refused one is told when there will be room: promises are handed out one after another,
at that same rate, so that those who follow them do not all come at once.

A client that comes back with the same request id is recognised. The share of promises that are followed is learned, and
as much room is kept for those that are due: a promise is worth something even when newcomers arrive without end, and costs
nothing where nobody follows them.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil

from .errors import Overloaded

FORGETTING = 0.95  # weight of an answer in the measured rate, per answer that came after it
SMOOTHING = 0.1  # of the share of promises kept
FEW = 4  # so many inside are never too many: what few answers took says little about the next
MIN_RETRY_SECONDS = 1.0  # Retry-After counts whole seconds
GRACE_SECONDS = 2.0  # how long after its time a promise holds


class Admission:
    """Places for requests; lives on one event loop."""

    def __init__(self, *, max_inside: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_inside, self.num_inside = max_inside, 0
        self._busy_seconds = self._num_answers = 0.0
        self.share_kept = 0.0
        """Of promises, those whose clients came back in time."""
        self._clock = clock
        self._last_event = 0.0
        self._promises: dict[str, float] = {}  # request id to promised time, in order of time

    @property
    def seconds_per_answer(self) -> float:
        """Measured while there was work to do, late answers more than early ones; 0 before the first."""
        return self._busy_seconds / self._num_answers if self._num_answers else 0.0

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
        expected = (self.num_inside + 1) * self.seconds_per_answer
        if self.num_inside >= FEW and expected > seconds_allowed:
            detail = f"the answer would take {expected:.1f} s, and {seconds_allowed:.1f} s are allowed"
            raise self._refusal(request_id, now, detail, expected - seconds_allowed)
        # Never more than half: newcomers keep the server busy while promised ones are on their way.
        kept_free = 0 if is_promised else min(ceil(self.share_kept * self._num_due(now)), self.max_inside // 2)
        if self.num_inside + kept_free >= self.max_inside:
            detail = f"{self.num_inside} requests are at work or waiting, at most {self.max_inside} may"
            raise self._refusal(request_id, now, detail, self.seconds_per_answer)

    def _refusal(self, request_id: str, now: float, detail: str, seconds: float) -> Overloaded:
        promised = now + max(seconds, MIN_RETRY_SECONDS)
        if self._promises:
            promised = max(promised, next(reversed(self._promises.values())) + self.seconds_per_answer)
        self._promises[request_id] = promised
        hint = "try again after Retry-After seconds, with the same X-Request-ID"
        return Overloaded(f"{detail}; {hint}", retry_after_seconds=promised - now)

    def _leave(self) -> None:
        now = self._clock()
        elapsed, self._last_event = now - self._last_event, now
        self.num_inside -= 1
        self._busy_seconds = FORGETTING * self._busy_seconds + elapsed
        self._num_answers = FORGETTING * self._num_answers + 1

    def _num_due(self, now: float) -> int:
        return sum(promised - GRACE_SECONDS <= now for promised in self._promises.values())

    def _expire(self, now: float) -> None:
        # Retry-After is rounded up, so who follows it comes up to a second later than promised.
        for request_id in [x for x, promised in self._promises.items() if promised + 1 + GRACE_SECONDS < now]:
            del self._promises[request_id]
            self._learn(kept=False)

    def _learn(self, *, kept: bool) -> None:
        self.share_kept += SMOOTHING * (kept - self.share_kept)
