"""Decoded frames of one stream, with their times in seconds since the container's start.

What does not decode is passed over and told in `faults`. Other streams are not even read.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Generic, TypeVar, cast

import av
import av.error
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.format import Flags
from av.stream import Discard
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .container import origin_seconds

FrameT = TypeVar("FrameT", AudioFrame, VideoFrame)

TIME_TOLERANCE_SECONDS = 1e-6  # timestamps are fractions of their time base, asked-for times are floats
MAX_JUMP_SECONDS = 10.0  # more than this, backwards, is no jitter but another recording joined on
MAX_BROKEN_READS = 8
MAX_THREADS = 4
SEEK_MARGINS_SECONDS = (0.0, 10.0, 60.0)
_FAILURES = (av.error.FFmpegError, OverflowError)


class Decoder(Generic[FrameT]):
    """Frames of a stream from its start, or from near a time."""

    def __init__(self, container: InputContainer, stream: AudioStream | VideoStream) -> None:
        self.faults: list[str] = []
        self._container, self._stream = container, stream
        self._timeline = Timeline(container)
        stream.codec_context.thread_count = MAX_THREADS
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all

    def frames(self) -> Iterator[tuple[float, FrameT]]:
        """(seconds, frame) from where the container stands to the end of the stream."""
        for frame in self._decoded():
            yield self._timeline.place(frame.time, _length_seconds(frame)), frame

    def frames_before(self, seconds: float) -> Iterator[tuple[float, FrameT]] | None:
        """Frames from a keyframe at or before `seconds`, or as near as there is one; None if it cannot seek."""
        for margin in SEEK_MARGINS_SECONDS:
            if not self._seek(max(0.0, seconds - margin)):
                return None
            frames = self.frames()
            first = next(frames, None)
            if first is not None and first[0] <= seconds + TIME_TOLERANCE_SECONDS:
                return chain([first], frames)
        return self.frames() if self._seek(0.0) else None

    def _seek(self, seconds: float) -> bool:
        if self._timeline.is_shifted or self._stream.time_base is None:
            return False
        pts = int((seconds + self._timeline.origin) / self._stream.time_base)
        try:
            self._container.seek(pts, stream=self._stream)
        except _FAILURES:
            return False
        self._timeline = Timeline(self._container)
        return True

    def _decoded(self) -> Iterator[FrameT]:
        for packet in self._packets():
            try:
                yield from cast(list[FrameT], self._stream.decode(packet))
            except _FAILURES as error:
                self.faults.append(f"{self._stream.type}: a packet does not decode ({type(error).__name__})")

    def _packets(self) -> Iterator[av.Packet | None]:
        for _ in range(MAX_BROKEN_READS):
            try:
                yield from self._container.demux(self._stream)
                return
            except _FAILURES as error:
                self.faults.append(f"{self._stream.type}: the file breaks off ({type(error).__name__})")
        yield None  # what the decoder still holds


class Timeline:
    """Presentation times as seconds since the container's start.

    A jump back by more than 10 s - and forward in broadcast formats, whose clocks may be set anew - is taken out:
    what follows it goes on where what came before ended.
    """

    def __init__(self, container: InputContainer) -> None:
        self.origin = origin_seconds(container)
        self._may_jump_ahead = bool(container.format.flags & Flags.ts_discont)
        self._shift = 0.0
        self._expected: float | None = None

    @property
    def is_shifted(self) -> bool:
        """Whether a jump was taken out, so that times here are no longer those of the file."""
        return self._shift != 0

    def place(self, pts_seconds: float | None, length_seconds: float) -> float:
        """Time of a frame; one without a timestamp follows the one before."""
        expected = self._expected
        if pts_seconds is None:
            seconds = expected or 0.0
        else:
            seconds = pts_seconds - self.origin + self._shift
        if expected is not None and self._is_jump(seconds - expected):
            self._shift -= seconds - expected
            seconds = expected
        self._expected = seconds + length_seconds
        return seconds

    def _is_jump(self, seconds: float) -> bool:
        return seconds < -MAX_JUMP_SECONDS or (self._may_jump_ahead and seconds > MAX_JUMP_SECONDS)


def _length_seconds(frame: AudioFrame | VideoFrame) -> float:
    if isinstance(frame, AudioFrame):
        return frame.samples / frame.sample_rate
    return float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
