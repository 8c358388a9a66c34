"""The size of a model: parameters, tokens and operations, counted on shapes without weights."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from .config import ZorroConfig
from .zorro import ZorroModel


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Parameters of a model, and what one window of audio and video costs it."""

    parameters: int
    tokens: tuple[int, int, int]
    """Number of audio, video and fusion tokens that enter the trunk."""
    gflops: float
    """Operations of matrix products and convolutions, 1e9; a multiplication and its addition count as two."""


def model_size(config: ZorroConfig) -> ModelSize:
    """Count on the meta device, where a tensor has a shape but no memory."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = ZorroModel(config).eval().requires_grad_(False)
        model(torch.empty(1, *config.audio_shape), torch.empty(1, *config.video_shape, dtype=torch.uint8))
    (frames, bins), (time, height, width) = config.audio_grid, config.video_grid
    return ModelSize(
        sum(p.numel() for p in model.parameters()),
        (frames * bins, time * height * width, config.num_fusion_tokens),
        counter.get_total_flops() / 1e9,
    )
