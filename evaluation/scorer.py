"""The scorer: compares predictions for a list of items with their labels, with intervals.

Sets of one label per clip are scored by top-1 and top-5, and within groups of labels where there are such;
sets of many by mean average precision. Spans of one file are drawn together for an interval.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import average_precision_score

from datasets.manifests import Item

from .clip_predictions import StreamPredictions
from .metrics import (
    Interval,
    bootstrap_interval,
    correct_within,
    mean_average_precision,
    score_logits,
    within_group_accuracy,
)

SMALLEST = np.finfo(np.float64).tiny


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringPlan:
    """How items are scored.

    Raises:
        ValueError: groups of labels in a multi-label set.
    """

    multi_label: bool = False
    """Whether any number of labels may hold."""
    groups: Mapping[str, str] | None = None
    """Group of each label, if a label competes only within its group."""
    seed: int = 0
    """Of intervals."""
    num_resamples: int = 1000
    """Of intervals."""

    def __post_init__(self) -> None:
        if self.multi_label and self.groups is not None:
            raise ValueError("labels of a multi-label set do not compete; leave out groups")


class Scorer:
    """Scores predictions for a list of items by their labels.

    Args:
        items: with the labels that are true.
        targets: index of each label in the scores.
        plan: how they are scored; default as one label per clip.

    Raises:
        ValueError: a label that the scores do not have, or one that has no group.
        ManifestError: not exactly one label, where one is wanted.
    """

    def __init__(
        self, items: Sequence[Item], targets: Mapping[str, int], plan: ScoringPlan | None = None
    ) -> None:
        self.plan = plan or ScoringPlan()
        unknown = sorted({label for item in items for label in item.labels} - targets.keys())
        if unknown:
            raise ValueError(
                f"the items have labels that the model does not know: {unknown[:5]}, {len(unknown)} in all"
            )
        self.names = sorted(targets, key=lambda label: targets[label])
        self.groups = None if self.plan.groups is None else _group_array(self.names, self.plan.groups)
        self.units = np.unique([str(item.path) for item in items], return_inverse=True)[1]
        self.truth = (
            _truth_table(items, targets)
            if self.multi_label
            else np.array([targets[item.label] for item in items])
        )

    @property
    def multi_label(self) -> bool:
        """Whether any number of labels may hold."""
        return self.plan.multi_label

    @property
    def metric(self) -> str:
        """Name of the main score."""
        if self.multi_label:
            return "map"
        return "top1" if self.groups is None else "within_groups"

    def main_score(self, predictions: StreamPredictions) -> Interval:
        """The score that curves show; without an interval (both ends NaN) if all clips are of one file."""
        statistic, arrays = self._measured(predictions)
        return self._interval(statistic, predictions, *arrays)

    def value(self, predictions: StreamPredictions) -> float:
        """The main score, without the time that an interval takes."""
        statistic, arrays = self._measured(predictions)
        return float(statistic(*arrays))

    def table(self, predictions: StreamPredictions) -> dict[str, Any]:
        """All scores of one stream."""
        scores, truth = predictions.scores, self.truth[predictions.items]
        main = self.main_score(predictions)
        if self.multi_label:
            table = {
                "clips": len(truth),
                "map": main.value,
                "labels": _average_precisions(scores, truth, self.names),
            }
        else:
            table = score_logits(np.log(np.maximum(scores, SMALLEST)), truth, self.names)
            correct = scores.argmax(1) == truth
            table["top1_interval"] = interval_ends(self._interval(np.mean, predictions, correct))
        if self.groups is not None:
            within = within_group_accuracy(scores, truth, list(self.groups))
            table |= {"within_groups": within.mean, "groups": within.groups}
        table[f"{self.metric}_interval"] = interval_ends(main)
        return table

    def _measured(
        self, predictions: StreamPredictions
    ) -> tuple[Callable[..., float], tuple[np.ndarray, ...]]:
        """The statistic of the main score, and its arrays."""
        scores, truth = predictions.scores, self.truth[predictions.items]
        if self.multi_label:
            return mean_average_precision, (scores, truth)
        if self.groups is None:
            return np.mean, (scores.argmax(1) == truth,)
        return _mean_of_groups, (correct_within(scores, truth, self.groups), self.groups[truth])

    def _interval(
        self, statistic: Callable[..., float], predictions: StreamPredictions, *arrays: np.ndarray
    ) -> Interval:
        units = self.units[predictions.items]
        if len(np.unique(units)) < 2:
            return Interval(float(statistic(*arrays)), float("nan"), float("nan"))
        return bootstrap_interval(
            statistic, *arrays, unit=units, seed=self.plan.seed, num_resamples=self.plan.num_resamples
        )


def _group_array(names: Sequence[str], groups: Mapping[str, str]) -> np.ndarray:
    """Group of each class; raises ValueError for a label without one."""
    ungrouped = [label for label in names if label not in groups]
    if ungrouped:
        raise ValueError(
            f"no group for the labels {ungrouped[:5]}, {len(ungrouped)} in all; name one for each"
        )
    return np.array([groups[label] for label in names])


def _truth_table(items: Sequence[Item], targets: Mapping[str, int]) -> Bool[np.ndarray, "clips classes"]:
    truth = np.zeros((len(items), len(targets)), bool)
    for row, item in zip(truth, items, strict=True):
        row[[targets[label] for label in item.labels]] = True
    return truth


def _average_precisions(
    scores: Float[np.ndarray, "clips classes"], truth: Bool[np.ndarray, "clips classes"], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    return {
        names[int(i)]: {
            "average_precision": float(average_precision_score(truth[:, i], scores[:, i])),
            "clips": int(truth[:, i].sum()),
        }
        for i in np.flatnonzero(truth.any(0))
    }


def _mean_of_groups(correct: Bool[np.ndarray, " clips"], groups: np.ndarray) -> float:
    return float(np.mean([correct[groups == name].mean() for name in np.unique(groups)]))


def interval_ends(interval: Interval) -> list[float] | None:
    """Both ends, for JSON; None if there is no interval."""
    return None if np.isnan(interval.low) else [interval.low, interval.high]
