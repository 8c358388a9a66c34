"""What can be wrong with media, as one tree of errors. Each has a stable `code`; messages say what to do.

MediaError
- EmptyMedia          no bytes at all
- UnsupportedMedia    no container, codec or stream that can be read here
- CorruptMedia        a known container or codec, but nothing could be decoded
- MissingModality     the file is fine, but lacks a requested stream
  - MissingAudio
  - MissingVideo
- MediaTooLarge       over one of `MediaLimits`
  - TooManyBytes
  - TooLong
  - TooManyPixels
  - TooManyStreams
  - TooManyFrames
  - TooManyWindows
- InvalidSpan         start, end or stride do not fit the media
"""


class MediaError(Exception):
    """Base of all errors of media; never raised itself."""

    code = "media_error"


class EmptyMedia(MediaError):
    """There are no bytes."""

    code = "empty_media"


class UnsupportedMedia(MediaError):
    """No container, codec or stream that can be read here."""

    code = "unsupported_media"


class CorruptMedia(MediaError):
    """A known container or codec, but nothing could be decoded."""

    code = "corrupt_media"


class MissingModality(MediaError):
    """A requested stream is not in the file."""

    code = "missing_modality"


class MissingAudio(MissingModality):
    """There is no sound in the file."""

    code = "missing_audio"


class MissingVideo(MissingModality):
    """There is no picture in the file; cover art does not count."""

    code = "missing_video"


class MediaTooLarge(MediaError):
    """Over one of `MediaLimits`, of which each has a class; never raised itself."""

    code = "media_too_large"


class TooManyBytes(MediaTooLarge):
    """Over `max_bytes`."""

    code = "too_many_bytes"


class TooLong(MediaTooLarge):
    """Over `max_duration_seconds`."""

    code = "too_long"


class TooManyPixels(MediaTooLarge):
    """Over `max_pixels`."""

    code = "too_many_pixels"


class TooManyStreams(MediaTooLarge):
    """Over `max_streams`."""

    code = "too_many_streams"


class TooManyFrames(MediaTooLarge):
    """Over `max_frames_per_second`."""

    code = "too_many_frames"


class TooManyWindows(MediaTooLarge):
    """Over `max_windows`."""

    code = "too_many_windows"


class InvalidSpan(MediaError):
    """Start, end or stride do not fit the media."""

    code = "invalid_span"
