"""Scores of predictions: accuracy at k, and calibration."""

import numpy as np
from jaxtyping import Float, Int


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
