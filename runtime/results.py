"""Answers: of each window, and of the whole clip."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from media import MediaInfo


@dataclass(frozen=True, slots=True)
class LabelScore:
    """A label and its probability."""

    id: str
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class StreamResult:
    """One stream's answer to one question: labels, or an embedding."""

    labels: tuple[LabelScore, ...] | None = None
    embedding: Float32[np.ndarray, " dim"] | None = None


@dataclass(frozen=True, slots=True)
class WindowResult:
    """Answers of one window, by stream: audio, video, fused."""

    index: int
    start_seconds: float
    end_seconds: float
    padded: bool
    is_silent: bool
    streams: dict[str, StreamResult]


@dataclass(frozen=True, slots=True)
class ClipResult:
    """Answers of a clip."""

    windows: tuple[WindowResult, ...]
    whole: dict[str, StreamResult]
    """Pooled over the windows by `media.pooling`."""
    media: MediaInfo
    absent: tuple[str, ...]
    """Streams that could not answer, since the clip lacks what they read."""
    warnings: tuple[str, ...]
    decode_seconds: float
    inference_seconds: float
