"""The streams of a table of scores: which output is read, and what the model is given."""

from dataclasses import dataclass

from media.clip import Modality


@dataclass(frozen=True, slots=True)
class StreamInput:
    """Which output is read, and what goes in."""

    modality: Modality
    audio: bool
    """Whether the model is given audio."""
    video: bool
    """Whether the model is given video."""


STREAM_INPUTS = {
    "audio": StreamInput(Modality.AUDIO, audio=True, video=False),
    "video": StreamInput(Modality.VIDEO, audio=False, video=True),
    "fused": StreamInput(Modality.FUSED, audio=True, video=True),
    "fusion_by_audio": StreamInput(Modality.FUSED, audio=True, video=False),
    "fusion_by_video": StreamInput(Modality.FUSED, audio=False, video=True),
}
"""By name of the stream."""
SERVED_STREAMS = ("audio", "video", "fused")
"""Streams that a bundle has: its fused graph always reads both."""
