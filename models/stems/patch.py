"""Stems without a classifier of their own: one linear map per patch, or strided 3x3 convolutions."""

from torch import nn

from models.config import Stem, ZorroConfig


def patch_stem(config: ZorroConfig, *, in_channels: int, patch_size: tuple[int, int]) -> nn.Module:
    """The stem that `config.stem`, PATCH or CONV, names.

    It makes of [batch, in_channels, height, width] a map of width `embed_dim` with one position per patch.
    """
    if config.stem == Stem.PATCH:
        return nn.Conv2d(in_channels, config.embed_dim, patch_size, patch_size)
    return ConvStem(in_channels, config.embed_dim, patch_size)


class ConvStem(nn.Sequential):
    """3x3 convolutions that halve each axis until one position is left per patch.

    Batch norms follow them, which an exported graph folds into the convolutions.

    Raises:
        ValueError: a side of the patch is no power of two.
    """

    def __init__(self, in_channels: int, embed_dim: int, patch_size: tuple[int, int]) -> None:
        if any(size & (size - 1) for size in patch_size):
            raise ValueError(f"the conv stem halves: {patch_size=} must be powers of two")
        num_halvings = max(patch_size).bit_length() - 1
        layers: list[nn.Module] = []
        for i in range(num_halvings):
            stride = tuple(2 if size > 1 << i else 1 for size in patch_size)
            width = max(embed_dim >> (num_halvings - 1 - i), embed_dim // 8)
            layers += _conv(in_channels, width, stride)
            if 0 < i < num_halvings - 1:
                layers += _conv(width, width, (1, 1))
            in_channels = width
        super().__init__(*layers, nn.Conv2d(in_channels, embed_dim, 1))


def _conv(in_channels: int, out_channels: int, stride: tuple[int, ...]) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, 3, (stride[0], stride[1]), padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]
