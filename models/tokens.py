"""Pixels and mel bins to tokens, with learned factorised positions.

A tubelet is embedded by a 2-D convolution over its frames stacked as channels. That is the same map as a 3-D
convolution whose temporal kernel and stride are the tubelet's length.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .config import Centre, Stem, ZorroConfig


class AudioTokens(nn.Module):
    """Log-mel spectrogram to tokens: normalise, embed patches, add time and frequency positions."""

    mean: Tensor
    std: Tensor
    __call__: Callable[..., Tensor]

    def __init__(self, config: ZorroConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(config.audio_mean), persistent=False)
        self.register_buffer("std", torch.tensor(config.audio_std), persistent=False)
        self.embed = _stem(config, in_channels=1, patch_size=config.patch_size)
        time, frequency = config.audio_grid
        self.pos_time = _positions(time, 1, config.embed_dim)
        self.pos_frequency = _positions(1, frequency, config.embed_dim)

    def forward(
        self, log_mel: Float[Tensor, "batch mel_frames mel_bins"]
    ) -> Float[Tensor, "batch token dim"]:
        normalised = (log_mel - self.mean) / self.std
        x: Tensor = self.embed(normalised[:, None]).permute(0, 2, 3, 1)
        x = x + self.pos_time + self.pos_frequency
        return x.reshape(-1, x.shape[1] * x.shape[2], x.shape[3])


class VideoTokens(nn.Module):
    """RGB frames to tokens: normalise, embed tubelets, add time and space positions."""

    mean: Tensor
    std: Tensor
    __call__: Callable[..., Tensor]

    def __init__(self, config: ZorroConfig) -> None:
        super().__init__()
        frames, height, width = config.tubelet_size
        mean = torch.tensor(config.video_mean)
        if config.centre == Centre.PICTURE:
            mean = mean.expand(config.video_shape[1:]).clone()
        self.register_buffer("mean", mean, persistent=config.centre == Centre.PICTURE)
        self.subtracts_own_mean = config.centre == Centre.MOTION
        self.register_buffer("std", torch.tensor(config.video_std), persistent=False)
        self.tubelet_frames = frames
        self.embed = _stem(config, in_channels=3 * frames, patch_size=(height, width))
        time, rows, columns = config.video_grid
        self.pos_time = _positions(time, 1, config.embed_dim)
        self.pos_space = _positions(1, rows * columns, config.embed_dim)

    def forward(self, video: Float[Tensor, "batch frame height width 3"]) -> Float[Tensor, "batch token dim"]:
        """`video` is uint8, or float of the same range 0 to 255."""
        T, H, W, C = video.shape[1:]  # the batch is written -1, see `attention`
        pixels = video.to(self.mean.dtype)
        # self.mean is [3], or [height, width, 3].
        mean = pixels.mean(dim=1, keepdim=True) if self.subtracts_own_mean else self.mean
        normalised = (pixels - mean) / self.std
        steps = T // self.tubelet_frames
        stacked = normalised.permute(0, 1, 4, 2, 3).reshape(-1, self.tubelet_frames * C, H, W)
        x: Tensor = self.embed(stacked).permute(0, 2, 3, 1)
        x = x.reshape(-1, x.shape[1] * x.shape[2], x.shape[3])
        space, dim = x.shape[1:]
        x = x.reshape(-1, steps, space, dim) + self.pos_time + self.pos_space
        return x.reshape(-1, steps * space, dim)


def _positions(first: int, second: int, dim: int) -> nn.Parameter:
    # As large as what a stem makes of pixels; smaller positions leave attention unable to tell one time from
    # another for thousands of steps.
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(first, second, dim), std=0.5))


def _stem(config: ZorroConfig, *, in_channels: int, patch_size: tuple[int, int]) -> nn.Module:
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
