"""Which part of the media is read, and in what steps."""

from dataclasses import dataclass
from math import ceil, isfinite

from .container import MediaLimits
from .errors import InvalidSpan, TooLong, TooManyWindows

MIN_STRIDE_SECONDS = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Windows every `stride_seconds` from `start_seconds` on, none starting at `end_seconds` or later.

    Raises:
        InvalidSpan: the numbers are no times.
    """

    start_seconds: float
    end_seconds: float | None
    stride_seconds: float

    def __post_init__(self) -> None:
        start, end, stride = self.start_seconds, self.end_seconds, self.stride_seconds
        if not (isfinite(start) and start >= 0):
            raise InvalidSpan(f"start_seconds={start} is no time in the media; give a number from 0 on")
        if end is not None and not (isfinite(end) and end > start):
            raise InvalidSpan(
                f"end_seconds={end} must be a time after start_seconds={start}; leave it out for the end"
            )
        if not (isfinite(stride) and stride >= MIN_STRIDE_SECONDS):
            raise InvalidSpan(f"stride_seconds={stride} must be a time of at least {MIN_STRIDE_SECONDS}")

    def window_start(self, index: int) -> float:
        """Start in seconds of window `index`."""
        return self.start_seconds + index * self.stride_seconds

    def check(self, duration_seconds: float | None, limits: MediaLimits) -> None:
        """Refuse at once what is known to be outside the media, or over a limit.

        Raises:
            InvalidSpan: the media ends before the span starts.
            TooLong, TooManyWindows: over the limits.
        """
        duration = duration_seconds
        if duration is not None and self.start_seconds >= max(duration, 0.001):
            raise InvalidSpan(
                f"start_seconds={self.start_seconds:g} is past the end of the media at {duration:g} s"
            )
        ends = [end for end in (duration, self.end_seconds) if end is not None]
        if duration is not None and ends:
            self.check_limits(min(ends) - self.start_seconds, limits)

    def check_limits(self, seconds: float, limits: MediaLimits) -> None:
        """Raise TooLong or TooManyWindows if `seconds` of media are more than allowed, or more windows than allowed."""
        if seconds > limits.max_duration_seconds:
            raise TooLong(
                f"{seconds:.1f} s of media, the limit is {limits.max_duration_seconds:g} s; cut it, or ask for a part"
            )
        num_windows = ceil(seconds / self.stride_seconds)
        if num_windows > limits.max_windows:
            raise TooManyWindows(
                f"{num_windows} windows, the limit is {limits.max_windows}; take a longer stride, or ask for a part"
            )
