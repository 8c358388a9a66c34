"""Sound and sight of one window after the other, each read once and forgotten."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from .audio import AudioReader
from .errors import CorruptMedia
from .span import Span
from .spec import ClipSpec
from .video import VideoReader

EDGE_SECONDS = 1e-3  # how far inside a half-open span its last frame is looked for


class SoundWindows:
    """Waveforms of windows, in order."""

    def __init__(self, reader: AudioReader, spec: ClipSpec, span: Span) -> None:
        self._reader, self._spec, self._span = reader, spec, span

    def read(self, index: int) -> tuple[Float32[np.ndarray, " samples"], float]:
        """Samples of window `index`, and the seconds of it before the sound, or the span, ends."""
        rate, start_seconds = self._spec.sample_rate, self._span.window_start(index)
        start = round(start_seconds * rate)
        samples, num_real = self._reader.read(
            start, start + self._spec.num_samples, keep_from=round(self._span.window_start(index + 1) * rate)
        )
        if self._span.end_seconds is not None:
            num_real = max(0, min(num_real, round(self._span.end_seconds * rate) - start))
            samples[num_real:] = 0
        return samples, num_real / rate


class SightWindows:
    """Frames of windows, in order.

    Overlapping windows share frames, so what later windows want is converted on the way. A film without
    motion, a still or a sound with a single frame, shows its frame until `still_until`.
    """

    def __init__(
        self, reader: VideoReader, spec: ClipSpec, span: Span, *, still_until: float | None = None
    ) -> None:
        self._reader, self._spec, self._span, self._still_until = reader, spec, span, still_until
        self._rgb: dict[float, np.ndarray] = {}
        self._served_to = -1.0

    def read(self, index: int) -> tuple[UInt8[np.ndarray, "frames height width 3"], float]:
        """Frames of window `index`, and the seconds of it before the film, or the span, ends."""
        start = self._span.window_start(index)
        end = start + self._spec.window_seconds
        times = self._times(start)
        self._serve(index, max(times[-1], end - EDGE_SECONDS))
        chosen = np.stack([self._rgb[t] for t in times])
        self._rgb = {t: rgb for t, rgb in self._rgb.items() if t >= start}
        film_end = self._reader.end_seconds if self._still_until is None else self._still_until
        ends = [x for x in (film_end, self._span.end_seconds) if x is not None]
        return chosen, max(0.0, min([end, *ends]) - start)

    def _times(self, start: float) -> list[float]:
        last = float("inf") if self._span.end_seconds is None else self._span.end_seconds - EDGE_SECONDS
        return [min(start + offset, max(last, start)) for offset in self._spec.frame_offsets_seconds]

    def _serve(self, index: int, until: float) -> None:
        """Decode up to `until` and convert what this window or a later one wants and is not there yet."""
        wanted: set[float] = set()
        while self._span.window_start(index) <= until:
            wanted.update(
                t for t in self._times(self._span.window_start(index)) if self._served_to < t <= until
            )
            index += 1
        size = self._spec.frame_size
        self._rgb.update(frames_at(self._reader, wanted, height=size, width=size))
        self._served_to = max(self._served_to, until)
        if self._still_until is None:
            self._reader.frame_at(until)  # so that an end of the film inside the window is known


def frames_at(
    reader: VideoReader, times_seconds: Sequence[float] | set[float], *, height: int, width: int
) -> dict[float, UInt8[np.ndarray, "height width 3"]]:
    """Converted frames by time; a frame that is on display at several of them is converted once.

    Raises:
        CorruptMedia: nothing decodes.
    """
    frames: dict[float, np.ndarray] = {}
    last_frame, last_rgb = None, None
    for seconds in sorted(times_seconds):
        frame = reader.frame_at(seconds)
        if frame is None:
            raise CorruptMedia("nothing of the picture decodes; is the file complete? Or ask for audio alone")
        if frame is not last_frame or last_rgb is None:
            last_frame = frame
            last_rgb = reader.rgb(frame, height=height, width=width)
        frames[seconds] = last_rgb
    return frames
