"""Media as windows of equal length: uint8 frames and a log-mel spectrogram of the same span of time.

Window i covers the half-open span [start + i * stride, + window_seconds) in both modalities. Windows are read
one after another and forgotten, so an hour costs no more memory than a minute. What a window lacks at its end
is padding: silence, and the last frame again; it is flagged, and counted out of `audio_seconds` and
`video_seconds`.
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
from .container import MediaLimits, Source, open_container, translated, video_stream
from .errors import CorruptMedia, InvalidSpan, MediaError, MissingAudio, MissingVideo
from .log_mel import log_mel
from .probe import MediaInfo, read_headers
from .shared_file import SharedFile
from .span import Span
from .spec import ClipSpec
from .video import VideoReader
from .windows import SightWindows, SoundWindows, frames_at

SILENCE_RMS = 1e-3  # -60 dB of full scale
MIN_TAIL_SECONDS = 0.25  # a last window with less material than this is not worth an answer
MIN_LOSS_SECONDS = 1.0  # a header may promise this much more than there is without a warning


class Modality(StrEnum):
    """What an answer is asked of."""

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
    """There is no audible sound: below -60 dB of full scale, or none at all."""
    padded: bool
    """A modality that was asked for ends before the window does."""


class ClipReader:
    """The windows of one source, read as they are iterated over; made by `read_clips`.

    `warnings` tells, while iterating and afterwards, what did not decode and that a file ends too early.
    `info` is what `probe` says, once the first window has been read; before, pictures may be turned.
    """

    def __init__(
        self,
        source: Source,
        spec: ClipSpec,
        *,
        audio: bool,
        video: bool,
        span: Span,
        limits: MediaLimits,
        first_window: int = 0,
        info: MediaInfo | None = None,
        headers: MediaInfo | None = None,
    ) -> None:
        self._source, self._spec, self._span, self._limits = source, spec, span, limits
        self._first_window = first_window
        self._audio_wanted, self._video_wanted = audio, video
        self.warnings: list[str] = []
        self.info = info or headers or read_headers(source, limits=limits)
        self._may_be_turned = info is None
        if audio and not self.info.has_audio:
            raise MissingAudio("the file has no sound; send one that has, or ask for video")
        if video and not self.info.has_video:
            raise MissingVideo(
                "the file has no picture (cover art is none); send one that has, or ask for audio"
            )
        span.check(self.info.duration_seconds, limits)

    def __iter__(self) -> Iterator[Clip]:
        lock = Lock()
        self.warnings = []
        with ExitStack() as stack:
            sound = sight = audio = video = None
            if self._audio_wanted:
                audio = AudioReader(self._open(stack, lock), self._spec.sample_rate, self._limits)
                sound = SoundWindows(audio, self._spec, self._span)
            if self._video_wanted:
                container = self._open(stack, lock)
                video = VideoReader(container, self._limits)
                sight = SightWindows(video, self._spec, self._span, still_until=self._still_until(container))
            readers = [reader for reader in (audio, video) if reader is not None]
            for clip in self._windows(sound, sight):
                if video is not None and video.is_turned and self._may_be_turned:
                    self.info, self._may_be_turned = self.info.turned(), False
                self.warnings = _summary([fault for reader in readers for fault in reader.faults])
                yield clip
            self.warnings = _summary([fault for reader in readers for fault in reader.faults])
            self.warnings += self._losses(audio, video)

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

    def _windows(self, sound: SoundWindows | None, sight: SightWindows | None) -> Iterator[Clip]:
        index = self._first_window
        while self._span.end_seconds is None or self._span.window_start(index) < self._span.end_seconds:
            with translated():
                clip = self._window(index, sound, sight)
            material = max(clip.audio_seconds, clip.video_seconds)
            if index and material < MIN_TAIL_SECONDS:
                return
            if material == 0:
                raise self._nothing()
            self._span.check_limits(clip.start_seconds + material - self._span.start_seconds, self._limits)
            yield clip
            if self.info.is_still:
                return
            index += 1

    def _window(self, index: int, sound: SoundWindows | None, sight: SightWindows | None) -> Clip:
        spec, start = self._spec, self._span.window_start(index)
        waveform, audio_seconds = sound.read(index) if sound else (None, 0.0)
        frames, video_seconds = sight.read(index) if sight else (None, 0.0)
        is_silent = waveform is None or _rms(waveform, audio_seconds * spec.sample_rate) < SILENCE_RMS
        shortest = min(
            s for s, reader in ((audio_seconds, sound), (video_seconds, sight)) if reader is not None
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

    def _nothing(self) -> MediaError:
        start = self._span.start_seconds
        if start > 0:
            return InvalidSpan(
                f"there is nothing at {start:g} s; the media ends earlier: ask for an earlier start"
            )
        wanted = (("sound", self._audio_wanted), ("picture", self._video_wanted))
        streams = " and ".join(name for name, is_wanted in wanted if is_wanted)
        return CorruptMedia(f"nothing of the {streams} decodes; is the file complete?")

    def _losses(self, audio: AudioReader | None, video: VideoReader | None) -> list[str]:
        """A warning if all that was asked for ends well before the header says."""
        promised = self.info.duration_seconds
        if promised is None or self._span.end_seconds is not None:
            return []
        audio_end = 0.0 if audio is None else audio.decoded_to / audio.sample_rate
        video_end = 0.0 if video is None else video.end_seconds or 0.0
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
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    stride_seconds: float | None = None,
    first_window: int = 0,
    limits: MediaLimits | None = None,
) -> ClipReader:
    """Windows of `source`, read as they are asked for.

    Args:
        source: path, bytes or a seekable binary file; a file must not be read by others meanwhile.
        spec: the model's numbers.
        audio: whether sound is wanted; only what is wanted is decoded.
        video: whether pictures are wanted.
        start_seconds: start of the first window.
        end_seconds: no window starts here or later, and material from here on is padding; default the end.
        stride_seconds: from one window's start to the next; default one window, so that they touch.
        first_window: windows before this one are passed over; there may be none from here on.
        limits: the most that a file may ask.

    Raises:
        ValueError: neither audio nor video is wanted.
        MissingAudio, MissingVideo: a wanted stream is not in the file.
        InvalidSpan: times that are no times, or outside the media.
        EmptyMedia, UnsupportedMedia, CorruptMedia, MediaTooLarge: see `errors`; while iterating, too.
    """
    if not (audio or video):
        raise ValueError("ask for audio, video or both; got neither")
    stride = spec.window_seconds if stride_seconds is None else stride_seconds
    span = Span(start_seconds=start_seconds, end_seconds=end_seconds, stride_seconds=stride)
    return ClipReader(
        source,
        spec,
        audio=audio,
        video=video,
        span=span,
        limits=limits or MediaLimits(),
        first_window=first_window,
    )


def read_waveform(
    source: Source,
    spec: ClipSpec,
    *,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    limits: MediaLimits | None = None,
) -> Float32[np.ndarray, " samples"]:
    """All of the sound, or of a span of it, mono at `spec.sample_rate`; it stops where the sound does.

    Raises:
        MediaError: there is none, nothing of it decodes, or the span is none.
    """
    limits = limits or MediaLimits()
    span = Span(start_seconds=start_seconds, end_seconds=end_seconds, stride_seconds=spec.window_seconds)
    parts: list[np.ndarray] = []
    with open_container(source, limits) as container, translated():
        span.check(_duration_seconds(container), limits)
        sound = SoundWindows(AudioReader(container, spec.sample_rate, limits), spec, span)
        while end_seconds is None or span.window_start(len(parts)) < end_seconds:
            samples, num_seconds = sound.read(len(parts))
            parts.append(samples[: round(num_seconds * spec.sample_rate)])
            span.check_limits(span.window_start(len(parts)) - start_seconds - spec.window_seconds, limits)
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
    limits: MediaLimits | None = None,
) -> UInt8[np.ndarray, "frames height width 3"]:
    """The frames on display at times in any order, scaled to cover and cropped at the middle.

    Raises:
        MediaError: there is no picture, or nothing of it decodes.
    """
    limits = limits or MediaLimits()
    with open_container(source, limits) as container, translated():
        frames = frames_at(VideoReader(container, limits), times_seconds, height=height, width=width)
    return np.stack([frames[t] for t in times_seconds])


def _duration_seconds(container: InputContainer) -> float | None:
    return None if container.duration is None else container.duration / av.time_base


def _rms(waveform: Float32[np.ndarray, " samples"], num_real: float) -> float:
    return float(np.sqrt((waveform.astype(np.float64) ** 2).sum() / max(num_real, 1.0)))


def _summary(faults: list[str]) -> list[str]:
    """Each fault once, with how often it came."""
    return [f"{fault} ({faults.count(fault)}x)" for fault in dict.fromkeys(faults)]
