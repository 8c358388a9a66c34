"""Names and shapes at the borders of the three graphs: the one table that export writes by and the runtime checks by."""

from typing import NamedTuple

from media import ClipSpec, Modality

INPUTS: dict[Modality, tuple[str, ...]] = {
    Modality.AUDIO: ("audio",),
    Modality.VIDEO: ("video",),
    Modality.FUSED: ("audio", "video"),
}
STREAMS: dict[Modality, tuple[str, ...]] = {
    Modality.AUDIO: ("audio",),
    Modality.VIDEO: ("video",),
    Modality.FUSED: ("audio", "video", "fusion"),
}
"""Streams that each graph answers for, in the order of its outputs."""

STREAM_OF = {Modality.AUDIO: "audio", Modality.VIDEO: "video", Modality.FUSED: "fusion"}
"""The stream that answers for a modality."""

ANSWERS = ("features", "embedding", "logits")


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
    return [known[name] for name in INPUTS[modality]]


def output_names(modality: Modality) -> list[str]:
    """Names of a graph's outputs, `{stream}_{answer}`, in order."""
    return [f"{stream}_{answer}" for stream in STREAMS[modality] for answer in ANSWERS]
