"""The Zorro model in torch: tokens, masking rule, backbones, heads, presets and checkpoints."""

from .config import BackboneName, Centre, HipConfig, MobileConfig, Stem, SwinConfig, ZorroConfig
from .mask import Masking, Stream
from .presets import PRESETS, preset
from .zorro import ZorroModel, ZorroOutput

__all__ = [
    "PRESETS",
    "BackboneName",
    "Centre",
    "HipConfig",
    "Masking",
    "MobileConfig",
    "Stem",
    "Stream",
    "SwinConfig",
    "ZorroConfig",
    "ZorroModel",
    "ZorroOutput",
    "preset",
]
