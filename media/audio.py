"""Audio: any sample rate and channel count to mono at the spec's rate, placed by presentation time.

Every channel has the same weight. Samples are placed by their timestamps: gaps are read as zeros, overlaps
are dropped, and what lies before the container's start is cut. Samples that are not finite become zero.
"""

from collections import deque
from collections.abc import Iterator

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import InputContainer
from jaxtyping import Float32

from .container import MediaLimits, audio_stream
from .decoding import Decoder
from .errors import CorruptMedia, MissingAudio

MAX_DRIFT_SECONDS = 0.05  # timestamps of lossy containers jitter by less; more is a gap or an overlap
MAX_SAMPLE_RATE = 1_000_000  # Hz; a header that claims more lies, and a resampler for it would take gigabytes
MAX_AMPLITUDE = 8.0  # of full scale 1: lossy decoders overshoot a little, anything beyond is damage
AUDIO_SEEK_GAP_SECONDS = 10.0
SEEK_MARGIN_SECONDS = 0.5  # decoded and dropped after a seek, for codecs that need to warm up

Chunk = tuple[int, Float32[np.ndarray, " samples"]]
"""Position in samples since the container's start, and samples."""


class AudioReader:
    """Reads parts of an audio stream in order of time."""

    def __init__(self, container: InputContainer, sample_rate: int, limits: MediaLimits) -> None:
        stream = audio_stream(container)
        if stream is None:
            raise MissingAudio("the file has no sound; send one that has, or ask for video")
        self.sample_rate = sample_rate
        self.decoded_to = 0
        """One past the last sample decoded so far."""
        self._decoder: Decoder[AudioFrame] = Decoder(container, stream, limits)
        self._chunks = self._place(self._decoder.frames())
        self._held: deque[Chunk] = deque()

    @property
    def faults(self) -> list[str]:
        """What has not decoded so far."""
        return self._decoder.faults

    def read(self, start: int, stop: int, *, keep_from: int) -> tuple[Float32[np.ndarray, " samples"], int]:
        """Samples [start, stop), and how many of them lie before the stream's end.

        Where there are no samples it gives zeros.

        Args:
            start: first sample, since the container's start.
            stop: one past the last.
            keep_from: the earliest sample that a later call will need.
        """
        self._seek_if_far(start)
        self._decode_to(stop)
        samples = np.zeros(stop - start, np.float32)
        for position, chunk in self._held:
            first, last = max(position, start), min(position + len(chunk), stop)
            if first < last:
                samples[first - start : last - start] = chunk[first - position : last - position]
        while self._held and self._held[0][0] + len(self._held[0][1]) <= keep_from:
            self._held.popleft()
        return samples, max(0, min(self.decoded_to, stop) - start)

    def _decode_to(self, stop: int) -> None:
        while self.decoded_to < stop:
            chunk = next(self._chunks, None)
            if chunk is None:
                return
            self._held.append(chunk)
            self.decoded_to = max(self.decoded_to, chunk[0] + len(chunk[1]))

    def _seek_if_far(self, start: int) -> None:
        target_seconds = start / self.sample_rate - SEEK_MARGIN_SECONDS
        if target_seconds - self.decoded_to / self.sample_rate < AUDIO_SEEK_GAP_SECONDS:
            return
        frames = self._decoder.frames_before(target_seconds)
        if frames is not None:
            self._held.clear()
            self.decoded_to = 0
            self._chunks = self._place(frames)

    def _place(self, frames: Iterator[tuple[float, AudioFrame]]) -> Iterator[Chunk]:
        placer = _Placer(self.sample_rate, self._decoder.faults)
        for seconds, frame in frames:
            yield from placer.place(seconds, frame)
        yield from placer.flush()


class _Placer:
    """Resamples frames and gives their samples a position; starts anew at a jump in time or a new format."""

    def __init__(self, sample_rate: int, faults: list[str]) -> None:
        self._sample_rate, self._faults = sample_rate, faults
        self._resampler: av.AudioResampler | None = None
        self._format: tuple[int, str] = (0, "")
        self._expected_seconds = 0.0
        self._position = 0

    def place(self, seconds: float, frame: AudioFrame) -> Iterator[Chunk]:
        if not 0 < frame.sample_rate <= MAX_SAMPLE_RATE:
            raise CorruptMedia(
                f"the sound claims {frame.sample_rate:,} samples a second; 1 to {MAX_SAMPLE_RATE:,} can be "
                "read: "
                "repair its header"
            )
        length_seconds = frame.samples / frame.sample_rate
        frame = _mono(frame, self._faults)
        frame_format = (frame.sample_rate, frame.format.name)
        jumps = abs(seconds - self._expected_seconds) > MAX_DRIFT_SECONDS
        if self._resampler is None or jumps or frame_format != self._format:
            yield from self.flush()
            self._resampler = av.AudioResampler("flt", "mono", self._sample_rate)
            self._format = frame_format
            self._position = round(seconds * self._sample_rate)
            self._expected_seconds = seconds
        self._expected_seconds += length_seconds
        frame.pts = None  # positions are computed here, not by the resampler
        yield from self._positioned(self._resampler.resample(frame))

    def flush(self) -> Iterator[Chunk]:
        if self._resampler is not None:
            yield from self._positioned(self._resampler.resample(None))
            self._resampler = None

    def _positioned(self, frames: list[AudioFrame]) -> Iterator[Chunk]:
        for frame in frames:
            samples = frame.to_ndarray()[0].clip(-MAX_AMPLITUDE, MAX_AMPLITUDE)
            position, self._position = self._position, self._position + len(samples)
            if position < 0:
                samples, position = samples[-position:], 0
            if len(samples):
                yield position, samples


def _mono(frame: AudioFrame, faults: list[str]) -> AudioFrame:
    """The mean of all channels; a single channel of integers is returned as it is."""
    if frame.layout.nb_channels == 1 and not frame.format.name.startswith(("flt", "dbl")):
        return frame
    if frame.format.name.startswith("s64"):  # which PyAV makes no array of
        (frame,) = av.AudioResampler("dblp", frame.layout, frame.sample_rate).resample(frame)
    num_channels, is_float = frame.layout.nb_channels, frame.format.name.startswith(("flt", "dbl"))
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, num_channels).T
    if is_float:
        samples = _finite(samples, faults)
        mixed = samples.mean(axis=0, dtype=np.float64)
    else:
        scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
        offset = 1.0 if samples.dtype.kind == "u" else 0.0
        mixed = samples.mean(axis=0, dtype=np.float64) / scale - offset
    mono = av.AudioFrame.from_ndarray(mixed.astype(np.float32)[None], format="flt", layout="mono")
    mono.sample_rate = frame.sample_rate
    return mono


def _finite(samples: np.ndarray, faults: list[str]) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        is_finite = np.abs(samples) < 1e6  # false for NaN
    if is_finite.all():
        return samples
    faults.append("audio: samples that are no numbers are read as silence")
    return np.where(is_finite, samples, 0)
