"""Small models of every backbone, with weights as if trained, and inputs for them."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from media import ClipSpec
from models import PRESETS, BackboneName, ZorroConfig, preset

ModuleT = TypeVar("ModuleT", bound=nn.Module)

_SHAPES = {"audio_shape": (64, 32), "num_fusion_tokens": 3, "projection_dim": 16}

SMALL: dict[str, Any] = {
    **_SHAPES, "patch_size": (16, 16), "video_shape": (2, 32, 32, 3), "tubelet_size": (2, 16, 16),
    "embed_dim": 32, "depth": 2, "num_heads": 2,
}  # fmt: skip
"""A ViT of 8 audio and 4 video tokens."""

SMALL_SWIN: dict[str, Any] = {
    **_SHAPES, "patch_size": (4, 4), "video_shape": (8, 32, 32, 3), "tubelet_size": (2, 4, 4),
    "embed_dim": 16, "num_heads": 2,
    "swin": {"depths": (2, 2), "audio_window": (4, 4), "video_window": (2, 4, 4)},
}  # fmt: skip
"""Grids of 16 x 8 audio and 4 x 8 x 8 video tokens, then 8 x 4 and 4 x 4 x 4; features of width 32."""

SMALL_HIP: dict[str, Any] = {
    **_SHAPES, "patch_size": (16, 16), "video_shape": (2, 32, 32, 3), "tubelet_size": (2, 8, 8),
    "embed_dim": 20, "num_heads": 2,
    "hip": {
        "num_groups": (4, 2), "num_latents": (3, 4), "dims": (16, 24), "depths": (1, 2), "num_heads": (2, 3),
    },
}  # fmt: skip
"""8 audio and 16 video tokens in 4 groups; features of width 24."""

_SMALL_BY_BACKBONE = {
    BackboneName.VIT: SMALL,
    BackboneName.SWIN: SMALL_SWIN,
    BackboneName.HIP: SMALL_HIP,
}


def small_config(name: str, **changes: Any) -> ZorroConfig:
    """The preset `name` with small sizes, for 5 classes; backbone and stem stay those of the preset."""
    backbone = preset(name, num_classes=5).backbone
    return preset(name, num_classes=5, **_SMALL_BY_BACKBONE[backbone] | changes)


DISTINCT_PRESETS = [*{small_config(name): name for name in reversed(PRESETS)}.values()][::-1]
"""One preset for each backbone and stem there is: presets that differ in size alone are equal when small."""


def spec_of(config: ZorroConfig) -> ClipSpec:
    """The clips that a model of `config` takes."""
    (mel_frames, mel_bins), (video_frames, size) = config.audio_shape, config.video_shape[:2]
    return ClipSpec(
        num_mel_frames=mel_frames, num_mel_bins=mel_bins, num_video_frames=video_frames, frame_size=size
    )


def as_if_trained(module: ModuleT, *, std: float = 0.2) -> ModuleT:
    """The module in eval mode with random weights: no zero biases, no small weights."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
    return module.eval()


def random_audio(config: ZorroConfig, *, batch: int = 4) -> Tensor:
    """Log-mel spectrograms, always the same."""
    return torch.randn(batch, *config.audio_shape, generator=torch.Generator().manual_seed(1)) * 4 - 8


def random_video(config: ZorroConfig, *, batch: int = 4) -> Tensor:
    """uint8 frames, always the same."""
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (batch, *config.video_shape), dtype=torch.uint8, generator=generator)
