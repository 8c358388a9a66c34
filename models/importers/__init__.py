"""Import weights of published models: timm's ViT, AST, EfficientAT, EfficientNet-Lite and zorro-pytorch."""

from .ast import import_ast
from .efficientat import import_efficientat
from .efficientnet_lite import import_efficientnet_lite
from .lucidrains import import_lucidrains
from .lucidrains_zorro import Compat, LucidrainsConfig, LucidrainsZorro, power_spectrogram
from .report import ImportReport
from .timm_vit import import_timm_vit

__all__ = [
    "Compat",
    "ImportReport",
    "LucidrainsConfig",
    "LucidrainsZorro",
    "import_ast",
    "import_efficientat",
    "import_efficientnet_lite",
    "import_lucidrains",
    "import_timm_vit",
    "power_spectrogram",
]
