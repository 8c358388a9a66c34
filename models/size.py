"""What a config costs: parameters, tokens and operations, counted on shapes alone."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from .config import ZorroConfig
from .zorro import ZorroModel


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Of one model, and of one window of sound and picture through it."""

    parameters: int
    tokens: tuple[int, int, int]
    """Of audio, video and fusion as they enter the trunk."""
    gflops: float
    """Matrix products and convolutions, a multiplication with its addition as two operations."""


def model_size(config: ZorroConfig) -> ModelSize:
    """Count on the meta device, where a tensor is its shape and no memory is taken."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = ZorroModel(config).eval().requires_grad_(False)
        model(torch.empty(1, *config.audio_shape), torch.empty(1, *config.video_shape, dtype=torch.uint8))
    (frames, bins), (time, height, width) = config.audio_grid, config.video_grid
    return ModelSize(
        sum(p.numel() for p in model.parameters()),
        (frames * bins, time * height * width, config.num_fusion_tokens),
        counter.get_total_flops() / 1e9,
    )
