"""The audio stem: MobileNetV3-large at a width, as it is used on spectrograms.

Howard et al. 2019, arXiv:1905.02244, table 1; on spectrograms Schmid et al. 2023, arXiv:2211.04772. The
strides are 32 along time and along frequency, so 512 frames of 128 mel bins become a map of 16 x 4. At width
0.4 it is the network that Schmid et al. call mn04, with 384 channels in its map.
"""

from collections.abc import Callable

from torch import Tensor, nn

from .residual import BlockPlan, ConvNorm, InvertedResidual, scaled_channels

_BLOCKS = (
    # kernel, hidden and out channels, squeeze-and-excitation, hardswish, stride
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)  # fmt: skip
_FIRST, _LAST, _HIDDEN = 16, 960, 1280
"""Channels of the first and last convolution, and of the hidden layer of the classifier."""
_DROPOUT = 0.2


class MobileNetV3(nn.Module):
    """[batch, 1, frames, mel bins] to a map [batch, out_channels, frames / 32, mel bins / 32]."""

    __call__: Callable[..., Tensor]

    def __init__(self, width: float) -> None:
        super().__init__()
        channels = scaled_channels(_FIRST, width)
        self.first = ConvNorm(1, channels, 3, stride=2, activation=nn.Hardswish)
        self.blocks = nn.ModuleList()
        for plan in block_plans(width):
            self.blocks.append(InvertedResidual(channels, plan))
            channels = plan.out_channels
        self.out_channels = scaled_channels(_LAST, width)
        self.last = ConvNorm(channels, self.out_channels, 1, activation=nn.Hardswish)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def block_plans(width: float) -> list[BlockPlan]:
    """The blocks of the paper's table; squeeze-and-excitation has a quarter of the hidden channels inside."""
    plans = []
    for kernel_size, hidden, out, squeezes, hardswish, stride in _BLOCKS:
        hidden_channels = scaled_channels(hidden, width)
        plans.append(
            BlockPlan(
                hidden_channels=hidden_channels,
                out_channels=scaled_channels(out, width),
                kernel_size=kernel_size,
                stride=stride,
                squeeze_channels=scaled_channels(hidden_channels // 4, 1) if squeezes else 0,
                activation=nn.Hardswish if hardswish else nn.ReLU,
            )
        )
    return plans


def mobilenet_classifier(width: float, num_classes: int) -> nn.Sequential:
    """The mean of the map, [batch, channels], to logits, by a hidden layer."""
    channels, hidden = scaled_channels(_LAST, width), scaled_channels(_HIDDEN, width)
    return nn.Sequential(
        nn.Linear(channels, hidden), nn.Hardswish(), nn.Dropout(_DROPOUT), nn.Linear(hidden, num_classes)
    )
