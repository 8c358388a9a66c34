"""Weights that lie on a grid (learned positions, a mean picture), resized to another grid."""

import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, ...]
"""Points along each axis: one axis for time or frequency, two for height and width."""


def resize_grid(weight: Tensor, old: Grid, new: Grid, *, mode: str) -> Tensor:
    """Interpolate a weight from the grid `old` to the grid `new`.

    Args:
        weight: its leading axes are the old grid, flattened or not; its last axis is channels.
        old: the grid it lies on.
        new: the grid it shall lie on.
        mode: linear, bilinear or bicubic. Bilinear averages where the grid shrinks, as video frames are
            resized; the others read between their points, as DeiT and MAE do with positions.

    Returns:
        The weight as [*new, channels].
    """
    on_grid = weight.detach().reshape(1, *old, weight.shape[-1]).movedim(-1, 1)
    resized = F.interpolate(on_grid, size=new, mode=mode, align_corners=False, antialias=mode == "bilinear")
    return resized.movedim(1, -1)[0]
