"""Losses: cross-entropy with soft targets, and contrast between streams."""

from jaxtyping import Float, Int
from torch import Tensor


def soft_cross_entropy(
    logits: Float[Tensor, "batch classes"],
    targets: Float[Tensor, "batch classes"],
    *,
    label_smoothing: float = 0.0,
    weights: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over the batch of -sum(target log p), rows weighted; targets sum to one per row."""
    smooth = targets * (1 - label_smoothing) + label_smoothing / targets.shape[1]
    losses = -(smooth * logits.float().log_softmax(-1)).sum(-1)
    if weights is None:
        return losses.mean()
    return (losses * weights).sum() / weights.sum().clamp(min=1e-6)


def info_nce(
    a: Float[Tensor, "batch dim"],
    b: Float[Tensor, "batch dim"],
    *,
    temperature: float | Tensor,
    group: Int[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE (van den Oord et al. 2018) of L2-normalised rows.

    Rows of one `group` are positives of each other, the rest negatives: pairs made by label are as good as
    each other. With all groups distinct this is the usual loss.
    """
    similarity = a.float() @ b.float().T / temperature
    positives = (group[:, None] == group[None, :]).float()
    targets = positives / positives.sum(1, keepdim=True)
    return (soft_cross_entropy(similarity, targets) + soft_cross_entropy(similarity.T, targets)) / 2


def distillation(
    student: Float[Tensor, "batch classes"], teacher: Float[Tensor, "batch classes"]
) -> Float[Tensor, ""]:
    """Cross-entropy of the student against the teacher's probabilities.

    No gradient flows into the teacher.
    """
    return soft_cross_entropy(student, teacher.detach().float().softmax(-1))
