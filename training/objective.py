"""What a step is taught: labels by each stream, and contrast between the streams of a clip."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.zorro import ZorroOutput

from .batch import TrainingBatch
from .contrast import Rows, contrastive_losses, embedding_rows, gather_over_ranks
from .losses import distillation, soft_cross_entropy
from .recipe import Recipe

Classification = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Loss of logits [rows, classes] against targets of the same shape, rows weighted by [rows]."""


def step_losses(
    out: ZorroOutput, batch: TrainingBatch, recipe: Recipe, temperature: float | Tensor
) -> dict[str, Tensor]:
    """Weighted losses of one step by name."""
    losses: dict[str, Tensor] = {}
    if recipe.supervised:
        losses |= _supervised(out, batch, recipe)
    count = batch.pairs.stop - batch.pairs.start
    if count and recipe.contrastive_weight:
        losses["contrastive"] = recipe.contrastive_weight * contrast_loss(
            contrast_rows(out, batch), recipe, temperature
        )
    if count and recipe.distillation_weight:
        teacher = out.fusion.logits[batch.pairs]
        assert out.audio is not None  # pairs have both
        assert out.video is not None
        of_audio = distillation(out.audio.logits[:count], teacher)
        of_video = distillation(out.video.logits[:count], teacher)
        losses["distillation"] = recipe.distillation_weight * (of_audio + of_video)
    return losses


def _supervised(out: ZorroOutput, batch: TrainingBatch, recipe: Recipe) -> dict[str, Tensor]:
    loss = _classification(recipe)
    losses = {
        "fusion": recipe.fusion_weight * loss(out.fusion.logits, batch.row_targets, batch.row_kept),
        "overall": recipe.overall_weight * loss(out.overall.logits, batch.row_targets, batch.row_kept),
    }
    if out.audio is not None:
        losses["audio"] = loss(out.audio.logits, batch.audio_targets, batch.audio_kept)
    if out.video is not None:
        losses["video"] = loss(out.video.logits, batch.video_targets, batch.video_kept)
    return losses


def _classification(recipe: Recipe) -> Classification:
    if recipe.multi_label:
        return _binary_cross_entropy
    return lambda logits, targets, weights: soft_cross_entropy(
        logits, targets, weights=weights, label_smoothing=recipe.label_smoothing
    )


def _binary_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Summed over classes, so that its size is that of a cross-entropy."""
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").sum(1)
    return (losses * weights).sum() / weights.sum().clamp(min=1e-6)


def contrast_rows(out: ZorroOutput, batch: TrainingBatch) -> Rows:
    """Embeddings of each clip of the batch, and what it has."""
    rows = embedding_rows(out, None if batch.whole_pairs else batch.pairing)
    chosen = {name: x[batch.contrast_rows] for name, x in rows.items()}
    return chosen if batch.contrast_groups is None else chosen | {"group": batch.contrast_groups}


def contrast_loss(rows: Rows, recipe: Recipe, temperature: float | Tensor) -> Tensor:
    """Weighted mean of the three contrasts over the rows of all ranks."""
    found = contrastive_losses(**gather_over_ranks(rows), temperature=temperature).losses
    weights = {
        "audio_video": 1.0,
        "fusion_audio": recipe.fusion_contrast,
        "fusion_video": recipe.fusion_contrast,
    }
    return torch.stack([found[name] * weight for name, weight in weights.items()]).sum() / sum(
        weights.values()
    )
