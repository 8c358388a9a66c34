"""Arrays into streams: tokens, mask, backbones, heads."""

from .config import PRESETS, Stem, ZorroConfig, preset
from .mask import Stream
from .zorro import Zorro, ZorroOutput

__all__ = ["PRESETS", "Stem", "Stream", "Zorro", "ZorroConfig", "ZorroOutput", "preset"]
