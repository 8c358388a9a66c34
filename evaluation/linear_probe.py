"""Linear probe: how much of the labels a frozen model's features hold, for a classifier that can only weigh them."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from .clip_predictions import StreamAnswers
from .clip_scores import Judge

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""Values of scikit-learn's C: the inverse of the penalty on weights."""
MAX_ITERATIONS = 1000

Scores = Callable[[np.ndarray], np.ndarray]
"""Probabilities, [clips, classes], from features, [clips, features_dim]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """Features by one stream of the clips of a split that it answers, and who knows their labels.

    Raises:
        ValueError: no clips, or not as many features as clips.
    """

    features: Float[np.ndarray, "clips features_dim"]
    items: Int[np.ndarray, " clips"]
    """Their numbers among the judge's items."""
    judge: Judge

    def __post_init__(self) -> None:
        if len(self.features) != len(self.items) or not len(self.items):
            raise ValueError(
                f"got {len(self.features)} features and {len(self.items)} clips; give as many, at least 1"
            )

    @property
    def truth(self) -> np.ndarray:
        """The class of each clip; of a multi-label set, which labels hold."""
        return self.judge.truth[self.items]

    def answers(self, scores: Float[np.ndarray, "clips classes"]) -> StreamAnswers:
        """The scores as the judge takes them."""
        return StreamAnswers(self.items, scores, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A fitted probe."""

    scores: Scores
    c: float
    """The value of C that did best on validation."""
    val: dict[str, float]
    """The judge's main score on validation by value of C."""
    converged: bool


def linear_probe(
    train: Labelled, val: Labelled, test: Labelled, *, strengths: Sequence[float] = STRENGTHS
) -> dict[str, Any]:
    """Scores on `test` of the probe that `fit_probe` makes of `train` and `val`.

    Args:
        train: to fit.
        val: to choose.
        test: to report.
        strengths: values of C, at least one.

    Returns:
        What `Judge.table` says, the chosen `c`, `val` by value of C, and `converged`.

    Raises:
        ValueError: see `fit_probe`.
    """
    probe = fit_probe(train, val, strengths=strengths)
    table = test.judge.table(test.answers(probe.scores(test.features)))
    return table | {"c": probe.c, "val": probe.val, "converged": probe.converged}


def fit_probe(train: Labelled, val: Labelled, *, strengths: Sequence[float] = STRENGTHS) -> Probe:
    """A logistic regression fitted on `train`, with the C that does best on `val`; of many labels, one for each.

    Features are centred and scaled by the training split. Of strengths equally good the smallest is taken,
    and nothing is fitted again on `val`. A label that is not in `train` scores nothing.

    Raises:
        ValueError: no strengths, or nothing to tell apart in `train`.
    """
    if not strengths:
        raise ValueError("got no strengths; give at least one value of C")
    scaler = StandardScaler().fit(train.features)
    features, seen = scaler.transform(train.features), scaler.transform(val.features)
    fit = _fit_labels if train.judge.multi_label else _fit_classes
    fitted = {c: fit(features, train.truth, len(train.judge.names), c) for c in sorted(strengths)}
    found = {c: val.judge.value(val.answers(one.scores(seen))) for c, one in fitted.items()}
    best = max(found, key=lambda c: found[c])  # the first, and so the smallest, of equals
    return Probe(
        scores=lambda features: fitted[best].scores(scaler.transform(features)),
        c=best,
        val={f"{c:g}": value for c, value in found.items()},
        converged=fitted[best].converged,
    )


class _Fitted(NamedTuple):
    scores: Scores
    converged: bool


def _fit_classes(features: np.ndarray, classes: np.ndarray, num_classes: int, c: float) -> _Fitted:
    """One regression over all classes that occur."""
    if len(np.unique(classes)) < 2:
        raise ValueError("the training split has one class; a probe tells at least two apart")
    model, converged = _regression(features, classes, c)

    def scores(features: np.ndarray) -> np.ndarray:
        found = np.zeros((len(features), num_classes))
        found[:, model.classes_] = model.predict_proba(features)
        return found

    return _Fitted(scores, converged)


def _fit_labels(features: np.ndarray, truth: np.ndarray, num_classes: int, c: float) -> _Fitted:
    """A regression for each label that holds for some clips and not for others."""
    told_apart = np.flatnonzero(truth.any(0) & ~truth.all(0))
    if not len(told_apart):
        raise ValueError(
            "every label of the training split holds for all of its clips or for none: nothing to tell apart"
        )
    fitted = {label: _regression(features, truth[:, label], c) for label in told_apart}

    def scores(features: np.ndarray) -> np.ndarray:
        found = np.zeros((len(features), num_classes))
        for label, (model, _) in fitted.items():
            found[:, label] = model.predict_proba(features)[:, 1]
        return found

    return _Fitted(scores, all(converged for _, converged in fitted.values()))


def _regression(features: np.ndarray, targets: np.ndarray, c: float) -> tuple[LogisticRegression, bool]:
    model = LogisticRegression(C=c, max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told by the second answer instead
        model.fit(features, targets)
    return model, bool(model.n_iter_.max() < MAX_ITERATIONS)
