"""Stems: the layers that turn a spectrogram or frames into a map, whose positions become tokens."""

from .classifiers import UNKNOWN_LOGIT, StemClassifiers
from .efficientnet import EfficientNetLite
from .mobilenet import MobileNetV3
from .patch import ConvStem, patch_stem

__all__ = [
    "UNKNOWN_LOGIT",
    "ConvStem",
    "EfficientNetLite",
    "MobileNetV3",
    "StemClassifiers",
    "patch_stem",
]
