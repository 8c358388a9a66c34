"""Metrics: accuracy at k and within groups, mean average precision, recall at k, calibration error.

And intervals.

Recall, and accuracy within groups, count a prediction as wrong where a rival scores the same, so that a model
that predicts the same for everything scores nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from sklearn.metrics import average_precision_score

TIE = 1e-6  # similarities closer than this are equal: a matrix product rounds by position


def top_k_accuracy(
    scores: Float[np.ndarray, "clips classes"], targets: Int[np.ndarray, " clips"], k: int = 1
) -> float:
    """Share of clips whose target is among the k highest scores."""
    best = np.argsort(-scores, axis=1)[:, :k]
    return float((best == targets[:, None]).any(1).mean())


def expected_calibration_error(
    probabilities: Float[np.ndarray, "clips classes"], targets: Int[np.ndarray, " clips"], num_bins: int = 15
) -> float:
    """Mean distance of confidence and accuracy over equal bins of confidence (Guo et al. 2017)."""
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == targets
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    total = sum(abs(confidence[bins == b].sum() - correct[bins == b].sum()) for b in range(num_bins))
    return float(total / len(targets))


def per_label_accuracy(
    scores: Float[np.ndarray, "clips classes"], targets: Int[np.ndarray, " clips"], labels: list[str]
) -> dict[str, dict[str, float]]:
    """Recall and count of each label that occurs among the targets."""
    correct = scores.argmax(1) == targets
    return {
        labels[t]: {"accuracy": float(correct[targets == t].mean()), "clips": int((targets == t).sum())}
        for t in np.unique(targets)
    }


def score_logits(
    logits: Float[np.ndarray, "clips classes"], truth: Int[np.ndarray, " clips"], names: list[str]
) -> dict[str, Any]:
    """Top-1, top-5, calibration error, and accuracy per label."""
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = shifted / shifted.sum(1, keepdims=True)
    return {
        "clips": len(truth),
        "top1": top_k_accuracy(logits, truth, 1),
        "top5": top_k_accuracy(logits, truth, 5),
        "calibration_error": expected_calibration_error(probabilities, truth),
        "labels": per_label_accuracy(logits, truth, names),
    }


def mean_average_precision(
    scores: Float[np.ndarray, "clips classes"], truth: Shaped[np.ndarray, "clips classes"]
) -> float:
    """Average precision of each class that occurs, then their mean.

    Args:
        scores: logits or probabilities; within a class only their order counts.
        truth: 1 or True where a label holds, else 0.

    Raises:
        ValueError: shapes differ, or no class occurs.
    """
    if scores.shape != truth.shape:
        raise ValueError(
            f"got scores of shape {scores.shape} for truth of shape {truth.shape}; they must be equal"
        )
    occurs = truth.any(0)
    if not occurs.any():
        raise ValueError(f"no label holds for any of {len(truth)} clips; there is no average precision")
    return float(average_precision_score(truth[:, occurs].astype(int), scores[:, occurs], average="macro"))


@dataclass(frozen=True, slots=True)
class WithinGroups:
    """Accuracy where a label competes only with labels of its group."""

    mean: float
    """Over groups, whatever number of clips each has."""
    groups: dict[str, dict[str, float]]
    """`accuracy`, `clips` and `chance` of each group that occurs."""


def within_group_accuracy(
    logits: Float[np.ndarray, "clips classes"], targets: Int[np.ndarray, " clips"], groups: Sequence[str]
) -> WithinGroups:
    """Accuracy within groups of classes, such as the slots of a sentence.

    Args:
        logits: or anything that grows with them.
        targets: classes.
        groups: name of the group of each class.

    Raises:
        ValueError: there is not one group per class, or no clip.
    """
    if len(groups) != logits.shape[1]:
        raise ValueError(f"got {len(groups)} groups for {logits.shape[1]} classes; name one for each")
    if not len(targets):
        raise ValueError("got 0 clips; an accuracy needs at least 1")
    group_of_class = np.asarray(groups)
    correct, group_of_clip = correct_within(logits, targets, group_of_class), group_of_class[targets]
    table = {
        str(name): {
            "accuracy": float(correct[group_of_clip == name].mean()),
            "clips": int((group_of_clip == name).sum()),
            "chance": 1 / int((group_of_class == name).sum()),
        }
        for name in np.unique(group_of_clip)
    }
    return WithinGroups(float(np.mean([row["accuracy"] for row in table.values()])), table)


def correct_within(
    logits: Float[np.ndarray, "clips classes"],
    targets: Int[np.ndarray, " clips"],
    groups: Shaped[np.ndarray, " classes"],
) -> Shaped[np.ndarray, " clips"]:
    """Whether each target scores above all other labels of its group."""
    is_rival = groups[targets][:, None] == groups[None, :]
    rows = np.arange(len(targets))
    is_rival[rows, targets] = False
    best_rival = np.where(is_rival, logits, -np.inf).max(1)
    return np.asarray(logits[rows, targets] > best_rival)


def match_ranks(
    similarities: Float[np.ndarray, "queries keys"], matches: Int[np.ndarray, " queries"]
) -> Int[np.ndarray, " queries"]:
    """Place of each query's match among all keys, from 1; of keys equally near the match comes last.

    Raises:
        ValueError: a similarity is not finite.
    """
    if not np.isfinite(similarities).all():
        raise ValueError("similarities hold NaN or infinity; look for a broken embedding")
    own = similarities[np.arange(len(matches)), matches]
    return np.asarray((similarities >= own[:, None] - TIE).sum(1))


def recall_at_k(similarities: Float[np.ndarray, "clips clips"], k: int) -> float:
    """Share of queries (rows) whose match, the key of the same number, is among the k nearest keys.

    Raises:
        ValueError: the matrix is not square or not finite.
    """
    if similarities.shape[0] != similarities.shape[1]:
        raise ValueError(
            f"got similarities of shape {similarities.shape}; each query wants its key, of the same number"
        )
    return float((match_ranks(similarities, np.arange(len(similarities))) <= k).mean())


@dataclass(frozen=True, slots=True)
class Interval:
    """A statistic and where it would lie in other samples of the same kind."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    statistic: Callable[..., float],
    *arrays: np.ndarray,
    unit: Sequence[object] | np.ndarray | None = None,
    seed: int = 0,
    num_resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap (Efron 1979) over clips, or over groups of clips that are drawn together.

    Args:
        statistic: of arrays like `arrays`; must not depend on the order of rows.
        *arrays: one row per clip, drawn together.
        unit: clips with equal units are drawn together, such as the words of one sentence; default each clip
            by itself.
        seed: of the draws.
        num_resamples: how many samples are drawn.
        level: share of the samples' statistics that lie inside.

    Raises:
        ValueError: arrays or units of different lengths, fewer than two units, or a level outside (0, 1).
    """
    lengths = [len(array) for array in (*arrays, *([] if unit is None else [unit]))]
    if len(set(lengths)) != 1:
        raise ValueError(f"got arrays of {lengths} rows; give one row, and one unit, per clip")
    if not 0 < level < 1 or num_resamples < 1:
        raise ValueError(f"{level=} must lie inside (0, 1) and {num_resamples=} be at least 1")
    unit_of_row = _numbers(range(lengths[0]) if unit is None else unit)
    num_units = int(unit_of_row.max(initial=-1)) + 1
    if num_units < 2:
        raise ValueError(f"got {num_units} units; an interval needs at least 2 to draw from")
    random, rows = np.random.default_rng(seed), np.arange(lengths[0])
    drawn = []
    for _ in range(num_resamples):
        times = np.bincount(random.integers(num_units, size=num_units), minlength=num_units)
        chosen = np.repeat(rows, times[unit_of_row])
        drawn.append(float(statistic(*[array[chosen] for array in arrays])))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(*arrays)), float(low), float(high))


def _numbers(units: Sequence[object] | range | np.ndarray) -> Int[np.ndarray, " rows"]:
    """Number of each row's unit, in order of first appearance."""
    known: dict[object, int] = {}
    return np.array([known.setdefault(unit, len(known)) for unit in units], dtype=np.int64)
