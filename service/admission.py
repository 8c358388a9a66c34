"""Admission control: which requests may enter, and when a refused one should come back.

A request is refused before its body is read if as many requests are inside as may be, or if it could not be
answered in time at the rate at which answers leave. Its Retry-After is a reservation: reservations are given
out one after another, a little more slowly than answers leave, so that clients do not all return at once.

A client that returns with the same request id is recognised. Admission learns which share of reservations is
used, and keeps as many places free as are expected to be claimed now. So a reservation is worth something
even while new requests arrive without end, and costs nothing where nobody uses them. Reservations that are
seldom used stand closer together, and none is made for a time beyond the horizon.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from math import ceil

from .errors import Overloaded

RATE_DECAY = 0.95  # weight of an answer in the measured rate, per answer that came after it
SMOOTHING = 0.1  # of the share of reservations that are used
ALWAYS_ADMITTED = 4  # so many inside are never too many: what few answers took says little about the next
SURE_SHARE = 0.75  # of the allowed time that an answer is expected to take; the rest is for the unexpected
MIN_RETRY_SECONDS = 1.0  # Retry-After counts whole seconds
GRACE_SECONDS = 2.0  # how long after its time a reservation holds
RESERVED_SHARE = 0.8  # of the rate at which answers leave; the rest is for new requests
HORIZON_SECONDS = 600.0
MAX_RESERVATIONS = 50_000
MIN_SHARE_USED = 0.01  # of reservations; never more than a hundred of them for one answer


class Admission:
    """Places for requests; lives on one event loop."""

    def __init__(self, *, max_inside: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.max_inside, self.num_inside = max_inside, 0
        self._busy_seconds = self._num_answers = 0.0
        self.share_used = 1.0
        """Reservations whose clients came back in time, as a share; 1 until something is known."""
        self._clock = clock
        self._last_event = 0.0
        self._reservations: dict[str, float] = {}  # request id to reserved time, in order of time

    @property
    def seconds_per_answer(self) -> float:
        """Measured while there was work to do, late answers more than early ones; 0 before the first."""
        return self._busy_seconds / self._num_answers if self._num_answers else 0.0

    @property
    def num_reservations(self) -> int:
        """Reservations that have been neither used nor missed."""
        return len(self._reservations)

    @contextmanager
    def place(self, request_id: str, *, seconds_allowed: float) -> Iterator[None]:
        """Hold a place while the context is open.

        Raises:
            Overloaded: there is no place, or the request could not be answered in time.
        """
        now = self._clock()
        self._drop_missed(now)
        has_reservation = self._reservations.pop(request_id, None) is not None
        if has_reservation:
            self._update_share(was_used=True)
        self._check(request_id, now, seconds_allowed, has_reservation=has_reservation)
        if self.num_inside == 0:
            self._last_event = now
        self.num_inside += 1
        try:
            yield
        finally:
            self._leave()

    def _check(self, request_id: str, now: float, seconds_allowed: float, *, has_reservation: bool) -> None:
        kept_free = 0 if has_reservation else self._num_kept_free(now, seconds_allowed)
        inside = self.num_inside + kept_free
        if inside >= self.max_inside:
            detail = f"{self.num_inside} requests are at work or waiting, at most {self.max_inside} may"
            raise self._refusal(request_id, now, detail, self.seconds_per_answer)
        expected = (inside + 1) * self.seconds_per_answer
        if inside >= ALWAYS_ADMITTED and expected > SURE_SHARE * seconds_allowed:
            detail = (
                f"the answer might take {expected / SURE_SHARE:.1f} s, "
                f"and {seconds_allowed:.1f} s are allowed"
            )
            raise self._refusal(request_id, now, detail, expected - SURE_SHARE * seconds_allowed)

    def _num_kept_free(self, now: float, seconds_allowed: float) -> int:
        """Places kept for reservations that are due.

        Never more than half: new requests keep the server busy while clients with a reservation are on their
        way.
        """
        return min(ceil(self.share_used * self._num_due(now)), self._max_in_time(seconds_allowed) // 2)

    def _max_in_time(self, seconds_allowed: float) -> int:
        """How many requests may be inside if all are to be answered in time."""
        if not self.seconds_per_answer:
            return self.max_inside
        in_time = int(SURE_SHARE * seconds_allowed / self.seconds_per_answer)
        return min(self.max_inside, max(ALWAYS_ADMITTED, in_time))

    def _refusal(self, request_id: str, now: float, detail: str, seconds: float) -> Overloaded:
        """The refusal of a request, with a reservation that is not before `seconds` from now."""
        reserved = now + max(seconds, MIN_RETRY_SECONDS)
        if self._reservations:
            spacing = self.seconds_per_answer * max(self.share_used, MIN_SHARE_USED) / RESERVED_SHARE
            reserved = max(reserved, next(reversed(self._reservations.values())) + spacing)
        if reserved <= now + HORIZON_SECONDS and len(self._reservations) < MAX_RESERVATIONS:
            self._reservations[request_id] = reserved
        hint = "try again after Retry-After seconds, with the same X-Request-ID"
        return Overloaded(f"{detail}; {hint}", retry_after_seconds=min(reserved - now, HORIZON_SECONDS))

    def _leave(self) -> None:
        now = self._clock()
        elapsed, self._last_event = now - self._last_event, now
        self.num_inside -= 1
        self._busy_seconds = RATE_DECAY * self._busy_seconds + elapsed
        self._num_answers = RATE_DECAY * self._num_answers + 1

    def _num_due(self, now: float) -> int:
        due = takewhile(lambda reserved: reserved - GRACE_SECONDS <= now, self._reservations.values())
        return sum(1 for _ in due)

    def _drop_missed(self, now: float) -> None:
        # Retry-After is rounded up, so a client that obeys it comes up to a second later than reserved.
        missed = takewhile(lambda entry: entry[1] + 1 + GRACE_SECONDS < now, self._reservations.items())
        for request_id, _ in list(missed):
            del self._reservations[request_id]
            self._update_share(was_used=False)

    def _update_share(self, *, was_used: bool) -> None:
        self.share_used += SMOOTHING * (was_used - self.share_used)
