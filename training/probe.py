"""Linear probe: how much of the labels a frozen model's features hold, for a classifier that can only weigh them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .metrics import bootstrap_interval

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Values of scikit-learn's C: the inverse of the penalty on weights."""
MAX_ITERATIONS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Features of a split's clips and their classes."""

    features: Float[np.ndarray, "clips features_dim"]
    targets: Int[np.ndarray, " clips"]

    def __post_init__(self) -> None:
        if len(self.features) != len(self.targets) or not len(self.targets):
            raise ValueError(f"got {len(self.features)} features and {len(self.targets)} targets; give as many, at least 1")


def linear_probe(
    train: Labelled,
    val: Labelled,
    test: Labelled,
    *,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
    num_resamples: int = 1000,
) -> dict[str, Any]:
    """Top-1 on `test` of a logistic regression fitted on `train`, with the C that does best on `val`.

    Features are centred and scaled by the training split. Of strengths equally good the smallest is taken, and nothing
    is fitted again on `val`.

    Args:
        train: to fit.
        val: to choose.
        test: to report.
        strengths: values of C, at least one.
        seed: of the interval.
        num_resamples: of the interval.

    Returns:
        `top1`, `top1_interval`, `clips`, the chosen `c`, `val_top1` by value of C, and `converged`.

    Raises:
        ValueError: no strengths, or fewer than two classes in `train`.
    """
    if not strengths:
        raise ValueError("got no strengths; give at least one value of C")
    if len(np.unique(train.targets)) < 2:
        raise ValueError("the training split has one class; a probe tells at least two apart")
    fitted = {c: _fit(train, c) for c in sorted(strengths)}
    accuracy = {c: float(np.mean(probe.predict(val.features) == val.targets)) for c, (probe, _) in fitted.items()}
    best = max(accuracy, key=lambda c: accuracy[c])  # the first, and so the smallest, of equals
    probe, converged = fitted[best]
    correct = probe.predict(test.features) == test.targets
    found = bootstrap_interval(np.mean, correct, seed=seed, num_resamples=num_resamples)
    return {
        "clips": len(correct),
        "top1": found.value,
        "top1_interval": [found.low, found.high],
        "c": best,
        "val_top1": {f"{c:g}": value for c, value in accuracy.items()},
        "converged": converged,
    }


def _fit(train: Labelled, c: float) -> tuple[Any, bool]:
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=MAX_ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by the second answer instead
        probe.fit(train.features, train.targets)
    return probe, bool(probe[-1].n_iter_.max() < MAX_ITERATIONS)
