"""Which part of the media is read, and in what steps: one type from a request's options to the readers."""

from dataclasses import dataclass, replace
from math import ceil, isfinite

from .container import MediaLimits
from .errors import InvalidSpan, TooLong, TooManyWindows

MIN_STRIDE_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRange:
    """Windows every `stride_seconds` from `start_seconds` on; none starts at `end_seconds` or later.

    Raises:
        InvalidSpan: a number is no time, the end is not after the start, or the stride is too short.
    """

    start_seconds: float = 0.0
    end_seconds: float | None = None
    """None: the end of the media."""
    stride_seconds: float | None = None
    """None: the length of one window, so that windows touch."""

    def __post_init__(self) -> None:
        start, end, stride = self.start_seconds, self.end_seconds, self.stride_seconds
        if not (_is_number(start) and start >= 0):
            raise InvalidSpan(f"start_seconds={start!r} is no time in the media; give a number from 0 on")
        if end is not None and not (_is_number(end) and end > start):
            raise InvalidSpan(
                f"end_seconds={end!r} must be a time after start_seconds={start!r}; leave it out for the end"
            )
        if stride is not None and not (_is_number(stride) and stride >= MIN_STRIDE_SECONDS):
            raise InvalidSpan(f"stride_seconds={stride!r} must be a time of at least {MIN_STRIDE_SECONDS}")

    def with_default_stride(self, window_seconds: float) -> "TimeRange":
        """The same, with the stride of windows of this length if it has none."""
        return self if self.stride_seconds is not None else replace(self, stride_seconds=window_seconds)

    def window_start(self, index: int) -> float:
        """Start in seconds of window `index`."""
        return self.start_seconds + index * self._stride_seconds

    def check_duration(self, duration_seconds: float | None, limits: MediaLimits) -> None:
        """Refuse at once what is known to be outside the media, or over a limit.

        Raises:
            InvalidSpan: the media ends before this range starts.
            TooLong, TooManyWindows: over the limits.
        """
        duration = duration_seconds
        if duration is None:
            return
        if self.start_seconds >= max(duration, 0.001):
            raise InvalidSpan(
                f"start_seconds={self.start_seconds:g} is past the end of the media at {duration:g} s"
            )
        end = duration if self.end_seconds is None else min(duration, self.end_seconds)
        self.check_limits(end - self.start_seconds, limits)

    def check_limits(self, seconds: float, limits: MediaLimits) -> None:
        """Refuse `seconds` of media that are more than allowed, or make more windows than allowed.

        Raises:
            TooLong, TooManyWindows: over the limits.
        """
        if seconds > limits.max_duration_seconds:
            raise TooLong(
                f"{seconds:.1f} s of media, the limit is {limits.max_duration_seconds:g} s; "
                "cut it, or ask for a part"
            )
        num_windows = ceil(seconds / self._stride_seconds)
        if num_windows > limits.max_windows:
            raise TooManyWindows(
                f"{num_windows} windows, the limit is {limits.max_windows}; "
                "take a longer stride, or ask for a part"
            )

    @property
    def _stride_seconds(self) -> float:
        assert self.stride_seconds is not None, "with_default_stride comes before windows are counted"
        return self.stride_seconds


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


WHOLE_MEDIA = TimeRange()
"""From the start to the end, in windows that touch."""
