"""Import weights of published models: timm's ViT, AST and zorro-pytorch."""

from .ast import import_ast
from .lucidrains import import_lucidrains
from .lucidrains_zorro import Compat, LucidrainsConfig, LucidrainsZorro, power_spectrogram
from .timm_vit import import_timm_vit
from .vit_layout import ImportReport

__all__ = [
    "Compat",
    "ImportReport",
    "LucidrainsConfig",
    "LucidrainsZorro",
    "import_ast",
    "import_lucidrains",
    "import_timm_vit",
    "power_spectrogram",
]
