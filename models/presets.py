"""Presets: named sizes of the three backbones, and one with mobile stems."""

from typing import Any

from .config import HipConfig, MobileConfig, Stem, SwinConfig, ZorroConfig, from_plain

_SWIN = {"backbone": "swin", "patch_size": (4, 4), "tubelet_size": (2, 4, 4)}  # small patches, to be merged

PRESETS: dict[str, dict[str, Any]] = {
    "vit-tiny": {
        "audio_shape": (512, 80), "patch_size": (32, 16), "video_shape": (2, 128, 128, 3), "stem": Stem.CONV,
        "embed_dim": 192, "depth": 6, "num_heads": 3, "projection_dim": 256,
    },
    "vit-small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "vit-base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "vit-large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
    "swin-tiny": {**_SWIN, "embed_dim": 96, "num_heads": 3, "swin": SwinConfig(depths=(2, 2, 6, 2))},
    "swin-small": {**_SWIN, "embed_dim": 96, "num_heads": 3, "swin": SwinConfig(depths=(2, 2, 18, 2))},
    "swin-base": {**_SWIN, "embed_dim": 128, "num_heads": 4, "swin": SwinConfig(depths=(2, 2, 18, 2))},
    "hip-mini": {"backbone": "hip", "embed_dim": 128, "num_heads": 4, "hip": HipConfig(
        num_groups=(16, 1), num_latents=(32, 64), dims=(128, 384), depths=(2, 2), num_heads=(4, 6))},
    "hip-16": {"backbone": "hip", "embed_dim": 256, "num_heads": 4, "hip": HipConfig(
        num_groups=(16, 4, 1), num_latents=(32, 64, 128), dims=(128, 256, 512), depths=(2, 2, 8),
        num_heads=(4, 8, 8))},
    "mobile": {
        "audio_shape": (512, 128), "patch_size": (32, 32), "video_shape": (2, 224, 224, 3),
        "tubelet_size": (1, 32, 32), "stem": Stem.MOBILE, "mobile": MobileConfig(),
        "embed_dim": 256, "depth": 4, "num_heads": 4, "projection_dim": 256,
        "audio_mean": -4.5, "audio_std": 5.0,
        "video_mean": (127.0, 127.0, 127.0), "video_std": (128.0, 128.0, 128.0),
    },
}  # fmt: skip
"""Fields of `ZorroConfig` that differ from its defaults, by the name of the preset."""


def preset(name: str, *, num_classes: int, **changes: Any) -> ZorroConfig:
    """The config of the preset called `name`, with changes.

    Args:
        name: one of `PRESETS`.
        num_classes: number of labels.
        changes: fields of `ZorroConfig`; lists and tables, as JSON and TOML hold them, are accepted.

    Raises:
        ValueError: there is no such preset, or the fields contradict each other.
        TypeError: a change names no field.
    """
    if name not in PRESETS:
        raise ValueError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
    return ZorroConfig(**from_plain({**PRESETS[name], "num_classes": num_classes, **changes}))
