"""Decoded frames of one stream, with their times in seconds since the container's start.

What does not decode is skipped and reported in `faults`. Packets of other streams are not read. Frames that
are not needed, and that no other frame refers to, are not decoded.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, Generic, TypeVar, cast

import av
import av.error
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.format import Flags
from av.stream import Discard
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .container import MediaLimits, origin_seconds
from .memory import raise_if_starved
from .png_exif import decode_at_once, decode_without_exif

FrameT = TypeVar("FrameT", AudioFrame, VideoFrame)

TIME_TOLERANCE_SECONDS = 1e-6  # timestamps are fractions of their time base, requested times are floats
MAX_JUMP_SECONDS = 10.0  # a longer jump back is no jitter, but another recording that was appended
MAX_BROKEN_READS = 8
SKIPPABLE_CODECS = frozenset({"h264"})  # whose decoder can skip frames without harm to others
NUM_AHEAD = 4  # packets examined to learn whether a frame is replaced before it is needed
SEEK_MARGINS_SECONDS = (0.0, 2.0, 10.0, 60.0)
_FAILURES = (av.error.FFmpegError, OverflowError)


class Decoder(Generic[FrameT]):
    """Frames of a stream from its start, or from near a time."""

    def __init__(
        self, container: InputContainer, stream: AudioStream | VideoStream, limits: MediaLimits
    ) -> None:
        self.faults: list[str] = []
        self.needed_seconds = 0.0
        """The earliest time of which a frame will be needed; it never decreases."""
        self._container, self._stream = container, stream
        self._timeline = Timeline(container)
        stream.codec_context.thread_count = limits.max_threads
        self._is_png = isinstance(stream, VideoStream) and decode_at_once(container, stream)
        stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all

    def frames(self) -> Iterator[tuple[float, FrameT]]:
        """(seconds, frame) from the container's position to the end of the stream."""
        for frame in self._decoded():
            yield self._timeline.place(frame.time, _length_seconds(frame)), frame

    def frames_before(self, seconds: float) -> Iterator[tuple[float, FrameT]] | None:
        """Frames from a keyframe at or before `seconds`, or near it; None if the container cannot seek."""
        for margin in SEEK_MARGINS_SECONDS:
            if not self._seek(max(0.0, seconds - margin)):
                return None
            frames = self.frames()
            first = next(frames, None)
            if first is not None and first[0] <= seconds + TIME_TOLERANCE_SECONDS:
                return chain([first], frames)
        return self.frames() if self._seek(0.0) else None

    def keyframe_before(self, seconds: float) -> float | None:
        """Time of the last keyframe not after `seconds`; None if the file's index does not reach so far."""
        entries, time_base = self._stream.index_entries, self._stream.time_base
        if self._timeline.is_shifted or time_base is None or not len(entries):
            return None
        pts = int((seconds + self._timeline.origin) / time_base)
        found = entries.search_timestamp(pts)
        if found < 0 or entries[len(entries) - 1].timestamp < pts:
            return None
        return float(entries[found].timestamp * time_base) - self._timeline.origin

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
                frames = cast(list[FrameT], self._stream.decode(packet))
            except _FAILURES as error:
                frames = cast(list[FrameT], self._without_exif(packet))
                self._add_fault("its EXIF does not decode" if frames else "a packet does not decode", error)
            for frame in frames:
                if frame.is_corrupt:
                    self._add_fault("a frame is damaged")
                yield frame

    def _without_exif(self, packet: "av.Packet[Any] | None") -> list[AudioFrame] | list[VideoFrame]:
        """Frames of a PNG picture that decodes but for its EXIF; none of anything else."""
        if not self._is_png or packet is None or not isinstance(self._stream, VideoStream):
            return []
        try:
            return decode_without_exif(self._stream, packet)
        except _FAILURES:
            return []

    def _add_fault(self, what: str, error: Exception | None = None) -> None:
        """Report a fault of the file; raises MemoryError if memory was the fault."""
        context = self._stream.codec_context
        raise_if_starved(
            error, num_pixels=context.width * context.height if isinstance(context, VideoCodecContext) else 0
        )
        self.faults.append(f"{self._stream.type}: {what}" + (f" ({type(error).__name__})" if error else ""))

    def _packets(self) -> Iterator["av.Packet[Any] | None"]:
        for _ in range(MAX_BROKEN_READS):
            try:
                yield from self._skipping(self._container.demux(self._stream))
                return
            except _FAILURES as error:
                self._add_fault("the file breaks off", error)
        yield None  # flushes the decoder

    def _skipping(self, packets: Iterator["av.Packet[Any]"]) -> Iterator["av.Packet[Any]"]:
        """The same packets, a few held back.

        Frames that are replaced before they are needed may be skipped.
        """
        if self._stream.codec_context.name not in SKIPPABLE_CODECS:
            yield from packets
            return
        ahead: deque[av.Packet[Any]] = deque()
        failure: Exception | None = None
        while failure is None:
            try:
                ahead.append(next(packets))
            except (StopIteration, *_FAILURES) as error:
                failure = error
            while len(ahead) > (NUM_AHEAD if failure is None else 0):
                packet = ahead.popleft()
                self._stream.codec_context.skip_frame = (
                    "NONREF" if self._is_replaced(packet, ahead) else "DEFAULT"
                )
                yield packet
        if not isinstance(failure, StopIteration):
            raise failure

    def _is_replaced(self, packet: "av.Packet[Any]", ahead: Iterable["av.Packet[Any]"]) -> bool:
        """Whether a later frame is on display in its place by the time that one is needed."""
        if packet.pts is None or packet.time_base is None or not packet.duration or self._timeline.is_shifted:
            return False
        needed = (self.needed_seconds + self._timeline.origin) / packet.time_base
        return any(other.pts is not None and packet.pts < other.pts <= needed for other in ahead)


class Timeline:
    """Presentation times as seconds since the container's start.

    A jump back by more than 10 s is removed, as is one forward in broadcast formats, whose clocks may be
    reset: what follows continues where the part before it ended.
    """

    def __init__(self, container: InputContainer) -> None:
        self.origin = origin_seconds(container)
        self._may_jump_ahead = bool(container.format.flags & cast(int, Flags.ts_discont.value))
        self._shift = 0.0
        self._expected: float | None = None

    @property
    def is_shifted(self) -> bool:
        """Whether a jump was removed, so that times here are no longer those of the file."""
        return self._shift != 0

    def place(self, pts_seconds: float | None, length_seconds: float) -> float:
        """Time of a frame; one without a timestamp follows the frame before it."""
        expected = self._expected
        seconds = (expected or 0.0) if pts_seconds is None else pts_seconds - self.origin + self._shift
        if expected is not None and self._is_jump(seconds - expected):
            self._shift -= seconds - expected
            seconds = expected
        self._expected = seconds + length_seconds
        return seconds

    def _is_jump(self, seconds: float) -> bool:
        return seconds < -MAX_JUMP_SECONDS or (self._may_jump_ahead and seconds > MAX_JUMP_SECONDS)


def _length_seconds(frame: AudioFrame | VideoFrame) -> float:
    if isinstance(frame, AudioFrame):
        return frame.samples / frame.sample_rate if frame.sample_rate else 0.0
    return float(frame.duration * frame.time_base) if frame.duration and frame.time_base else 0.0
