"""How far outputs are from those wanted: the one measure of self-test, parity and proof."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


def max_abs_error(got: Float[np.ndarray, "*shape"], wanted: Float[np.ndarray, "*shape"]) -> float:
    """Largest absolute difference; NaN where either holds a NaN."""
    return float(np.abs(got - wanted).max())


def min_cosine(got: Float[np.ndarray, "rows dim"], wanted: Float[np.ndarray, "rows dim"]) -> float:
    """Smallest cosine of rows of unit length; NaN where either holds a NaN."""
    return float((got * wanted).sum(1).min())


def same_top1(
    got: Float[np.ndarray, "rows classes"], wanted: Float[np.ndarray, "rows classes"]
) -> Bool[np.ndarray, " rows"]:
    """Whether the same class is the highest of each row."""
    return np.asarray(got.argmax(1) == wanted.argmax(1))


@dataclass(slots=True)
class Agreement:
    """Agreement of outputs over all that was compared so far.

    A NaN would lose every comparison with a limit, and so pass. Here it counts as infinitely far, and as
    the opposite direction.
    """

    max_abs_error: float = 0.0
    min_cosine: float = 1.0
    num_compared: int = 0
    """Rows whose highest class was compared."""
    num_same_top1: int = 0
    """Of these, rows with the same highest class."""

    def add_values(self, got: Float[np.ndarray, "*shape"], wanted: Float[np.ndarray, "*shape"]) -> None:
        """Compare values of any kind."""
        error = max_abs_error(got, wanted)
        self.max_abs_error = max(self.max_abs_error, np.inf if np.isnan(error) else error)

    def add_cosines(self, got: Float[np.ndarray, "rows dim"], wanted: Float[np.ndarray, "rows dim"]) -> None:
        """Compare the direction of embeddings of unit length."""
        cosine = min_cosine(got, wanted)
        self.min_cosine = min(self.min_cosine, -1.0 if np.isnan(cosine) else cosine)

    def add_top1(
        self, got: Float[np.ndarray, "rows classes"], wanted: Float[np.ndarray, "rows classes"]
    ) -> None:
        """Compare the highest class of each row."""
        same = same_top1(got, wanted)
        self.num_compared += len(same)
        self.num_same_top1 += int(same.sum())

    @property
    def top1_agreement(self) -> float:
        """Share of the compared rows with the same highest class."""
        return self.num_same_top1 / self.num_compared
