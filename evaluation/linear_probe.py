"""Linear probe: how much of the labels a frozen model's features hold.

The classifier can do no more than weigh the features.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from .clip_predictions import StreamPredictions
from .scorer import Scorer

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Values of scikit-learn's C: the inverse of the penalty on weights."""
MAX_ITERATIONS = 1000

PredictProbabilities = Callable[[np.ndarray], np.ndarray]
"""Probabilities, [clips, classes], from features, [clips, features_dim]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFeatures:
    """One stream's features for the clips of a split that have them, and the scorer that knows their labels.

    Raises:
        ValueError: no clips, or not as many features as clips.
    """

    features: Float[np.ndarray, "clips features_dim"]
    items: Int[np.ndarray, " clips"]
    """Their numbers among the scorer's items."""
    scorer: Scorer

    def __post_init__(self) -> None:
        if len(self.features) != len(self.items) or not len(self.items):
            raise ValueError(
                f"got {len(self.features)} features and {len(self.items)} clips; give as many, at least 1"
            )

    @property
    def truth(self) -> np.ndarray:
        """The class of each clip; in a multi-label set, which labels hold."""
        return np.asarray(self.scorer.truth[self.items])

    def predictions(self, predict: PredictProbabilities) -> StreamPredictions:
        """What a classifier predicts from the features, as the scorer takes it."""
        return StreamPredictions(self.items, predict(self.features))


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedProbe:
    """A fitted probe."""

    predict: PredictProbabilities
    c: float
    """The value of C that did best on validation."""
    val: dict[str, float]
    """The main score on validation by value of C."""
    converged: bool


def linear_probe(
    train: LabelledFeatures,
    val: LabelledFeatures,
    test: LabelledFeatures,
    *,
    strengths: Sequence[float] = STRENGTHS,
) -> dict[str, Any]:
    """Scores on `test` of the probe that `fit_probe` makes of `train` and `val`.

    Args:
        train: to fit.
        val: to choose.
        test: to report.
        strengths: values of C, at least one.

    Returns:
        What `Scorer.table` says, the chosen `c`, `val` by value of C, and `converged`.

    Raises:
        ValueError: see `fit_probe`.
    """
    probe = fit_probe(train, val, strengths=strengths)
    table = test.scorer.table(test.predictions(probe.predict))
    return table | {"c": probe.c, "val": probe.val, "converged": probe.converged}


def fit_probe(
    train: LabelledFeatures, val: LabelledFeatures, *, strengths: Sequence[float] = STRENGTHS
) -> FittedProbe:
    """A logistic regression fitted on `train`, with the C that does best on `val`.

    One per label in a multi-label set.

    Features are centred and scaled by the training split. Of equally good strengths the smallest is taken,
    and nothing is fitted again on `val`. A label that is not in `train` scores 0.

    Raises:
        ValueError: no strengths, or nothing to tell apart in `train`.
    """
    if not strengths:
        raise ValueError("got no strengths; give at least one value of C")
    scaler = StandardScaler().fit(train.features)
    scaled = scaler.transform(train.features)
    fit = _fit_labels if train.scorer.multi_label else _fit_classes
    fitted = {c: fit(scaled, train.truth, len(train.scorer.names), c) for c in sorted(strengths)}

    def predict_with(c: float) -> PredictProbabilities:
        return lambda features: fitted[c].predict(scaler.transform(features))

    found = {c: val.scorer.value(val.predictions(predict_with(c))) for c in fitted}
    best = max(found, key=lambda c: found[c])  # the first, and so the smallest, of equals
    return FittedProbe(
        predict=predict_with(best),
        c=best,
        val={f"{c:g}": value for c, value in found.items()},
        converged=fitted[best].converged,
    )


class _Classifier(NamedTuple):
    predict: PredictProbabilities
    converged: bool


def _fit_classes(features: np.ndarray, classes: np.ndarray, num_classes: int, c: float) -> _Classifier:
    """One regression over all classes that occur."""
    if len(np.unique(classes)) < 2:
        raise ValueError("the training split has one class; a probe tells at least two apart")
    model, converged = _regression(features, classes, c)

    def predict(features: np.ndarray) -> np.ndarray:
        found = np.zeros((len(features), num_classes))
        found[:, model.classes_] = model.predict_proba(features)
        return found

    return _Classifier(predict, converged)


def _fit_labels(features: np.ndarray, truth: np.ndarray, num_classes: int, c: float) -> _Classifier:
    """A regression for each label that holds for some clips and not for others."""
    told_apart = np.flatnonzero(truth.any(0) & ~truth.all(0))
    if not len(told_apart):
        raise ValueError(
            "every label of the training split holds for all of its clips or for none: nothing to tell apart"
        )
    fitted = {label: _regression(features, truth[:, label], c) for label in told_apart}

    def predict(features: np.ndarray) -> np.ndarray:
        found = np.zeros((len(features), num_classes))
        for label, (model, _) in fitted.items():
            found[:, label] = model.predict_proba(features)[:, 1]
        return found

    return _Classifier(predict, all(converged for _, converged in fitted.values()))


def _regression(features: np.ndarray, targets: np.ndarray, c: float) -> tuple[LogisticRegression, bool]:
    """A fitted regression, and whether it converged."""
    model = LogisticRegression(C=c, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # returned instead
        model.fit(features, targets)
    return model, bool(model.n_iter_.max() < MAX_ITERATIONS)
