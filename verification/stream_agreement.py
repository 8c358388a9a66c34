"""Agreement of a stream's outputs over many requests, and the limits that a bundle must keep."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from export.variants import TOLERANCES
from runtime.agreement import Agreement

from .proof_requests import RequestOutput

MAX_SCORE_ERROR = 0.25  # of a label's probability, where the logits' tolerance is too wide to say much
MAX_POINTS = 0.5  # of top-1 accuracy, up or down
SAME_GRAPH_ERROR = 1e-5
"""Of scores and embeddings of a float32 graph in other batches, which may sum in another order."""
SAME_GRAPH_SHARE = 0.1
"""What a variant of fewer bits may differ by in other batches, as a share of its limits against the model.

A sum that lies between two steps may round the other way.
"""
LOWER_LIMITS = ("min_cosine", "top1_agreement")
"""Figures that must not be less than their limit; others must not be more."""


@dataclass(slots=True)
class StreamAgreement:
    """How far a stream's outputs are from those wanted, over the clips so far."""

    clips: int = 0
    windows: int = 0
    scores: Agreement = field(default_factory=Agreement)
    embeddings: Agreement = field(default_factory=Agreement)
    hits: list[tuple[bool, bool]] = field(default_factory=list)
    """Whether the best label of the whole clip is one of its own: as put out, and as wanted.

    Of labelled clips.
    """

    def add(self, got: RequestOutput, wanted: RequestOutput, truth: set[int]) -> None:
        """Take in one clip; `truth` are its labels."""
        self.clips, self.windows = self.clips + 1, self.windows + len(got.scores) - 1
        self.scores.add_values(got.scores, wanted.scores)
        self.scores.add_top1(got.scores[:1], wanted.scores[:1])
        self.embeddings.add_values(got.embeddings, wanted.embeddings)
        self.embeddings.add_cosines(got.embeddings, wanted.embeddings)
        if truth:
            best, best_wanted = (int(output.scores[0].argmax()) for output in (got, wanted))
            self.hits.append((best in truth, best_wanted in truth))

    def figures(self) -> dict[str, float]:
        """By name; accuracies where there are labels."""
        found: dict[str, float] = {
            "clips": self.clips,
            "windows": self.windows,
            "max_score_error": self.scores.max_abs_error,
            "max_embedding_error": self.embeddings.max_abs_error,
            "min_cosine": self.embeddings.min_cosine,
            "top1_agreement": self.scores.top1_agreement,
        }
        if self.hits:
            own, wanted = np.sum(self.hits, axis=0).tolist()
            count = len(self.hits)
            found |= {
                "top1": own / count,
                "top1_wanted": wanted / count,
                "top1_points": 100 * abs(own - wanted) / count,
            }
        return found

    def excess(self, limits: Mapping[str, float]) -> str | None:
        """The first figure that does not keep its limit; one clip of accuracy is always allowed."""
        figures = self.figures()
        for name, limit in limits.items():
            value = figures.get(name, limit)
            allowed = max(limit, 100 / len(self.hits)) if name == "top1_points" and self.hits else limit
            if not (value >= allowed if name in LOWER_LIMITS else value <= allowed):  # so written, NaN fails
                return f"{name} is {value:.4g}, the limit is {allowed:.4g}"
        return None


def limits_of(variant: str) -> dict[str, float]:
    """What a variant's outputs for real clips may differ by from the model's: what export allows.

    Softmax moves by at most half of what the farthest logit does, so half of their tolerance is that of
    scores; a sigmoid moves by a quarter.
    """
    tolerance = TOLERANCES[variant]
    return {
        "max_score_error": min(tolerance.max_abs_error / 2, MAX_SCORE_ERROR),
        "min_cosine": tolerance.min_cosine,
        "top1_agreement": tolerance.min_top1_agreement,
        "top1_points": MAX_POINTS,
    }


def same_graph_limits(variant: str) -> dict[str, float]:
    """What a variant's outputs over HTTP may differ by from the same graph's.

    That graph runs in this process, in other batches.
    """
    if variant == "fp32":
        return {"max_score_error": SAME_GRAPH_ERROR, "max_embedding_error": SAME_GRAPH_ERROR}
    limits = limits_of(variant)
    distance = math.sqrt(2 * (1 - limits["min_cosine"]))  # of unit vectors with this cosine
    return {
        "max_score_error": SAME_GRAPH_SHARE * limits["max_score_error"],
        "max_embedding_error": SAME_GRAPH_SHARE * distance,
    }
