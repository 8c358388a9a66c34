"""What is kept of windows while a clip is read: their facts and values, not their arrays, so that memory stays bounded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from media import Clip, MediaInfo, Modality
from media.pooling import pool, window_weights

from .results import ClipResult, StreamResult, WindowResult


@dataclass(frozen=True, slots=True)
class Question:
    """Which output is asked for, and how its values become answers."""

    kind: str
    answers: Callable[[np.ndarray], list[StreamResult]]
    """One each of votes, [votes, dim]: those of windows, and the mean of them."""
    votes: Callable[[np.ndarray], np.ndarray] = lambda values: values
    """What values of windows, [windows, dim], become before they are averaged."""


@dataclass(slots=True)
class Collected:
    """Values of the windows seen so far; of the windows themselves only the facts are kept, not the arrays."""

    modalities: Sequence[Modality]
    windows: list[Clip] = field(default_factory=list)
    values: dict[Modality, list[np.ndarray]] = field(default_factory=dict)
    """Of each batch, [windows, dim]."""
    inference_seconds: float = 0.0

    @property
    def is_silent(self) -> bool:
        """There is no audible sound in any window."""
        return all(window.is_silent for window in self.windows)

    def add(self, batch: Sequence[Clip], values: dict[Modality, np.ndarray]) -> None:
        """Take in one batch of windows and each stream's values for them."""
        for clip in batch:
            bare = Clip(
                clip.start_seconds,
                clip.end_seconds,
                None,
                None,
                clip.audio_seconds,
                clip.video_seconds,
                clip.is_silent,
                clip.padded,
            )
            self.windows.append(bare)
        for modality, value in values.items():
            self.values.setdefault(modality, []).append(value)

    def answers(self, question: Question, modality: Modality) -> list[StreamResult]:
        """One stream's answers: of each window, in order, and last of the whole clip, pooled as `media.pooling` says.

        There is but one for one window, whose mean it is.
        """
        votes = question.votes(np.concatenate(self.values[modality]))
        if len(votes) > 1:
            votes = np.concatenate([votes, pool(votes, window_weights(self.windows, modality))[np.newaxis]])
        return question.answers(votes)

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
        answers = {str(modality): self.answers(question, modality) for modality in self.modalities}
        return ClipResult(
            windows=tuple(
                WindowResult(
                    i,
                    clip.start_seconds,
                    clip.end_seconds,
                    clip.padded,
                    clip.is_silent,
                    {name: of_stream[i] for name, of_stream in answers.items()},
                )
                for i, clip in enumerate(self.windows)
            ),
            whole={name: of_stream[-1] for name, of_stream in answers.items()},
            media=info,
            absent=tuple(str(m) for m in asked if m not in self.modalities),
            warnings=tuple(warnings),
            decode_seconds=decode_seconds,
            inference_seconds=self.inference_seconds,
        )
