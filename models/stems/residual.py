"""What MobileNetV3 and EfficientNet-Lite are built of: inverted residual blocks with batch norms.

A block widens its channels, filters each by itself, and narrows them again (Sandler et al. 2018,
arXiv:1801.04381). An exported graph folds the batch norms into the convolutions.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPlan:
    """One inverted residual block: its channels, kernel and activation."""

    hidden_channels: int
    out_channels: int
    kernel_size: int
    stride: int = 1
    squeeze_channels: int = 0
    """Inside squeeze-and-excitation; 0: the block has none."""
    activation: Callable[[], nn.Module]
    pads_end: bool = False
    """See `ConvNorm`."""


class ConvNorm(nn.Module):
    """Convolution, batch norm and activation.

    The sides of a map are even before each stride of two. PyTorch pads such a side alike before and after;
    TensorFlow pads the one row less that is needed, and the end gets more: `pads_end`.
    """

    __call__: Callable[..., Tensor]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: Callable[[], nn.Module] = nn.Identity,
        pads_end: bool = False,
    ) -> None:
        super().__init__()
        before = after = kernel_size // 2
        if pads_end and stride == 2:
            before -= 1
        self.pad = nn.ZeroPad2d((before, after, before, after)) if before != after else nn.Identity()
        padding = after if before == after else 0
        self.conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.norm(self.conv(self.pad(x))))
        return out


class SqueezeExcitation(nn.Module):
    """Scale each channel by what the means of all channels say (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int, squeeze_channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeeze_channels, 1)
        self.expand = nn.Conv2d(squeeze_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.reduce(x.mean(dim=(2, 3), keepdim=True)).relu()
        scale: Tensor = self.expand(squeezed).sigmoid()
        return scale * x


class InvertedResidual(nn.Module):
    """A block as its plan says; its input is added if its output has the same shape."""

    __call__: Callable[..., Tensor]

    def __init__(self, in_channels: int, plan: BlockPlan) -> None:
        super().__init__()
        hidden, act = plan.hidden_channels, plan.activation
        self.adds_input = plan.stride == 1 and in_channels == plan.out_channels
        self.expand = ConvNorm(in_channels, hidden, 1, activation=act) if hidden != in_channels else None
        self.depthwise = ConvNorm(
            hidden,
            hidden,
            plan.kernel_size,
            stride=plan.stride,
            groups=hidden,
            activation=act,
            pads_end=plan.pads_end,
        )
        self.squeeze = SqueezeExcitation(hidden, plan.squeeze_channels) if plan.squeeze_channels else None
        self.project = ConvNorm(hidden, plan.out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.depthwise(x if self.expand is None else self.expand(x))
        out = self.project(hidden if self.squeeze is None else self.squeeze(hidden))
        return x + out if self.adds_input else out


def scaled_channels(channels: int, width: float) -> int:
    """`channels` times `width` as the nearest multiple of 8, at least 8 and at least 90 % of the product."""
    wanted = channels * width
    rounded = max(8, int(wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8
