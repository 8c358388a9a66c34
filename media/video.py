"""Video: the frame on display at a given time, turned upright, scaled to cover a square and cropped to it.

Frames are decoded forward once, and only those needed are converted. Between needed frames that lie far apart
the reader seeks to the last keyframe, where that saves more than it costs.
"""

import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from jaxtyping import UInt8

from .container import MediaLimits, video_stream
from .decoding import TIME_TOLERANCE_SECONDS, Decoder
from .errors import MissingVideo, TooManyFrames
from .orientation import AS_STORED, Orientation, orientation

MIN_SKIP_SECONDS = 0.5  # of frames that are not needed; a seek over fewer does not pay
VIDEO_SEEK_GAP_SECONDS = 10.0  # the same, in a file without an index
MAX_SHRINK = 128  # pixels into one; FFmpeg's scaler has no filters for more than 256
MAX_SPILL = 8.0  # scaled pixels per kept pixel; a longer strip is cut to shape before it is scaled

Timed = tuple[float, VideoFrame]


class VideoReader:
    """Finds frames by time, in order of time."""

    def __init__(self, container: InputContainer, limits: MediaLimits) -> None:
        stream = video_stream(container)
        if stream is None:
            raise MissingVideo(
                "the file has no picture (cover art is none); send one that has, or ask for audio"
            )
        stream.thread_type = "AUTO"
        self.end_seconds: float | None = None
        """End of the last frame, once it has been decoded."""
        self._stream, self._pixel_aspect = stream, float(stream.sample_aspect_ratio or 1)
        self._decoder: Decoder[VideoFrame] = Decoder(container, stream, limits)
        self._frames = self._decoder.frames()
        self._current: Timed | None = None
        self._next: Timed | None = None
        self._last_gap_seconds = 0.0
        self._max_rate, self._num_read, self._first_seconds = limits.max_frames_per_second, 0, 0.0
        self._patience = 1.0
        self._orientations: dict[int, Orientation] = {}

    @property
    def is_turned(self) -> bool:
        """Whether a frame converted so far is displayed on its side."""
        return any(found.swaps_axes for found in self._orientations.values())

    @property
    def faults(self) -> list[str]:
        """What has not decoded so far."""
        return self._decoder.faults

    def frame_at(self, seconds: float) -> VideoFrame | None:
        """The frame on display at `seconds` since the container's start; None if nothing decodes.

        Before the first frame it is the first one, after the last frame the last. Times must not decrease.
        """
        self._decoder.needed_seconds = seconds
        now = self._current[0] if self._current else 0.0
        if self.end_seconds is None and self._can_skip(seconds, now):
            self._seek(seconds, now)
        if self._current is None:
            self._current = self._read()
            self._next = self._read()
        while self._next is not None and self._next[0] <= seconds + TIME_TOLERANCE_SECONDS:
            self._last_gap_seconds = self._next[0] - self._current[0] if self._current else 0.0
            self._current, self._next = self._next, self._read()
        if self._next is None and self._current is not None and self.end_seconds is None:
            self.end_seconds = self._current[0] + self._frame_seconds(self._current[1])
        return None if self._current is None else self._current[1]

    def rgb(
        self, frame: VideoFrame, *, height: int, width: int, crop_fraction: float = 1.0
    ) -> UInt8[np.ndarray, "height width 3"]:
        """`to_rgb` of one of the frames; see there."""
        # A matrix is read once for each angle, since reading it keeps its frame alive.
        if frame.rotation not in self._orientations:
            self._orientations[frame.rotation] = orientation(frame)
        displayed = self._orientations[frame.rotation]
        return to_rgb(
            frame,
            displayed,
            height=height,
            width=width,
            pixel_aspect=self._pixel_aspect,
            crop_fraction=crop_fraction,
        )

    def _can_skip(self, seconds: float, now: float) -> bool:
        if seconds - now <= MIN_SKIP_SECONDS:
            return False
        keyframe = self._decoder.keyframe_before(seconds)
        if keyframe is None:
            return seconds - now > VIDEO_SEEK_GAP_SECONDS * self._patience
        return keyframe - now > MIN_SKIP_SECONDS * self._patience

    def _seek(self, seconds: float, now: float) -> None:
        frames = self._decoder.frames_before(seconds)
        if frames is None:
            return
        self._frames, self._current, self._next, self._num_read = frames, None, None, 0
        self._current = self._read()
        self._next = self._read()
        if self._current is not None and self._current[0] <= now:
            self._patience *= 2  # keyframes are far apart: to go on decoding would have been quicker

    def _read(self) -> Timed | None:
        """The next frame in order of time; frames that arrive too late are dropped."""
        for seconds, frame in self._frames:
            self._count(seconds)
            if self._current is None or seconds >= self._current[0]:
                return seconds, frame
        return None

    def _count(self, seconds: float) -> None:
        """Raise TooManyFrames if more frames came since the last seek than their time allows."""
        if not self._num_read:
            self._first_seconds = seconds
        self._num_read += 1
        if self._num_read > self._max_rate * (1 + max(0.0, seconds - self._first_seconds)):
            raise TooManyFrames(
                f"over {self._max_rate:g} pictures per second at {seconds:.1f} s; send fewer, 30 are plenty"
            )

    def _frame_seconds(self, frame: VideoFrame) -> float:
        if frame.duration and frame.time_base:
            return float(frame.duration * frame.time_base)
        rate = self._stream.average_rate
        return self._last_gap_seconds or (1 / float(rate) if rate else 0.0)


def to_rgb(
    frame: VideoFrame,
    displayed: Orientation = AS_STORED,
    *,
    height: int,
    width: int,
    pixel_aspect: float = 1.0,
    crop_fraction: float = 1.0,
) -> UInt8[np.ndarray, "height width 3"]:
    """The displayed frame with square pixels, in height x width.

    It is scaled to just cover that size divided by `crop_fraction`, and cropped at its middle.
    """
    target_height, target_width = (width, height) if displayed.swaps_axes else (height, width)
    shown_height, shown_width = float(frame.height), frame.width * pixel_aspect
    scale = max(target_height / shown_height, target_width / shown_width) / crop_fraction
    scaled_height = max(target_height, round(shown_height * scale))
    scaled_width = max(target_width, round(shown_width * scale))
    method = "AREA" if scale < 1 else "BICUBIC"
    is_strip = scaled_height * scaled_width > MAX_SPILL * target_height * target_width
    if is_strip or frame.height > MAX_SHRINK * scaled_height or frame.width > MAX_SHRINK * scaled_width:
        kept = max(1, round(target_height / scale)), max(1, round(target_width / scale / pixel_aspect))
        row_step, column_step = (
            1 + kept[i] // (MAX_SHRINK * (target_height, target_width)[i]) for i in (0, 1)
        )
        cut = _middle(frame.reformat(format="rgb24", threads=1).to_ndarray(), *kept)[
            ::row_step, ::column_step
        ]
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(cut), format="rgb24")
        scaled_height, scaled_width = target_height, target_width
    # Threads would be made and ended for each frame: with them a small one takes four times as long.
    rgb = frame.reformat(scaled_width, scaled_height, "rgb24", interpolation=method, threads=1).to_ndarray()
    shown = _middle(rgb, target_height, target_width)
    if displayed.swaps_axes:
        shown = shown.transpose(1, 0, 2)
    return np.ascontiguousarray(np.flip(shown, displayed.flipped_axes))


def _middle(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = max(0, rgb.shape[0] - height) // 2, max(0, rgb.shape[1] - width) // 2
    return rgb[top : top + height, left : left + width]
