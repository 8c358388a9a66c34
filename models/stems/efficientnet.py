"""The video stem: EfficientNet-Lite at a width and a depth; frames go through it one by one.

Tan & Le 2019, arXiv:1905.11946, table 1. The Lite variants, of TensorFlow's authors, leave out
squeeze-and-excitation, have ReLU6 instead of swish, and do not scale the first convolution, the last one, or
the number of blocks of the first and the last stage. Lite0 has width and depth 1, Lite2 1.1 and 1.2. Trained
weights come from TensorFlow, so strides pad as there; that needs sides that are multiples of 32.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from math import ceil
from typing import Final

from torch import Tensor, nn

from .residual import BlockPlan, ConvNorm, InvertedResidual, scaled_channels

_FIRST_CHANNELS = 32
_STAGES = (
    # blocks, kernel, stride of the first block, widening, out channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip
_DROPOUT = 0.2


class EfficientNetLite(nn.Module):
    """[frames, 3, height, width] to a map [frames, 1280, height / 32, width / 32]."""

    __call__: Callable[..., Tensor]
    out_channels: Final = 1280

    def __init__(self, width: float, depth: float) -> None:
        super().__init__()
        self.first = ConvNorm(3, _FIRST_CHANNELS, 3, stride=2, activation=nn.ReLU6, pads_end=True)
        plans = stage_plans(width, depth)
        channels = [_FIRST_CHANNELS, *(plan.out_channels for plan in plans)]
        self.blocks = nn.ModuleList(map(InvertedResidual, channels, plans))
        self.last = ConvNorm(channels[-1], self.out_channels, 1, activation=nn.ReLU6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def stage_plans(width: float, depth: float) -> list[BlockPlan]:
    """The blocks of all stages in order."""
    outs = [_FIRST_CHANNELS, *(scaled_channels(stage[-1], width) for stage in _STAGES)]
    plans: list[BlockPlan] = []
    for i, channels in enumerate(pairwise(outs)):
        num_blocks, kernel_size, stride, widening, _ = _STAGES[i]
        is_scaled = 0 < i < len(_STAGES) - 1
        first = BlockPlan(
            hidden_channels=widening * channels[0],
            out_channels=channels[1],
            kernel_size=kernel_size,
            stride=stride,
            activation=nn.ReLU6,
            pads_end=True,
        )
        later = replace(first, hidden_channels=widening * channels[1], stride=1)
        plans += [first, *[later] * ((ceil(depth * num_blocks) if is_scaled else num_blocks) - 1)]
    return plans


def efficientnet_classifier(num_classes: int) -> nn.Sequential:
    """The mean of the map, [frames, 1280], to logits."""
    return nn.Sequential(nn.Dropout(_DROPOUT), nn.Linear(EfficientNetLite.out_channels, num_classes))
