"""Initialise the audio stem, and its classifier, with an EfficientAT MobileNet such as `mn04_as`.

Schmid et al. 2023, arXiv:2211.04772; weights of github.com/fschmid56/EfficientAT. It reads log-mel
spectrograms of 32 kHz sound as (frequency, time); ours are (time, frequency), so its kernels are transposed.
"""

from collections.abc import Mapping

from torch import Tensor

from models.mask import Stream
from models.stems import MobileNetV3
from models.zorro import ZorroModel

from .mobile_layout import check_stem, convolution, import_by_names, layers_of_block
from .report import ImportReport

_OWN, _OWN_CLASSIFIER = "audio_tokens.embed", "stem_classifiers.audio"
_NORMALISATION = {"audio_mean": -4.5, "audio_std": 5.0}


def import_efficientat(model: ZorroModel, state_dict: Mapping[str, Tensor]) -> ImportReport:
    """Copy the network into the audio stem, and its classifier where the audio stem has one.

    If anything does not fit, the model stays as it is.

    Args:
        model: with stem "mobile", `mobile.audio_width` of the network (0.4 for mn04), as many
            `mobile.audio_classes` as it has labels (527) or none, `audio_mean` -4.5 and `audio_std` 5.
        state_dict: keys `features.{i}...` and `classifier.{2,5}`, with squeeze-and-excitation over channels.
            From a file: `torch.load(path, map_location="cpu", weights_only=True)`.

    Raises:
        ValueError: the model has another stem, or another normalisation of audio.
        CheckpointError: keys or shapes differ, which the message lists.
    """
    check_stem(model.config, _NORMALISATION)
    stem = model.audio_tokens.embed
    assert isinstance(stem, MobileNetV3)
    names, matrices = _stem_names(stem)
    classifiers = model.stem_classifiers
    has_classifier = classifiers is not None and classifiers.knows(Stream.AUDIO)
    if has_classifier:
        names |= {
            f"{_OWN_CLASSIFIER}.{own}.{part}": f"classifier.{other}.{part}"
            for own, other in ((0, 2), (3, 5))
            for part in ("weight", "bias")
        }
    return import_by_names(
        model,
        state_dict,
        names,
        matrices=matrices,
        transposed=True,
        ignored=() if has_classifier else ("classifier.",),
    )


def _stem_names(stem: MobileNetV3) -> tuple[dict[str, str], list[str]]:
    """Our name of each weight of the stem to its name in the file, and which of ours are matrices there."""
    names = convolution(f"{_OWN}.first", "features.0.0", "features.0.1")
    matrices = []
    for i, block in enumerate(stem.blocks):
        for j, layer in enumerate(layers_of_block(block)):
            own, other = f"{_OWN}.blocks.{i}.{layer}", f"features.{i + 1}.block.{j}"
            if layer != "squeeze":
                names |= convolution(own, f"{other}.0", f"{other}.1")
                continue
            for part, linear in (("reduce", "fc1"), ("expand", "fc2")):
                inside = f"{other}.conc_se_layers.0.{linear}"
                names |= {f"{own}.{part}.{x}": f"{inside}.{x}" for x in ("weight", "bias")}
                matrices.append(f"{own}.{part}.weight")
    last = f"features.{len(stem.blocks) + 1}"
    return names | convolution(f"{_OWN}.last", f"{last}.0", f"{last}.1"), matrices
