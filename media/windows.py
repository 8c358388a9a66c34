"""Audio and video of one window after the other; each is read once and then forgotten."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, UInt8

from .audio import AudioReader
from .errors import CorruptMedia
from .spec import ClipSpec
from .time_range import TimeRange
from .video import VideoReader

EDGE_SECONDS = 1e-3  # how far inside a half-open interval its last frame is looked for


class AudioWindows:
    """Waveforms of windows, in order."""

    def __init__(self, reader: AudioReader, spec: ClipSpec, time_range: TimeRange) -> None:
        self.reader, self._spec, self._range = reader, spec, time_range

    def read(self, index: int) -> tuple[Float32[np.ndarray, " samples"], float]:
        """Samples of window `index`, and the seconds of it before the sound, or the time range, ends."""
        rate, start_seconds = self._spec.sample_rate, self._range.window_start(index)
        start = round(start_seconds * rate)
        samples, num_real = self.reader.read(
            start, start + self._spec.num_samples, keep_from=round(self._range.window_start(index + 1) * rate)
        )
        if self._range.end_seconds is not None:
            num_real = max(0, min(num_real, round(self._range.end_seconds * rate) - start))
            samples[num_real:] = 0
        return samples, num_real / rate


class VideoWindows:
    """Frames of windows, in order.

    Overlapping windows share frames, so frames of later windows are converted on the way. A single frame,
    alone or with sound, is on display until `still_until`.
    """

    def __init__(
        self,
        reader: VideoReader,
        spec: ClipSpec,
        time_range: TimeRange,
        *,
        still_until: float | None = None,
    ) -> None:
        self.reader, self._spec, self._range, self._still_until = reader, spec, time_range, still_until
        self._rgb: dict[float, np.ndarray] = {}
        self._converted_to = -1.0

    def read(self, index: int) -> tuple[UInt8[np.ndarray, "frames height width 3"], float]:
        """Frames of window `index`, and the seconds of it before the video, or the time range, ends."""
        start = self._range.window_start(index)
        end = start + self._spec.window_seconds
        times = self._frame_times(start)
        self._convert_until(index, max(times[-1], end - EDGE_SECONDS))
        chosen = np.stack([self._rgb[t] for t in times])
        self._rgb = {t: rgb for t, rgb in self._rgb.items() if t >= start}
        video_end = self.reader.end_seconds if self._still_until is None else self._still_until
        ends = [x for x in (video_end, self._range.end_seconds) if x is not None]
        return chosen, max(0.0, min([end, *ends]) - start)

    def _frame_times(self, start: float) -> list[float]:
        last = float("inf") if self._range.end_seconds is None else self._range.end_seconds - EDGE_SECONDS
        return [min(start + offset, max(last, start)) for offset in self._spec.frame_offsets_seconds]

    def _convert_until(self, index: int, until: float) -> None:
        """Decode up to `until`, and convert frames of this and later windows that are not there yet."""
        missing: set[float] = set()
        while self._range.window_start(index) <= until:
            missing.update(
                t
                for t in self._frame_times(self._range.window_start(index))
                if self._converted_to < t <= until
            )
            index += 1
        size, crop_fraction = self._spec.frame_size, self._spec.crop_fraction
        self._rgb.update(
            frames_at(self.reader, missing, height=size, width=size, crop_fraction=crop_fraction)
        )
        self._converted_to = max(self._converted_to, until)
        if self._still_until is None:
            self.reader.frame_at(until)  # so that an end of the video inside the window is known


def frames_at(
    reader: VideoReader,
    times_seconds: Sequence[float] | set[float],
    *,
    height: int,
    width: int,
    crop_fraction: float = 1.0,
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
            last_rgb = reader.rgb(frame, height=height, width=width, crop_fraction=crop_fraction)
        frames[seconds] = last_rgb
    return frames
