"""How scores come from logits: labels compete, or each stands for itself.

What windows of a clip are averaged by differs too: logits where labels compete; where each stands for itself
its probabilities, as evaluation averages those of views, so that a label that holds in one window of many is
not outvoted.
"""

from enum import StrEnum
from typing import assert_never

import numpy as np
from jaxtyping import Float


class Scores(StrEnum):
    """What a bundle's logits have learned to mean."""

    SOFTMAX = "softmax"  # one label holds: scores sum to 1
    SIGMOID = "sigmoid"  # any number of labels may hold, each by itself

    def votes(self, logits: Float[np.ndarray, "*windows labels"]) -> Float[np.ndarray, "*windows labels"]:
        """What of windows is averaged."""
        match self:
            case Scores.SOFTMAX:
                return logits
            case Scores.SIGMOID:
                # So written it overflows nowhere, and tells small ones apart.
                return np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))
            case _:
                assert_never(self)

    def probabilities(self, votes: Float[np.ndarray, "*votes labels"]) -> Float[np.ndarray, "*votes labels"]:
        """Of windows' votes, or of the mean of those of several."""
        match self:
            case Scores.SOFTMAX:
                exps = np.exp(votes.astype(np.float64) - votes.max(axis=-1, keepdims=True))
                return np.asarray(exps / exps.sum(axis=-1, keepdims=True))
            case Scores.SIGMOID:
                return votes
            case _:
                assert_never(self)
