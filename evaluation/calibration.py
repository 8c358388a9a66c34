"""Temperatures: one positive factor per stream that makes confidence mean what it says (Guo et al. 2017).

Mixed and smoothed targets make a model less confident than it is accurate. A temperature changes no order of
labels. It is fitted on the validation split and folded into the classifier, so graphs and embeddings stay as
they are.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from datasets.manifests import Item
from media.clip import Clip
from media.spec import ClipSpec
from models.heads import StreamHead
from models.mask import Stream
from models.zorro import ZorroModel

from .pairing import read_windows
from .predictors import ModelPredictor
from .unpaired_scores import split_logits

MAX_LOG_TEMPERATURE = 3.0  # a factor of 20 either way; beyond that there is nothing to calibrate


STREAM_OF_TABLE = {"sounds": Stream.AUDIO, "sights": Stream.VIDEO, "pairs_fused": Stream.FUSION}
"""The stream that each table of `unpaired_scores` calibrates."""


def calibrate(
    model: ZorroModel,
    items: Sequence[Item],
    targets: dict[str, int],
    spec: ClipSpec,
    *,
    clips: list[list[Clip]] | None = None,
) -> dict[str, float]:
    """Fit a temperature per stream on a split, fold them into the model, and return them by stream.

    Args:
        model: changed in place.
        items: the validation split; a stream that it cannot test keeps its temperature of 1.
        targets: index of each label in the logits.
        spec: the model's.
        clips: what `read_windows` gave for these items, to save decoding.

    Raises:
        MediaError: a file does not decode.
    """
    found = split_logits(ModelPredictor(model), items, targets, clips or read_windows(items, spec))
    fitted = {
        STREAM_OF_TABLE[name]: fit_temperature(*found[name]) for name in STREAM_OF_TABLE if name in found
    }
    fold_temperatures(model, fitted)
    return {stream.key: fitted.get(stream, 1.0) for stream in STREAM_OF_TABLE.values()}


def fit_temperature(logits: Float[np.ndarray, "clips classes"], truth: Int[np.ndarray, " clips"]) -> float:
    """The temperature that gives the true labels the highest likelihood.

    Raises:
        ValueError: there are no clips.
    """
    if not len(truth):
        raise ValueError("got 0 clips; a temperature is fitted on at least 1")
    rows = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(logits / np.exp(log_temperature), axis=1)[rows, truth].mean())

    fitted = minimize_scalar(loss, bounds=(-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE), method="bounded")
    return float(np.exp(fitted.x))


@torch.no_grad()
def fold_temperatures(model: ZorroModel, temperatures: Mapping[Stream, float]) -> None:
    """Divide each stream's logits by its temperature, in the weights of its classifier."""
    for stream, temperature in temperatures.items():
        head = model.heads[stream.key]
        assert isinstance(head, StreamHead)
        for parameter in head.classify.parameters():
            parameter.div_(temperature)
