"""Small models of every backbone, with weights as if trained, and inputs for them."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from media import ClipSpec
from models import PRESETS, BackboneName, Stem, ZorroConfig, ZorroModel, preset

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

SMALL_MOBILE: dict[str, Any] = {
    **_SHAPES, "patch_size": (32, 32), "video_shape": (2, 32, 32, 3), "tubelet_size": (1, 32, 32),
    "embed_dim": 32, "depth": 2, "num_heads": 2,
    "mobile": {
        "audio_width": 0.1, "video_width": 0.1, "video_depth": 0.2, "audio_classes": (0, 2),
        "video_classes": (2, 4),
    },
}  # fmt: skip
"""2 audio and 2 video tokens; of 5 classes the audio stem knows two and the video stem two others."""

_SMALL_BY_BACKBONE = {
    BackboneName.VIT: SMALL,
    BackboneName.SWIN: SMALL_SWIN,
    BackboneName.HIP: SMALL_HIP,
}


def small_config(name: str, **changes: Any) -> ZorroConfig:
    """The preset `name` with small sizes, for 5 classes; backbone and stem stay those of the preset."""
    made = preset(name, num_classes=5)
    small = SMALL_MOBILE if made.stem == Stem.MOBILE else _SMALL_BY_BACKBONE[made.backbone]
    return preset(name, num_classes=5, **small | changes)


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
    if isinstance(module, ZorroModel) and module.config.stem == Stem.MOBILE:
        settle(module, random_audio(module.config), random_video(module.config))
    return module.eval()


@torch.no_grad()
def settle(model: ZorroModel, audio: Tensor, video: Tensor) -> None:
    """Batch norms with the statistics of these inputs and scales near one, where they were near zero.

    Without them nothing is left of a signal, or it is enormous, after forty convolutions.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.copy_(1 + norm.weight.fmod(1) * 0.5)
        norm.momentum = 1.0
    model.train()(audio, video)
    for norm in norms:
        norm.momentum = 0.01
    model.eval()


def random_audio(config: ZorroConfig, *, batch: int = 4) -> Tensor:
    """Log-mel spectrograms, always the same."""
    return torch.randn(batch, *config.audio_shape, generator=torch.Generator().manual_seed(1)) * 4 - 8


def random_video(config: ZorroConfig, *, batch: int = 4) -> Tensor:
    """uint8 frames, always the same."""
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (batch, *config.video_shape), dtype=torch.uint8, generator=generator)
