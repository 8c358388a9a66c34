"""The result of a clip, put together from batches of its windows.

Each window's facts and output values are kept, its arrays are not, so memory stays bounded however long the
clip is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from media import Clip, MediaInfo, Modality
from media.pooling import pool, window_weights

from .results import ClipResult, StreamResult, WindowResult


@dataclass(frozen=True, slots=True)
class OutputRequest:
    """Which output of the graphs is needed, and how its values become results."""

    kind: str
    """One of `signature.OUTPUT_KINDS`."""
    to_results: Callable[[np.ndarray, Modality], list[StreamResult]]
    """One result per row of a stream's votes, [rows, dim]; a row belongs to a window or to the whole clip."""
    votes: Callable[[np.ndarray], np.ndarray] = lambda values: values
    """Values of windows, [windows, dim], to votes: the numbers that are averaged over the windows of a
    clip."""


@dataclass(slots=True)
class ResultBuilder:
    """The windows seen so far, without their arrays, and each stream's values for them."""

    modalities: Sequence[Modality]
    """Streams that give results."""
    windows: list[Clip] = field(default_factory=list)
    values: dict[Modality, list[np.ndarray]] = field(default_factory=dict)
    """One array per batch, [windows, dim]."""
    inference_seconds: float = 0.0

    @property
    def is_silent(self) -> bool:
        """Whether no window has audible sound."""
        return all(window.is_silent for window in self.windows)

    def add(self, batch: Sequence[Clip], values: dict[Modality, np.ndarray]) -> None:
        """Add a batch of windows and each stream's values for them, [windows, dim]."""
        self.windows += [replace(clip, audio=None, video=None) for clip in batch]
        for modality, value in values.items():
            self.values.setdefault(modality, []).append(value)

    def stream_results(self, request: OutputRequest, modality: Modality) -> list[StreamResult]:
        """One stream's results: one per window, in order, then that of the whole clip.

        The whole is pooled as `media.pooling` says. For a clip of one window the list has one entry, which is
        both.
        """
        votes = request.votes(np.concatenate(self.values[modality]))
        if len(votes) > 1:
            votes = np.concatenate([votes, pool(votes, window_weights(self.windows, modality))[np.newaxis]])
        return request.to_results(votes, modality)

    def build(
        self,
        request: OutputRequest,
        info: MediaInfo,
        *,
        requested: Sequence[Modality],
        warnings: Sequence[str],
        decode_seconds: float,
    ) -> ClipResult:
        """The result of the clip, once every window has been added."""
        warnings = list(warnings)
        if Modality.AUDIO in self.modalities and self.is_silent:
            warnings.append("silent_audio: the clip has no audible sound; do not rely on its audio answer")
        by_stream = {str(modality): self.stream_results(request, modality) for modality in self.modalities}
        return ClipResult(
            windows=tuple(
                WindowResult(
                    i,
                    clip.start_seconds,
                    clip.end_seconds,
                    clip.padded,
                    clip.is_silent,
                    {name: results[i] for name, results in by_stream.items()},
                )
                for i, clip in enumerate(self.windows)
            ),
            whole={name: results[-1] for name, results in by_stream.items()},
            media=info,
            absent=tuple(str(m) for m in requested if m not in self.modalities),
            warnings=tuple(warnings),
            decode_seconds=decode_seconds,
            inference_seconds=self.inference_seconds,
        )
