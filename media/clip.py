"""Media as windows of equal length: uint8 frames and a log-mel spectrogram of the same span of time.

Window i covers the half-open span [start + i * stride, + window_seconds) in both modalities. Windows are read one after
another and forgotten, so an hour costs no more memory than a minute. What a window lacks at its end is padding: silence,
and the last frame again; it is flagged, and counted out of `audio_seconds` and `video_seconds`.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from threading import Lock
from typing import BinaryIO, cast

import numpy as np
from jaxtyping import Float32, UInt8

from .audio import AudioReader
from .container import MediaLimits, SharedFile, Source, as_file, open_container
from .errors import CorruptMedia, InvalidSpan, MediaTooLarge, MissingAudio, MissingVideo
from .log_mel import log_mel
from .probe import MediaInfo, describe
from .spec import ClipSpec
from .video import VideoReader, to_rgb

SILENCE_RMS = 1e-3  # -60 dB of full scale
MIN_TAIL_SECONDS = 0.25  # a last window with less material than this is not worth an answer


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
    """Seconds of the window that hold real sound."""
    video_seconds: float
    """Seconds of the window that hold real picture; a still fills its window."""
    is_silent: bool
    """There is no audible sound: below -60 dB of full scale, or none at all."""
    padded: bool
    """A modality that was asked for ends before the window does."""


class ClipReader:
    """Iterates over the windows of one source; made by `read_clips`.

    `info` says what the file holds. After iteration `warnings` tells what did not decode.
    """

    def __init__(
        self, source: Source, spec: ClipSpec, *, audio: bool, video: bool, span: "Span", limits: MediaLimits
    ) -> None:
        self._source, self._spec, self._span, self._limits = source, spec, span, limits
        self._audio_wanted, self._video_wanted = audio, video
        self.warnings: list[str] = []
        with open_container(source, limits) as container:
            self.info: MediaInfo = describe(container)
        if audio and not self.info.has_audio:
            raise MissingAudio("the file has no sound; send one that has, or ask for video")
        if video and not self.info.has_video:
            raise MissingVideo("the file has no picture (cover art is none); send one that has, or ask for audio")
        span.check(self.info)

    def __iter__(self) -> Iterator[Clip]:
        with ExitStack() as stack:
            file, is_ours = as_file(self._source)
            if is_ours:
                stack.callback(file.close)
            lock = Lock()

            def reopen() -> BinaryIO:
                return cast(BinaryIO, SharedFile(file, lock))

            audio = video = None
            if self._audio_wanted:
                container = stack.enter_context(open_container(reopen(), self._limits))
                audio = AudioReader(container, self._spec.sample_rate)
            if self._video_wanted:
                container = stack.enter_context(open_container(reopen(), self._limits))
                video = VideoReader(container, self._limits)
            try:
                yield from self._windows(audio, video)
            finally:
                for reader in (audio, video):
                    self.warnings += _summary(reader.faults if reader else [])

    def _windows(self, audio: AudioReader | None, video: VideoReader | None) -> Iterator[Clip]:
        sound = None if audio is None else _SoundWindows(audio, self._spec, self._span)
        sight = None if video is None else _SightWindows(video, self._spec, self._span, is_still=self.info.is_still)
        index = 0
        while True:
            start = self._span.start_seconds + index * self._span.stride_seconds
            if self._span.end_seconds is not None and start >= self._span.end_seconds:
                return
            clip = self._window(index, start, sound, sight)
            material = max(clip.audio_seconds, clip.video_seconds)
            if index and material < MIN_TAIL_SECONDS:
                return
            if material == 0:
                raise self._nothing(start, sound, sight)
            yield clip
            if self.info.is_still:
                return
            index += 1
            if index >= self._limits.max_windows:
                raise MediaTooLarge(
                    f"more than {self._limits.max_windows} windows; ask for a shorter part, or a longer stride"
                )

    def _window(self, index: int, start: float, sound: "_SoundWindows | None", sight: "_SightWindows | None") -> Clip:
        spec = self._spec
        waveform, audio_seconds = sound.read(start) if sound else (None, 0.0)
        frames, video_seconds = sight.read(index, start) if sight else (None, 0.0)
        is_silent = waveform is None or _rms(waveform, audio_seconds * spec.sample_rate) < SILENCE_RMS
        shortest = min(s for s, reader in ((audio_seconds, sound), (video_seconds, sight)) if reader is not None)
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

    def _nothing(self, start: float, sound: object, sight: object) -> Exception:
        if start > 0:
            return InvalidSpan(f"there is nothing at {start:g} s; the media ends earlier: ask for an earlier start")
        streams = " and ".join(name for name, x in (("sound", sound), ("picture", sight)) if x)
        return CorruptMedia(f"nothing of the {streams} decodes; is the file complete?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Which part of the media, in windows how far apart."""

    start_seconds: float
    end_seconds: float | None
    stride_seconds: float

    def __post_init__(self) -> None:
        ends = (self.start_seconds, self.stride_seconds, self.end_seconds or 1.0)
        if not all(isfinite(x) for x in ends) or self.start_seconds < 0:
            raise InvalidSpan(f"start, end and stride must be finite times from 0; got {self}")
        if self.stride_seconds < 0.01:
            raise InvalidSpan(f"stride_seconds={self.stride_seconds} is too small; give at least 0.01")
        if self.end_seconds is not None and self.end_seconds <= self.start_seconds:
            raise InvalidSpan(f"end_seconds={self.end_seconds} must be after start_seconds={self.start_seconds}")

    def check(self, info: MediaInfo) -> None:
        """Raise InvalidSpan where the media is known to end before the span starts."""
        if info.duration_seconds is not None and self.start_seconds >= max(info.duration_seconds, 0.001):
            raise InvalidSpan(
                f"start_seconds={self.start_seconds:g} is past the end of the media at {info.duration_seconds:g} s"
            )


def read_clips(
    source: Source,
    spec: ClipSpec,
    *,
    audio: bool = True,
    video: bool = True,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    stride_seconds: float | None = None,
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
        limits: the most that a file may ask.

    Raises:
        MissingAudio, MissingVideo: a wanted stream is not in the file.
        InvalidSpan: times that are no times, or outside the media.
        EmptyMedia, UnsupportedMedia, CorruptMedia, MediaTooLarge: see `errors`; while iterating, too.
    """
    if not (audio or video):
        raise ValueError("ask for audio, video or both; got neither")
    stride = spec.window_seconds if stride_seconds is None else stride_seconds
    span = Span(start_seconds=start_seconds, end_seconds=end_seconds, stride_seconds=stride)
    return ClipReader(source, spec, audio=audio, video=video, span=span, limits=limits or MediaLimits())


def read_waveform(
    source: Source,
    spec: ClipSpec,
    *,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    limits: MediaLimits | None = None,
) -> Float32[np.ndarray, " samples"]:
    """All of the sound, or of a span of it, mono at `spec.sample_rate`.

    Raises:
        MediaError: there is none, or nothing of it decodes.
    """
    with open_container(source, limits or MediaLimits()) as container:
        reader = AudioReader(container, spec.sample_rate)
        stop = None if end_seconds is None else round(end_seconds * spec.sample_rate)
        samples = reader.read_all(round(start_seconds * spec.sample_rate), stop)
    if not len(samples):
        raise CorruptMedia("nothing of the sound decodes; is the file complete?")
    return samples


def read_frames(
    source: Source, times_seconds: Sequence[float], *, height: int, width: int, limits: MediaLimits | None = None
) -> UInt8[np.ndarray, "frames height width 3"]:
    """The frames on display at ascending times, scaled to cover and cropped at the middle.

    Raises:
        MediaError: there is no picture, or nothing of it decodes.
    """
    limits = limits or MediaLimits()
    with open_container(source, limits) as container:
        frames = _frames_at(VideoReader(container, limits), times_seconds, height=height, width=width)
    return np.stack([frames[t] for t in times_seconds])


def _frames_at(reader: VideoReader, times_seconds: Sequence[float], *, height: int, width: int) -> dict[float, np.ndarray]:
    """Converted frames by time; each decoded frame is converted once."""
    frames: dict[float, np.ndarray] = {}
    last_frame, last_rgb = None, None
    for seconds in sorted(times_seconds):
        frame = reader.frame_at(seconds)
        if frame is None:
            raise CorruptMedia("nothing of the picture decodes; is the file complete?")
        if frame is not last_frame or last_rgb is None:
            last_frame = frame
            last_rgb = to_rgb(frame, height=height, width=width, pixel_aspect=reader.pixel_aspect)
        frames[seconds] = last_rgb
    return frames


class _SoundWindows:
    """Sound of one window after the other."""

    def __init__(self, reader: AudioReader, spec: ClipSpec, span: Span) -> None:
        self.reader, self.spec, self.span = reader, spec, span

    def read(self, start_seconds: float) -> tuple[np.ndarray, float]:
        """Samples of the window, and the seconds of it that are real."""
        rate = self.spec.sample_rate
        start = round(start_seconds * rate)
        samples, filled = self.reader.read(
            start, start + self.spec.num_samples, keep_from=start + round(self.span.stride_seconds * rate)
        )
        if self.span.end_seconds is not None:
            filled = max(0, min(filled, round(self.span.end_seconds * rate) - start))
            samples[filled:] = 0
        return samples, filled / rate


class _SightWindows:
    """Pictures of one window after the other. Overlapping windows share frames, so times are served in one order."""

    def __init__(self, reader: VideoReader, spec: ClipSpec, span: Span, *, is_still: bool) -> None:
        self.reader, self.spec, self.span, self.is_still = reader, spec, span, is_still
        self._rgb: dict[float, np.ndarray] = {}
        self._served_to = -1.0

    def read(self, index: int, start_seconds: float) -> tuple[np.ndarray | None, float]:
        """Frames of the window, and the seconds of it that are real; past the end of the film (None, 0)."""
        times = self._times(start_seconds)
        if self.is_still:
            frames = _frames_at(self.reader, [0.0], height=self.spec.frame_size, width=self.spec.frame_size)
            return np.stack([frames[0.0]] * len(times)), self.spec.window_seconds
        self._serve(index, times[-1])
        chosen = np.stack([self._rgb[t] for t in times])
        self._rgb = {t: rgb for t, rgb in self._rgb.items() if t >= start_seconds}
        return chosen, self._covered(start_seconds)

    def _times(self, start_seconds: float) -> list[float]:
        last = float("inf") if self.span.end_seconds is None else self.span.end_seconds - 1e-3
        return [min(start_seconds + offset, max(last, start_seconds)) for offset in self.spec.frame_offsets_seconds]

    def _serve(self, index: int, until: float) -> None:
        """Convert all frames up to `until` that this window or a later one wants and that are not there yet."""
        wanted: set[float] = set()
        while True:
            start = self.span.start_seconds + index * self.span.stride_seconds
            times = [t for t in self._times(start) if self._served_to < t <= until]
            if start > until:
                break
            wanted.update(times)
            index += 1
        size = self.spec.frame_size
        self._rgb.update(_frames_at(self.reader, sorted(wanted), height=size, width=size))
        self._served_to = max(self._served_to, until)

    def _covered(self, start_seconds: float) -> float:
        """Seconds of the window before the film, or the span, ends."""
        end = start_seconds + self.spec.window_seconds
        self._find_end(end)
        ends = [x for x in (self.reader.end_seconds, self.span.end_seconds) if x is not None]
        return max(0.0, min([end, *ends]) - start_seconds)

    def _find_end(self, window_end: float) -> None:
        """Decode on to the end of the window, unless a later window would be asked of what is passed over."""
        overlaps = self.span.stride_seconds < self.spec.window_seconds
        if not overlaps and self.reader.end_seconds is None:
            self.reader.frame_at(window_end - 1e-3)


def _rms(waveform: np.ndarray, num_real: float) -> float:
    return float(np.sqrt((waveform.astype(np.float64) ** 2).sum() / max(num_real, 1.0)))


def _summary(faults: list[str]) -> list[str]:
    """Each fault once, with how often it came."""
    return [f"{fault} ({faults.count(fault)}x)" for fault in dict.fromkeys(faults)]
