"""Media as windows of equal length: uint8 frames and a log-mel spectrogram of the same time.

Window i covers the half-open interval [start + i * stride, + window_seconds) in both modalities. Windows are
read one after another and forgotten, so an hour costs no more memory than a minute. What a window lacks at
its end is padded with silence and with the last frame; such a window is flagged, and `audio_seconds` and
`video_seconds` do not count the padding.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock
from typing import BinaryIO, cast

import av
import numpy as np
from av.container import InputContainer
from jaxtyping import Float32, UInt8

from .audio import AudioReader
from .container import MediaLimits, Source, open_container, video_stream
from .errors import CorruptMedia, InvalidSpan, MediaError, MissingAudio, MissingVideo
from .log_mel import log_mel
from .probe import MediaInfo, read_headers
from .shared_file import SharedFile
from .spec import ClipSpec
from .time_range import WHOLE_MEDIA, TimeRange
from .video import VideoReader
from .windows import AudioWindows, VideoWindows, frames_at

SILENCE_RMS = 1e-3  # -60 dB of full scale
MIN_TAIL_SECONDS = 0.25  # a last window with less material than this is not worth an answer
MIN_LOSS_SECONDS = 1.0  # a header may promise this much more than there is without a warning


class Modality(StrEnum):
    """What an answer is based on: the sound, the picture, or both."""

    AUDIO = "audio"
    VIDEO = "video"
    FUSED = "fused"


@dataclass(frozen=True, slots=True)
class Clip:
    """One window of media as arrays."""

    start_seconds: float
    end_seconds: float
    audio: Float32[np.ndarray, "mel_frames mel_bins"] | None
    video: UInt8[np.ndarray, "frames height width 3"] | None
    audio_seconds: float
    """Seconds of the window before the sound ends."""
    video_seconds: float
    """Seconds of the window before the picture ends; a still fills its window."""
    is_silent: bool
    """Whether there is no audible sound: below -60 dB of full scale, or none at all."""
    padded: bool
    """Whether a requested modality ends before the window does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadState:
    """What is known of a file before its windows are read, and the window to begin with."""

    info: MediaInfo
    has_displayed_size: bool = True
    """Whether `info` has the size of what is displayed; headers alone have the stored one."""
    first_window: int = 0


class ClipReader:
    """The windows of one source, decoded while they are iterated over; made by `read_clips`.

    `warnings` says, while iterating and afterwards, what did not decode and whether the file ends too early.
    `info` is what `probe` says once the first window has been read; before, it may have the stored size.
    """

    def __init__(
        self,
        source: Source,
        spec: ClipSpec,
        *,
        audio: bool,
        video: bool,
        time_range: TimeRange,
        limits: MediaLimits,
        state: ReadState | None = None,
    ) -> None:
        self._source, self._spec, self._limits = source, spec, limits
        self._time_range = time_range.with_default_stride(spec.window_seconds)
        self._needs_audio, self._needs_video = audio, video
        self.warnings: list[str] = []
        state = state or ReadState(info=read_headers(source, limits=limits), has_displayed_size=False)
        self.info, self._has_displayed_size = state.info, state.has_displayed_size
        self._first_window = state.first_window
        if audio and not self.info.has_audio:
            raise MissingAudio("the file has no sound; send one that has, or ask for video")
        if video and not self.info.has_video:
            raise MissingVideo(
                "the file has no picture (cover art is none); send one that has, or ask for audio"
            )
        self._time_range.check_duration(self.info.duration_seconds, limits)

    def __iter__(self) -> Iterator[Clip]:
        lock = Lock()
        self.warnings = []
        with ExitStack() as stack:
            audio = self._audio_windows(stack, lock) if self._needs_audio else None
            video = self._video_windows(stack, lock) if self._needs_video else None
            readers = [windows.reader for windows in (audio, video) if windows is not None]
            for clip in self._windows(audio, video):
                if video is not None and video.reader.is_turned and not self._has_displayed_size:
                    self.info, self._has_displayed_size = self.info.turned(), True
                self.warnings = _summary([fault for reader in readers for fault in reader.faults])
                yield clip
            self.warnings = _summary([fault for reader in readers for fault in reader.faults])
            self.warnings += self._losses(audio, video)

    def _audio_windows(self, stack: ExitStack, lock: Lock) -> AudioWindows:
        reader = AudioReader(self._open(stack, lock), self._spec.sample_rate, self._limits)
        return AudioWindows(reader, self._spec, self._time_range)

    def _video_windows(self, stack: ExitStack, lock: Lock) -> VideoWindows:
        container = self._open(stack, lock)
        reader = VideoReader(container, self._limits)
        return VideoWindows(reader, self._spec, self._time_range, still_until=self._still_until(container))

    def _open(self, stack: ExitStack, lock: Lock) -> InputContainer:
        """A container of its own for each modality, so that neither waits for the other's packets."""
        source = self._source
        if not isinstance(source, bytes | str | os.PathLike):
            source = cast(BinaryIO, SharedFile(source, lock))
        return stack.enter_context(open_container(source, self._limits))

    def _still_until(self, container: InputContainer) -> float | None:
        stream = video_stream(container)
        if self.info.is_still:
            return float("inf")
        has_one_frame = stream is not None and stream.frames == 1
        return self.info.duration_seconds if has_one_frame else None

    def _windows(self, audio: AudioWindows | None, video: VideoWindows | None) -> Iterator[Clip]:
        index, time_range = self._first_window, self._time_range
        while time_range.end_seconds is None or time_range.window_start(index) < time_range.end_seconds:
            clip = self._window(index, audio, video)
            material = max(clip.audio_seconds, clip.video_seconds)
            if index and material < MIN_TAIL_SECONDS:
                return
            if material == 0:
                raise self._nothing_decoded()
            time_range.check_limits(clip.start_seconds + material - time_range.start_seconds, self._limits)
            yield clip
            if self.info.is_still:
                return
            index += 1

    def _window(self, index: int, audio: AudioWindows | None, video: VideoWindows | None) -> Clip:
        spec, start = self._spec, self._time_range.window_start(index)
        waveform, audio_seconds = audio.read(index) if audio else (None, 0.0)
        frames, video_seconds = video.read(index) if video else (None, 0.0)
        is_silent = waveform is None or _rms(waveform, audio_seconds * spec.sample_rate) < SILENCE_RMS
        shortest = min(
            seconds
            for seconds, windows in ((audio_seconds, audio), (video_seconds, video))
            if windows is not None
        )
        return Clip(
            start_seconds=start,
            end_seconds=start + spec.window_seconds,
            audio=None if waveform is None else log_mel(waveform, spec),
            video=frames,
            audio_seconds=audio_seconds,
            video_seconds=video_seconds,
            is_silent=is_silent,
            padded=shortest < spec.window_seconds - 1 / spec.sample_rate,
        )

    def _nothing_decoded(self) -> MediaError:
        start = self._time_range.start_seconds
        if start > 0:
            return InvalidSpan(
                f"there is nothing at {start:g} s; the media ends earlier: ask for an earlier start"
            )
        needs = (("sound", self._needs_audio), ("picture", self._needs_video))
        streams = " and ".join(name for name, is_needed in needs if is_needed)
        return CorruptMedia(f"nothing of the {streams} decodes; is the file complete?")

    def _losses(self, audio: AudioWindows | None, video: VideoWindows | None) -> list[str]:
        """A warning if all that was requested ends well before the header says."""
        promised = self.info.duration_seconds
        if promised is None or self._time_range.end_seconds is not None:
            return []
        audio_end = 0.0 if audio is None else audio.reader.decoded_to / audio.reader.sample_rate
        video_end = 0.0 if video is None else video.reader.end_seconds or 0.0
        end = max(audio_end, video_end)
        if end > promised - MIN_LOSS_SECONDS:
            return []
        return [f"the file promises {promised:.1f} s, but what decodes ends after {end:.1f} s"]


def read_clips(
    source: Source,
    spec: ClipSpec,
    *,
    audio: bool = True,
    video: bool = True,
    time_range: TimeRange = WHOLE_MEDIA,
    limits: MediaLimits | None = None,
) -> ClipReader:
    """Windows of `source`, decoded while they are iterated over.

    Args:
        source: path, bytes or a seekable binary file; a file must not be read by others meanwhile.
        spec: the model's numbers.
        audio: whether to read sound; what is not needed is not decoded.
        video: whether to read pictures.
        time_range: part of the media to read, and the stride of its windows; default all, in windows that
            touch. No window starts at its end or later, and material from there on is padding.
        limits: the most that a file may take.

    Raises:
        ValueError: neither audio nor video is to be read.
        MissingAudio, MissingVideo: the file has no such stream.
        InvalidSpan: the media ends before the range starts.
        EmptyMedia, UnsupportedMedia, CorruptMedia, MediaTooLarge: see `errors`; while iterating, too.
    """
    if not (audio or video):
        raise ValueError("ask for audio, video or both; got neither")
    limits = limits or MediaLimits()
    return ClipReader(source, spec, audio=audio, video=video, time_range=time_range, limits=limits)


def read_waveform(
    source: Source,
    spec: ClipSpec,
    *,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    limits: MediaLimits | None = None,
) -> Float32[np.ndarray, " samples"]:
    """All of the sound, or a part of it, mono at `spec.sample_rate`; it ends where the sound does.

    Raises:
        MediaError: there is no sound, nothing of it decodes, or start and end are not inside it.
    """
    limits = limits or MediaLimits()
    time_range = TimeRange(start_seconds=start_seconds, end_seconds=end_seconds)
    time_range = time_range.with_default_stride(spec.window_seconds)
    parts: list[np.ndarray] = []
    with open_container(source, limits) as container:
        time_range.check_duration(_duration_seconds(container), limits)
        windows = AudioWindows(AudioReader(container, spec.sample_rate, limits), spec, time_range)
        while end_seconds is None or time_range.window_start(len(parts)) < end_seconds:
            samples, num_seconds = windows.read(len(parts))
            parts.append(samples[: round(num_seconds * spec.sample_rate)])
            next_start = time_range.window_start(len(parts))
            time_range.check_limits(next_start - start_seconds - spec.window_seconds, limits)
            if len(parts[-1]) < spec.num_samples:
                break
    waveform = np.concatenate(parts)
    if not len(waveform):
        raise CorruptMedia("nothing of the sound decodes; is the file complete?")
    return waveform


def read_frames(
    source: Source,
    times_seconds: Sequence[float],
    *,
    height: int,
    width: int,
    crop_fraction: float = 1.0,
    limits: MediaLimits | None = None,
) -> UInt8[np.ndarray, "frames height width 3"]:
    """The frames on display at times in any order, scaled to cover and cropped at the middle.

    Args:
        source: as in `read_clips`.
        times_seconds: since the container's start.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        crop_fraction: what is cropped out of each side of a frame that just covers; 1 is all that fits.
        limits: the most that a file may take.

    Raises:
        MediaError: there is no picture, or nothing of it decodes.
    """
    limits = limits or MediaLimits()
    with open_container(source, limits) as container:
        reader = VideoReader(container, limits)
        frames = frames_at(reader, times_seconds, height=height, width=width, crop_fraction=crop_fraction)
    return np.stack([frames[t] for t in times_seconds])


def _duration_seconds(container: InputContainer) -> float | None:
    return None if container.duration is None else container.duration / av.time_base


def _rms(waveform: Float32[np.ndarray, " samples"], num_real: float) -> float:
    return float(np.sqrt((waveform.astype(np.float64) ** 2).sum() / max(num_real, 1.0)))


def _summary(faults: list[str]) -> list[str]:
    """Each fault once, with how often it came."""
    return [f"{fault} ({faults.count(fault)}x)" for fault in dict.fromkeys(faults)]
