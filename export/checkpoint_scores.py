"""How the scores of a checkpoint come from its logits.

This module imports nothing that writes graphs, because training's commands use it too.
"""

from models.weights import Checkpoint
from runtime.scores import Scores


def learned_scores(checkpoint: Checkpoint) -> Scores:
    """How scores come from a checkpoint's logits, by its recipe; softmax, if no recipe trained it."""
    is_multi_label = checkpoint.extra.get("recipe", {}).get("multi_label", False)
    return Scores.SIGMOID if is_multi_label else Scores.SOFTMAX
