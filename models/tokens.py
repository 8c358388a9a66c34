"""Pixels and mel bins to tokens, with learned factorised positions.

A stem makes a map of them (`stems`), and each position of its last map is a token. A tubelet is embedded by a
2-D convolution over its frames stacked as channels. That is the same map as a 3-D convolution whose temporal
kernel and stride are the tubelet's length.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .config import Centre, ZorroConfig
from .stems import EfficientNetLite, MobileNetV3, patch_stem


class AudioTokens(nn.Module):
    """Log-mel spectrogram to tokens: normalise, embed patches, add time and frequency positions."""

    mean: Tensor
    std: Tensor
    __call__: Callable[..., Any]

    def __init__(self, config: ZorroConfig) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(config.audio_mean), persistent=False)
        self.register_buffer("std", torch.tensor(config.audio_std), persistent=False)
        self.embed, self.project = _audio_stem(config)
        time, frequency = config.audio_grid
        self.pos_time = _positions(time, 1, config.embed_dim)
        self.pos_frequency = _positions(1, frequency, config.embed_dim)

    def forward(
        self, log_mel: Float[Tensor, "batch mel_frames mel_bins"], *, with_map: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Tokens, [batch, token, dim]; with `with_map`, also the last map of the stem, for its classifier."""
        last_map = self.map(log_mel)
        x: Tensor = self.project(last_map).permute(0, 2, 3, 1)
        x = x + self.pos_time + self.pos_frequency
        tokens = x.reshape(-1, x.shape[1] * x.shape[2], x.shape[3])
        return (tokens, last_map) if with_map else tokens

    def map(
        self, log_mel: Float[Tensor, "batch mel_frames mel_bins"]
    ) -> Float[Tensor, "batch channel time frequency"]:
        """The last map of the stem."""
        normalised = (log_mel - self.mean) / self.std
        last_map: Tensor = self.embed(normalised[:, None])
        return last_map


class VideoTokens(nn.Module):
    """RGB frames to tokens: normalise, embed tubelets, add time and space positions."""

    mean: Tensor
    std: Tensor
    __call__: Callable[..., Any]

    def __init__(self, config: ZorroConfig) -> None:
        super().__init__()
        mean = torch.tensor(config.video_mean)
        if config.centre == Centre.PICTURE:
            mean = mean.expand(config.video_shape[1:]).clone()
        self.register_buffer("mean", mean, persistent=config.centre == Centre.PICTURE)
        self.subtracts_own_mean = config.centre == Centre.MOTION
        self.register_buffer("std", torch.tensor(config.video_std), persistent=False)
        self.tubelet_frames = config.tubelet_size[0]
        self.embed, self.project = _video_stem(config)
        self.steps, rows, columns = config.video_grid
        self.pos_time = _positions(self.steps, 1, config.embed_dim)
        self.pos_space = _positions(1, rows * columns, config.embed_dim)

    def forward(
        self, video: Float[Tensor, "batch frame height width 3"], *, with_map: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Tokens, [batch, token, dim]; with `with_map`, also the last map of the stem, for its classifier.

        `video` is uint8, or float of the same range 0 to 255.
        """
        last_map = self.map(video)
        x: Tensor = self.project(last_map).permute(0, 2, 3, 1)
        x = x.reshape(-1, x.shape[1] * x.shape[2], x.shape[3])
        space, dim = x.shape[1:]
        x = x.reshape(-1, self.steps, space, dim) + self.pos_time + self.pos_space
        tokens = x.reshape(-1, self.steps * space, dim)
        return (tokens, last_map) if with_map else tokens

    def map(
        self, video: Float[Tensor, "batch frame height width 3"]
    ) -> Float[Tensor, "step channel row column"]:
        """The last map of the stem, with an item for each tubelet in time; those of a clip stand together."""
        H, W, C = video.shape[2:]  # the batch is written -1, see `attention`
        pixels = video.to(self.mean.dtype)
        # self.mean is [3], or [height, width, 3].
        mean = pixels.mean(dim=1, keepdim=True) if self.subtracts_own_mean else self.mean
        normalised = (pixels - mean) / self.std
        stacked = normalised.permute(0, 1, 4, 2, 3).reshape(-1, self.tubelet_frames * C, H, W)
        last_map: Tensor = self.embed(stacked)
        return last_map


def _positions(first: int, second: int, dim: int) -> nn.Parameter:
    # As large as what a stem makes of pixels; smaller positions leave attention unable to tell one time from
    # another for thousands of steps.
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(first, second, dim), std=0.5))


def _audio_stem(config: ZorroConfig) -> tuple[nn.Module, nn.Module]:
    """The stem, and what brings its map to the width of tokens."""
    if config.mobile is None:
        return patch_stem(config, in_channels=1, patch_size=config.patch_size), nn.Identity()
    stem = MobileNetV3(config.mobile.audio_width)
    return stem, nn.Conv2d(stem.out_channels, config.embed_dim, 1)


def _video_stem(config: ZorroConfig) -> tuple[nn.Module, nn.Module]:
    frames, height, width = config.tubelet_size
    if config.mobile is None:
        return patch_stem(config, in_channels=3 * frames, patch_size=(height, width)), nn.Identity()
    stem = EfficientNetLite(config.mobile.video_width, config.mobile.video_depth)
    return stem, nn.Conv2d(stem.out_channels, config.embed_dim, 1)
