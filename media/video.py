"""Pictures: the frame on display at a given time, turned upright, scaled to cover a square and cropped to it.

Frames are decoded forward once and only the chosen ones are converted; a long gap is skipped by seeking.
"""

from collections.abc import Iterator

import av
import numpy as np
from av.container import InputContainer
from av.frame import Frame
from av.video.frame import VideoFrame
from jaxtyping import UInt8

from .container import MediaLimits, decode_stream, origin_seconds, video_stream
from .errors import MediaTooLarge, MissingVideo

SEEK_GAP_SECONDS = 10.0
TIME_TOLERANCE_SECONDS = 1e-6  # timestamps are fractions of their time base, asked-for times are floats


class VideoReader:
    """Finds frames by time, in order of time."""

    def __init__(self, container: InputContainer, limits: MediaLimits) -> None:
        stream = video_stream(container)
        if stream is None:
            raise MissingVideo("the file has no picture (cover art is none); send one that has, or ask for audio")
        stream.thread_type = "AUTO"
        self.faults: list[str] = []
        self.end_seconds: float | None = None
        """End of the last frame, once it has been decoded."""
        self.pixel_aspect = float(stream.sample_aspect_ratio or 1)
        """Width by height of one pixel."""
        self._container, self._stream, self._limits = container, stream, limits
        self._origin = origin_seconds(container)
        self._frames: Iterator[tuple[float, VideoFrame]] = self._decode()
        self._current: tuple[float, VideoFrame] | None = None
        self._next: tuple[float, VideoFrame] | None = None
        self._last_gap_seconds = 0.0

    def frame_at(self, seconds: float) -> VideoFrame | None:
        """The frame on display at `seconds` since the container's start; None if nothing decodes.

        Before the first frame that is the first, after the last the last. Times must not decrease.
        """
        if self._current is None:
            self._start_at(seconds)
        elif seconds - self._current[0] > SEEK_GAP_SECONDS and self._seek(seconds):
            self._start_from(next(self._frames, None))
        while self._next is not None and self._next[0] <= seconds + TIME_TOLERANCE_SECONDS:
            self._last_gap_seconds = self._next[0] - self._current[0] if self._current else 0.0
            self._current, self._next = self._next, next(self._frames, None)
        if self._next is None and self._current is not None and self.end_seconds is None:
            self.end_seconds = self._current[0] + self._frame_seconds(self._current[1])
        return None if self._current is None else self._current[1]

    def _start_at(self, seconds: float) -> None:
        if seconds > SEEK_GAP_SECONDS and self._seek(seconds):
            first = next(self._frames, None)
            if first is not None and first[0] <= seconds + TIME_TOLERANCE_SECONDS:
                self._start_from(first)
                return
            self._seek(0.0)  # the index points past the time asked for
        self._start_from(next(self._frames, None))

    def _start_from(self, first: tuple[float, VideoFrame] | None) -> None:
        if first is not None:
            self._current, self._next = first, next(self._frames, None)

    def _seek(self, seconds: float) -> bool:
        try:
            self._container.seek(int((seconds + self._origin) * av.time_base))
        except av.error.FFmpegError:
            return False
        self._frames = self._decode()
        return True

    def _frame_seconds(self, frame: VideoFrame) -> float:
        if frame.duration and frame.time_base:
            return float(frame.duration * frame.time_base)
        rate = self._stream.average_rate
        return self._last_gap_seconds or (1 / float(rate) if rate else 0.0)

    def _decode(self) -> Iterator[tuple[float, VideoFrame]]:
        seconds = 0.0
        for frame in decode_stream(self._container, self._stream, self.faults):
            self._check(frame)
            assert isinstance(frame, VideoFrame)
            seconds = seconds if frame.time is None else frame.time - self._origin
            yield seconds, frame

    def _check(self, frame: Frame) -> None:
        assert isinstance(frame, VideoFrame)
        if frame.width * frame.height > self._limits.max_pixels:
            size = f"{frame.width}x{frame.height}"
            raise MediaTooLarge(f"a frame of {size}, the limit is {self._limits.max_pixels} pixels; scale it down")


def to_rgb(frame: VideoFrame, *, height: int, width: int, pixel_aspect: float = 1.0) -> UInt8[np.ndarray, "height width 3"]:
    """The frame as shown - square pixels, upright - scaled to just cover height x width and cropped at its middle."""
    quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise
    shown_height, shown_width = float(frame.height), frame.width * pixel_aspect
    target_height, target_width = (width, height) if quarter_turns % 2 else (height, width)
    scale = max(target_height / shown_height, target_width / shown_width)
    scaled_height = max(target_height, round(shown_height * scale))
    scaled_width = max(target_width, round(shown_width * scale))
    method = "AREA" if scale < 1 else "BICUBIC"
    rgb = frame.reformat(scaled_width, scaled_height, "rgb24", interpolation=method).to_ndarray()
    top, left = (scaled_height - target_height) // 2, (scaled_width - target_width) // 2
    cropped = rgb[top : top + target_height, left : left + target_width]
    return np.ascontiguousarray(np.rot90(cropped, quarter_turns))
