"""Bytes into arrays: probe, decode, log-mel, frames, windows."""

from .clip import Clip, ClipReader, Modality, read_clips, read_frames, read_waveform
from .container import MediaLimits, Source
from .errors import MediaError
from .probe import MediaInfo, probe
from .spec import ClipSpec
from .time_range import TimeRange

__all__ = [
    "Clip", "ClipReader", "ClipSpec", "MediaError", "MediaInfo", "MediaLimits", "Modality", "Source",
    "TimeRange", "probe", "read_clips", "read_frames", "read_waveform",
]  # fmt: skip
