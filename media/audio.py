"""Sound: any sample rate and channel count to mono at the spec's rate, placed by presentation time.

Samples stand where their timestamps say: gaps read as zeros, overlaps are dropped, and what lies before the
container's start is cut. Samples that are NaN or infinite become zero.
"""

from collections import deque
from collections.abc import Iterator

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import InputContainer
from av.frame import Frame
from jaxtyping import Float32

from .container import audio_stream, decode_stream, origin_seconds
from .errors import MissingAudio

MAX_DRIFT_SECONDS = 0.05  # timestamps of lossy containers jitter by less; more is a gap or an overlap
SEEK_GAP_SECONDS = 10.0
SEEK_MARGIN_SECONDS = 0.5  # decoded and dropped after a seek, for codecs that need to warm up

Chunk = tuple[int, Float32[np.ndarray, " samples"]]
"""Position in samples since the container's start, and samples."""


class AudioReader:
    """Reads spans of sound in order of time."""

    def __init__(self, container: InputContainer, sample_rate: int) -> None:
        stream = audio_stream(container)
        if stream is None:
            raise MissingAudio("the file has no sound; send one that has, or ask for video")
        self.sample_rate = sample_rate
        self.faults: list[str] = []
        self.has_ended = False
        self._container, self._stream = container, stream
        self._chunks: Iterator[Chunk] = self._decode()
        self._held: deque[Chunk] = deque()
        self._decoded_to = 0

    def read(self, start: int, stop: int, *, keep_from: int) -> tuple[Float32[np.ndarray, " samples"], int]:
        """Samples [start, stop), zeros where there are none, and how far real material reaches into the span.

        Args:
            start: first sample, since the container's start.
            stop: one past the last.
            keep_from: the earliest sample that a later call will ask for.
        """
        self._seek_if_far(start)
        self._decode_to(stop)
        samples, filled = np.zeros(stop - start, np.float32), 0
        for position, chunk in self._held:
            first, last = max(position, start), min(position + len(chunk), stop)
            if first < last:
                samples[first - start : last - start] = chunk[first - position : last - position]
                filled = max(filled, last - start)
        while self._held and self._held[0][0] + len(self._held[0][1]) <= keep_from:
            self._held.popleft()
        return samples, filled

    def read_all(self, start: int, stop: int | None) -> Float32[np.ndarray, " samples"]:
        """Samples from `start` to `stop`, or to the end of the stream."""
        if stop is None:
            self._seek_if_far(start)
            self._decode_to(None)
            stop = max(start, self._decoded_to)
        samples, filled = self.read(start, stop, keep_from=stop)
        return samples[:filled]

    def _decode_to(self, stop: int | None) -> None:
        while stop is None or self._decoded_to < stop:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.has_ended = True
                return
            self._held.append(chunk)
            self._decoded_to = max(self._decoded_to, chunk[0] + len(chunk[1]))

    def _seek_if_far(self, start: int) -> None:
        target_seconds = start / self.sample_rate - SEEK_MARGIN_SECONDS
        if target_seconds - self._decoded_to / self.sample_rate < SEEK_GAP_SECONDS:
            return
        try:
            self._container.seek(int((target_seconds + origin_seconds(self._container)) * av.time_base))
        except av.error.FFmpegError:
            return  # no index: decode forward instead
        self._held.clear()
        self._chunks = self._decode()

    def _decode(self) -> Iterator[Chunk]:
        placer = _Placer(self.sample_rate, origin_seconds(self._container))
        for frame in decode_stream(self._container, self._stream, self.faults):
            yield from placer.place(frame)
        yield from placer.flush()


class _Placer:
    """Resamples frames and says where their samples belong; starts anew at every jump in time or change of format."""

    def __init__(self, sample_rate: int, origin: float) -> None:
        self.sample_rate, self.origin = sample_rate, origin
        self.resampler: av.AudioResampler | None = None
        self.format: tuple[object, ...] = ()
        self.expected_seconds = 0.0
        self.position = 0

    def place(self, frame: Frame) -> Iterator[Chunk]:
        assert isinstance(frame, AudioFrame)
        seconds = self.expected_seconds if frame.time is None else frame.time - self.origin
        frame_format = (frame.sample_rate, frame.layout.name, frame.format.name)
        jumps = abs(seconds - self.expected_seconds) > MAX_DRIFT_SECONDS
        if self.resampler is None or jumps or frame_format != self.format:
            yield from self.flush()
            self.resampler = av.AudioResampler("flt", "mono", self.sample_rate)
            self.format = frame_format
            self.position = round(seconds * self.sample_rate)
            self.expected_seconds = seconds
        self.expected_seconds += frame.samples / frame.sample_rate
        frame.pts = None  # the placing above is ours, not the resampler's
        yield from self._positioned(self.resampler.resample(frame))

    def flush(self) -> Iterator[Chunk]:
        if self.resampler is not None:
            yield from self._positioned(self.resampler.resample(None))
            self.resampler = None

    def _positioned(self, frames: list[AudioFrame]) -> Iterator[Chunk]:
        for frame in frames:
            samples = np.nan_to_num(frame.to_ndarray()[0], copy=False, nan=0.0, posinf=0.0, neginf=0.0)
            position, self.position = self.position, self.position + len(samples)
            if position < 0:
                samples, position = samples[-position:], 0
            if len(samples):
                yield position, samples.astype(np.float32, copy=False)
