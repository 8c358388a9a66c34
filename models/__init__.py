"""Arrays into streams: tokens, mask, backbones, heads."""

from .config import BackboneName, Centre, HipConfig, Stem, SwinConfig, ZorroConfig
from .mask import Masking, Stream
from .presets import PRESETS, preset
from .zorro import Zorro, ZorroOutput

__all__ = [
    "PRESETS", "BackboneName", "Centre", "HipConfig", "Masking", "Stem", "Stream", "SwinConfig", "Zorro", "ZorroConfig",
    "ZorroOutput", "preset",
]  # fmt: skip
