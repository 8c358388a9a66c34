"""What is kept of windows while a clip is read: their facts and values, not their arrays, so that memory stays bounded."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from media import Clip, MediaInfo, Modality
from media.pooling import pool, window_weights

from .results import ClipResult, StreamResult, WindowResult


@dataclass(frozen=True, slots=True)
class Question:
    """Which output is asked for, and how its value becomes an answer."""

    kind: str
    answer: Callable[[np.ndarray], StreamResult]
    """Of a window's vote, or of the mean of several."""
    vote: Callable[[np.ndarray], np.ndarray] = lambda value: value
    """What a window's value becomes before it is averaged with others."""


@dataclass(slots=True)
class Collected:
    """Values of the windows seen so far; of the windows themselves only the facts are kept, not the arrays."""

    modalities: Sequence[Modality]
    windows: list[Clip] = field(default_factory=list)
    values: list[dict[Modality, np.ndarray]] = field(default_factory=list)
    inference_seconds: float = 0.0

    @property
    def is_silent(self) -> bool:
        """There is no audible sound in any window."""
        return all(window.is_silent for window in self.windows)

    def add(self, batch: Sequence[Clip], values: dict[Modality, np.ndarray]) -> None:
        """Take in one batch of windows and each stream's values for them."""
        for i, clip in enumerate(batch):
            bare = Clip(
                clip.start_seconds, clip.end_seconds, None, None,
                clip.audio_seconds, clip.video_seconds, clip.is_silent, clip.padded,
            )  # fmt: skip
            self.windows.append(bare)
            self.values.append({modality: value[i] for modality, value in values.items()})

    def window_results(self, question: Question) -> Iterator[WindowResult]:
        """Answers of each window, in order."""
        for i, (clip, values) in enumerate(zip(self.windows, self.values, strict=True)):
            streams = {str(modality): question.answer(question.vote(value)) for modality, value in values.items()}
            yield WindowResult(i, clip.start_seconds, clip.end_seconds, clip.padded, clip.is_silent, streams)

    def whole(self, question: Question) -> dict[str, StreamResult]:
        """Each stream's answer for the whole clip, pooled as `media.pooling` says."""
        return {str(modality): question.answer(self._mean_vote(question, modality)) for modality in self.modalities}

    def _mean_vote(self, question: Question, modality: Modality) -> np.ndarray:
        votes = np.stack([question.vote(values[modality]) for values in self.values])
        return pool(votes, window_weights(self.windows, modality))

    def result(
        self,
        question: Question,
        info: MediaInfo,
        *,
        asked: Sequence[Modality],
        warnings: Sequence[str],
        decode_seconds: float,
    ) -> ClipResult:
        """All of the answer, once every window has been added."""
        warnings = list(warnings)
        if Modality.AUDIO in self.modalities and self.is_silent:
            warnings.append("silent_audio: there is no audible sound; its answer means nothing")
        windows = tuple(self.window_results(question))
        return ClipResult(
            windows=windows,
            whole=dict(windows[0].streams) if len(windows) == 1 else self.whole(question),  # the mean of one is itself
            media=info,
            absent=tuple(str(m) for m in asked if m not in self.modalities),
            warnings=tuple(warnings),
            decode_seconds=decode_seconds,
            inference_seconds=self.inference_seconds,
        )
