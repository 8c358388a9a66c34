"""Names and shapes at the borders of the three graphs.

Export writes by this one table, and the runtime checks by it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from media import ClipSpec, Modality

GRAPH_INPUTS: dict[Modality, tuple[str, ...]] = {
    Modality.AUDIO: ("audio",),
    Modality.VIDEO: ("video",),
    Modality.FUSED: ("audio", "video"),
}
GRAPH_STREAMS: dict[Modality, tuple[str, ...]] = {
    Modality.AUDIO: ("audio",),
    Modality.VIDEO: ("video",),
    Modality.FUSED: ("audio", "video", "fusion"),
}
"""Streams that each graph answers for, in the order of its outputs."""

STREAM_OF_MODALITY = {Modality.AUDIO: "audio", Modality.VIDEO: "video", Modality.FUSED: "fusion"}
"""The stream that answers for a modality."""

OUTPUT_KINDS = ("features", "embedding", "logits")


class TensorInfo(NamedTuple):
    """An input or output; the batch, which comes first, is left out of the shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def input_tensors(modality: Modality, spec: ClipSpec) -> list[TensorInfo]:
    """What a graph takes: log-mel spectrograms before normalisation, and RGB pixels."""
    known = {
        "audio": TensorInfo("audio", "float32", spec.audio_shape),
        "video": TensorInfo("video", "uint8", spec.video_shape),
    }
    return [known[name] for name in GRAPH_INPUTS[modality]]


def output_names(modality: Modality) -> list[str]:
    """Names of a graph's outputs, `{stream}_{answer}`, in order."""
    return [f"{stream}_{answer}" for stream in GRAPH_STREAMS[modality] for answer in OUTPUT_KINDS]


def graphs_for(modalities: Sequence[Modality]) -> list[Modality]:
    """The graphs to run for answers of these modalities: the fused one answers for all three at once."""
    return [Modality.FUSED] if Modality.FUSED in modalities else list(modalities)


def stream_values(
    outputs: Iterable[Mapping[str, np.ndarray]], modalities: Sequence[Modality], kind: str
) -> dict[Modality, np.ndarray]:
    """Each modality's answer of this kind, of `OUTPUT_KINDS`.

    They come from the outputs of the graphs that ran for them.
    """
    merged = {name: value for part in outputs for name, value in part.items()}
    return {modality: merged[f"{STREAM_OF_MODALITY[modality]}_{kind}"] for modality in modalities}
