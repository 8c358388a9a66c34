"""Measure several sides in turn, A, B, A, B, ..., so that a busy machine slows all of them alike.

Sides are compared by their minima, because other work on a machine can only make code slower. Before each
measurement there is a pause, in which the threads of the side before stop spinning.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

NUM_THREADS = 2  # of every side, whatever the machine has
REST_SECONDS = 0.03


@dataclass(frozen=True, slots=True)
class Measured:
    """One quantity, measured several times."""

    raw: tuple[float, ...]
    unit: str = "s"

    @property
    def min(self) -> float:
        """The value that sides are compared by."""
        return min(self.raw)

    @property
    def median(self) -> float:
        """The typical value, with what other work on the machine added."""
        return median(self.raw)


def interleave(
    sides: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warm_ups: int = 1,
    calls: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    rest: Callable[[], object] = lambda: time.sleep(REST_SECONDS),
) -> dict[str, Measured]:
    """Measure the seconds per call of each side, `rounds` times, in turn.

    Args:
        sides: functions to compare, by name.
        rounds: measurements of each side.
        warm_ups: calls of each side beforehand that are not measured.
        calls: calls per measurement, more than 1 for functions that are too fast for the clock.
        clock: returns seconds.
        rest: called before each measurement.

    Raises:
        ValueError: `rounds` or `calls` is below 1.
    """
    if rounds < 1 or calls < 1:
        raise ValueError(f"{rounds=} and {calls=} must be at least 1")
    for _ in range(warm_ups):
        for side in sides.values():
            side()
    raw: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            rest()
            start = clock()
            for _ in range(calls):
                side()
            raw[name].append((clock() - start) / calls)
    return {name: Measured(tuple(seconds)) for name, seconds in raw.items()}
