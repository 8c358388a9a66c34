"""Admission: bounded, measured, and reservations that hold. The clock is ours."""

import pytest

from service.admission import HORIZON_SECONDS, Admission
from service.errors import Overloaded


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _enter(admission: Admission, name: str, seconds_allowed: float = 60.0):  # type: ignore[no-untyped-def]
    place = admission.place(name, seconds_allowed=seconds_allowed)
    place.__enter__()
    return place


def _refuse(admission: Admission, name: str) -> float:
    """Seconds after which a client that is refused may come back."""
    with pytest.raises(Overloaded) as refused:
        _enter(admission, name)
    return refused.value.retry_after_seconds


def _leave(place) -> None:  # type: ignore[no-untyped-def]
    place.__exit__(None, None, None)


def test_no_more_than_may_be_inside_and_places_come_back(clock: Clock) -> None:
    admission = Admission(max_inside=2, clock=clock)
    first, second = _enter(admission, "a"), _enter(admission, "b")
    with pytest.raises(Overloaded, match="at most 2 may"):
        _enter(admission, "c")
    _leave(first)
    _leave(_enter(admission, "c"))
    _leave(second)
    assert admission.num_inside == 0


def test_a_place_comes_back_when_its_request_fails(clock: Clock) -> None:
    admission = Admission(max_inside=1, clock=clock)
    with pytest.raises(ZeroDivisionError), admission.place("a", seconds_allowed=9):
        raise ZeroDivisionError
    assert admission.num_inside == 0


def test_the_rate_is_measured_only_while_there_is_work(clock: Clock) -> None:
    admission = Admission(max_inside=9, clock=clock)
    for _ in range(100):
        place = _enter(admission, "a")
        clock.now += 0.2
        _leave(place)
        clock.now += 50.0  # idle
    assert admission.seconds_per_answer == pytest.approx(0.2)


def test_what_cannot_be_in_time_is_refused(clock: Clock) -> None:
    admission = Admission(max_inside=9, clock=clock)
    place = _enter(admission, "a")
    clock.now += 2.0
    _leave(place)
    places = [_enter(admission, str(i), seconds_allowed=0.1) for i in range(4)]  # few are never too many
    with pytest.raises(Overloaded, match=r"might take 13.3 s, and 12.0 s are allowed") as refused:
        _enter(admission, "late", seconds_allowed=12.0)
    assert refused.value.retry_after_seconds == pytest.approx(1.0)
    _leave(_enter(admission, "late", seconds_allowed=13.4))
    for place in places:
        _leave(place)


def test_one_slow_answer_is_soon_forgotten(clock: Clock) -> None:
    admission = Admission(max_inside=9, clock=clock)
    for seconds in [25.0] + [0.1] * 60:
        place = _enter(admission, "a")
        clock.now += seconds
        _leave(place)
    assert admission.seconds_per_answer < 0.2


def test_reservations_come_one_after_another(clock: Clock) -> None:
    admission = Admission(max_inside=1, clock=clock)
    place = _enter(admission, "a")
    clock.now += 0.5
    _leave(place)
    place = _enter(admission, "b")
    told = [_refuse(admission, name) for name in "cdef"]
    assert told == pytest.approx([1.0, 1.625, 2.25, 2.875])
    _leave(place)


def _storm(clock: Clock, *, come_back: bool) -> tuple[float, float]:
    """300 % of load for over three minutes on a server that takes 0.2 s.

    Returns the share of returning clients that get in, and the share of capacity that is used.
    """
    admission, returning, num_returned, num_admitted, num_done = (
        Admission(max_inside=10, clock=clock),
        [],
        0,
        0,
        0,
    )
    inside: list[object] = []
    free_at = clock.now
    for step in range(3_000):
        clock.now += 0.2 / 3
        if inside and clock.now >= free_at:
            _leave(inside.pop(0))
            num_done += 1
            free_at = clock.now + 0.2
        arrivals = [(f"new{step}", False)] + [(name, True) for when, name in returning if when <= clock.now]
        returning = [(when, name) for when, name in returning if when > clock.now]
        for name, is_back in arrivals:
            try:
                inside.append(_enter(admission, name))
                num_admitted += is_back
            except Overloaded as error:
                if come_back and not is_back:
                    returning.append((clock.now + -(-error.retry_after_seconds // 1), name))
            num_returned += is_back
    return num_admitted / max(num_returned, 1), num_done * 0.2 / (3_000 * 0.2 / 3)


def test_who_uses_a_reservation_gets_in_though_new_requests_never_end(clock: Clock) -> None:
    admitted, used = _storm(clock, come_back=True)
    assert admitted > 0.8
    assert used > 0.95


def test_reservations_that_nobody_uses_cost_nothing(clock: Clock) -> None:
    _, used = _storm(clock, come_back=False)
    assert used > 0.95


def test_an_hour_of_refusals_that_nobody_comes_back_from_ends_in_no_endless_wait(clock: Clock) -> None:
    admission = Admission(max_inside=1, clock=clock)
    place = _enter(admission, "first")
    clock.now += 0.2
    _leave(place)
    place, told, most = _enter(admission, "stays"), 0.0, 0
    for i in range(36_000):  # ten a second, five times what it can do
        clock.now += 0.1
        if i % 2:
            _leave(place)
            place = _enter(admission, f"goes on {i}")
        told, most = _refuse(admission, f"refused {i}"), max(most, admission.num_reservations)
    assert told <= HORIZON_SECONDS
    assert most <= 20_000
    _leave(place)


def test_beyond_the_horizon_nothing_is_reserved(clock: Clock) -> None:
    admission = Admission(max_inside=1, clock=clock)
    place = _enter(admission, "slow")
    clock.now += 300.0
    _leave(place)
    place = _enter(admission, "inside")
    told = [_refuse(admission, name) for name in "abcde"]
    assert told == pytest.approx([300.0, 600.0, 600.0, 600.0, 600.0])
    assert admission.num_reservations == 1
    _leave(place)
