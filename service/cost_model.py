"""What a batch costs: seconds = a * n + b for n items, fitted as batches run.

Least squares in which each batch counts a little less than the one after it, so that the fit follows a
machine that slows down or speeds up. Neither `a` nor `b` is ever negative: a larger batch never costs less.
"""

from dataclasses import dataclass

SAMPLE_DECAY = 0.97  # weight of a batch, per batch that came after it
PRIOR_WEIGHT = 1e-3  # of a first guess, so that two batches of one size do not divide by zero


@dataclass(slots=True)
class CostModel:
    """A fitted line; all costs are 0 before the first batch."""

    _weight: float = 0.0
    _n: float = 0.0
    _seconds: float = 0.0
    _nn: float = 0.0
    _n_seconds: float = 0.0

    def observe(self, n: int, seconds: float) -> None:
        """Add one batch of `n` items that took `seconds`."""
        for name, value in (
            ("_weight", 1.0),
            ("_n", n),
            ("_seconds", seconds),
            ("_nn", n * n),
            ("_n_seconds", n * seconds),
        ):
            setattr(self, name, SAMPLE_DECAY * getattr(self, name) + value)

    @property
    def line(self) -> tuple[float, float]:
        """(seconds per item, seconds per batch)."""
        if not self._weight:
            return 0.0, 0.0
        mean_n, mean_seconds = self._n / self._weight, self._seconds / self._weight
        spread = self._nn / self._weight - mean_n**2
        together = self._n_seconds / self._weight - mean_n * mean_seconds
        # All of one size: the prior says that all the cost is per item.
        per_item = (together + PRIOR_WEIGHT * mean_seconds / mean_n) / (spread + PRIOR_WEIGHT)
        per_item = min(max(per_item, 0.0), mean_seconds / mean_n)
        return per_item, mean_seconds - per_item * mean_n

    def seconds(self, n: int, *, max_batch_size: int) -> float:
        """Expected time of `n` items in as few batches as possible."""
        per_item, per_batch = self.line
        return per_item * n + per_batch * -(-n // max_batch_size)
