"""Answers: of each window, and of the whole clip."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from media import MediaInfo

NOTHING_SURE = "nothing it is sure of"
"""What a person is told where no label reaches the threshold."""


@dataclass(frozen=True, slots=True)
class LabelScore:
    """A label and its probability."""

    id: str
    label: str
    score: float

    def __str__(self) -> str:
        return f"{self.label} {self.score:.0%}"


@dataclass(frozen=True, slots=True)
class StreamResult:
    """One stream's answer to one question: labels, or an embedding.

    No labels is an answer too: nothing that the stream is sure of. `str` of it says so.
    """

    labels: tuple[LabelScore, ...] | None = None
    """Those that reach `threshold`, the best first; empty if none does. Labels of equal names that bridges
    join, one heard and one seen, are both here, each with its own id and score."""
    embedding: Float32[np.ndarray, " dim"] | None = None
    threshold: float | None = None
    """Least probability of `labels`: the requested one, or else the bundle's; None of an embedding."""
    is_sure: bool | None = None
    """Whether the best label reaches both the requested threshold and the bundle's; None of an embedding.
    Where a lower threshold than the bundle's was requested, there may be labels that it is not sure of."""
    best_guess: LabelScore | None = None
    """The most probable label, however improbable; None of an embedding, and of a stream that knows no
    label."""

    def __str__(self) -> str:
        if self.labels is None:
            assert self.embedding is not None
            return f"an embedding of {len(self.embedding)} numbers"
        if self.is_sure:
            return ", ".join(map(str, self.labels))
        return NOTHING_SURE + (f" (best guess: {self.best_guess})" if self.best_guess else "")


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

    def __str__(self) -> str:
        """What each stream says of the whole clip, one a line."""
        return "\n".join(f"{name}: {stream}" for name, stream in self.whole.items())
